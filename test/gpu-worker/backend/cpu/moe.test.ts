import { describe, expect, test } from 'vitest';
import type { RouteOptions } from '../../../../gpu-worker/backend/moe.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  allNumerics,
  difference,
  f32Numerics,
  openTested,
  openTwin,
  randomFloats,
  randomWeight,
} from '../../../support/gpu/backends.ts';
import type { Tested } from '../../../support/gpu/backends.ts';

const plain: RouteOptions = { groups: 1, groupsKept: 1, normalize: true, scale: 2.5 };

/** The experts that one row of logits and biases is routed to. */
async function routed(
  logits: number[],
  bias: number[],
  options: RouteOptions & { perToken: number },
): Promise<{ experts: number[]; weights: number[] }> {
  const { backend, filled } = await openTested(f32Numerics);
  const routing = backend.moe.routing(1, options.perToken);
  const x = filled(Float32Array.from(logits), logits.length);
  backend.moe.route(
    routing,
    x,
    backend.weights.vector('bias', Float32Array.from(bias)),
    1,
    options,
  );
  const { experts, weights } = backend.moe.readRouting(routing, 1);
  await backend.close();
  return { experts: [...experts], weights: [...weights] };
}

describe('the gate', () => {
  test('chooses by biased scores and weighs by unbiased ones', async () => {
    const { experts, weights } = await routed([0, 2, 1], [5, 0, 0], {
      ...plain,
      perToken: 2,
      normalize: false,
      scale: 1,
    });
    expect(experts).toEqual([0, 1]);
    expect(weights[0]).toBe(0.5);
    expect(weights[1]).toBeCloseTo(1 / (1 + Math.exp(-2)), 6);
  });

  test('takes the lower index among equals', async () => {
    const options = { ...plain, perToken: 3 };
    expect((await routed([1, 1, 1, 1], [0, 0, 0, 0], options)).experts).toEqual([0, 1, 2]);
  });

  test('drops whole groups even if the biased scores that stay are negative', async () => {
    // Experts 2 and 3 would win if dropped groups stood at 0 instead of -inf.
    const options = { ...plain, groups: 2, groupsKept: 1, perToken: 2 };
    const { experts } = await routed([0, 0, 0, 0], [-2, -3, -4, -5], options);
    expect(experts).toEqual([0, 1]);
  });

  test('scores a group by its two best, and a group of one by that one', async () => {
    const two = { ...plain, groups: 2, groupsKept: 1, perToken: 1 };
    expect((await routed([0, 0, 0, 0], [3, -9, 2, 2], two)).experts).toEqual([2]);
    const one = { ...plain, groups: 4, groupsKept: 2, perToken: 2 };
    expect((await routed([0, 0, 0, 0], [-3, -1, -2, -4], one)).experts).toEqual([1, 2]);
  });

  test('divides the weights by their sum before it scales them', async () => {
    const { weights } = await routed([3, -1, 0.5], [0, 0, 0], { ...plain, perToken: 3 });
    expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(2.5, 6);
  });

  test('is the twin’s for random logits', async () => {
    const random = seededRandom(21);
    const tested = await openTested(f32Numerics);
    const twin = openTwin(f32Numerics);
    for (const [experts, groups, groupsKept, perToken] of [
      [8, 1, 1, 2],
      [24, 4, 2, 5],
      [256, 8, 4, 8],
      [6, 6, 3, 3],
    ] as const) {
      const logits = randomFloats(random, 20 * experts, 2);
      const biases = randomFloats(random, experts);
      const results = [tested, twin].map(({ backend, filled }) => {
        const routing = backend.moe.routing(20, perToken);
        const bias = backend.weights.vector('bias', biases);
        const options = { groups, groupsKept, normalize: true, scale: 1.5 };
        backend.moe.route(routing, filled(logits, experts), bias, 20, options);
        return backend.moe.readRouting(routing, 20);
      });
      expect(results[0]?.experts).toEqual(results[1]?.experts);
      const [actual, expected] = results;
      if (actual === undefined || expected === undefined) throw new Error('two results were made');
      expect(difference(actual.weights, expected.weights)).toBeLessThan(2e-6);
    }
    await tested.backend.close();
  });

  test.each([
    [{ ...plain, groups: 3 }, /do not form 3 groups/],
    [{ ...plain, groups: 2, groupsKept: 3 }, /of which 3 are kept/],
    [{ ...plain, groups: 4, groupsKept: 1 }, /can't go to 2 of 1/],
  ])('refuses %o', async (options, message) => {
    await expect(routed([0, 0, 0, 0], [0, 0, 0, 0], { ...options, perToken: 2 })).rejects.toThrow(
      message,
    );
  });
});

describe.each(allNumerics)('the MoE in $name numerics', ({ numerics }) => {
  test.each(['F32', 'BF16', 'F8_E4M3'] as const)('of %s experts is the twin’s', async (dtype) => {
    const [rows, hidden, inner, count, perToken] = [67, 140, 36, 5, 2];
    const mixed = ({ backend, filled, poison }: Tested) => {
      const random = seededRandom(22);
      const make = (outputs: number, inputs: number) =>
        backend.weights.matrix(randomWeight(random, { outputs, inputs, dtype }));
      const experts = backend.moe.experts(
        Array.from({ length: count }, () => ({
          gate: make(inner, hidden),
          up: make(inner, hidden),
          down: make(hidden, inner),
        })),
      );
      const routing = backend.moe.routing(rows, perToken);
      const x = filled(randomFloats(random, rows * hidden), hidden);
      const shared = filled(randomFloats(random, rows * hidden), hidden);
      const logits = filled(randomFloats(random, rows * count), count);
      // Nobody goes to the last expert.
      const bias = backend.weights.vector('bias', Float32Array.of(0, 0, 0, 0, -9));
      backend.moe.route(routing, logits, bias, rows, plain);
      const out = poison(backend.memory.tensor(rows, hidden));
      backend.moe.forward(out, x, shared, routing, experts, rows);
      return backend.memory.read(out, rows);
    };
    const tested = await openTested(numerics);
    const actual = mixed(tested);
    await tested.backend.close();
    // An inner activation that rounds to the other side moves a result by a unit or two.
    const limit = numerics.activations === 'bf16' ? 2 ** -7 : 4e-6;
    expect(difference(actual, mixed(openTwin(numerics)))).toBeLessThan(limit);
  });
});
