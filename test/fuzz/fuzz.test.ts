/**
 * A short run of `npm run fuzz`, with a seed of its own each time, and its own means of telling.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { checkpointTargets, checkUnmutated } from './checkpoint-targets.ts';
import { fuzz, runCase } from './fuzz.ts';
import type { Target } from './fuzz.ts';
import { openRequestTargets } from './request-targets.ts';

const seed = Number(process.env['SIFT_FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const requestTargets = await openRequestTargets();
afterAll(async () => {
  for (const { close } of requestTargets) await close?.();
});

test('the files are taken as long as nobody has changed them', async () => {
  await checkUnmutated();
});

describe.each(
  [...checkpointTargets, ...requestTargets].map((target) => [target.name, target] as const),
)('mutants: %s', (_, target) => {
  test(`neither crash nor hang nor load wrongly, seed ${seed}`, async () => {
    const { cases, failures } = await fuzz({
      targets: [target],
      seed,
      count: target.share * 10,
      failuresMax: 3,
    });
    expect(cases).toBe(target.share * 10);
    expect(failures).toEqual([]);
  });
});

test('a failure comes again from its seed and number, with what was fed', async () => {
  const target: Target = {
    name: 'every number above 100',
    share: 1,
    make: (random) => random.integer(0, 200),
    feed: async (mutant) => {
      if (Number(mutant) > 100) throw new Error(`fed with ${String(mutant)}`);
    },
  };
  const { failures } = await fuzz({ targets: [target], seed: 7, count: 1_000, failuresMax: 5 });
  expect(failures).toHaveLength(5);
  for (const failure of failures) {
    expect(await runCase(target, failure.seed, failure.index)).toEqual({
      ...failure,
      reason: expect.stringContaining(`fed with ${failure.input}`),
    });
  }
});
