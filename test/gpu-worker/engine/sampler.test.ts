import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { setBit } from '../../../gpu-worker/grammar/vocabulary.ts';
import { rowLogprobs } from '../../../gpu-worker/engine/row-logprobs.ts';
import { uniform } from '../../../gpu-worker/engine/random.ts';
import type { SamplingOptions } from '../../../gpu-worker/engine/request.ts';
import { argmax, scaledExp, selectPrefix, weightScale } from '../../../gpu-worker/backend/draw.ts';
import { createSamplerScratch, sampleToken } from '../../../gpu-worker/engine/sampler.ts';
import type { TokenHistory } from '../../../gpu-worker/engine/sampler.ts';
import { plainSampling } from '../../support/worker/engine-driver.ts';

const never = (): number => {
  throw new Error('a greedy choice draws nothing');
};

const unconstrained = { history: null, allowed: null };

function greedy(
  logits: number[],
  options: Partial<SamplingOptions>,
  history: TokenHistory | null = null,
): number | null {
  const scratch = createSamplerScratch(logits.length);
  const all = { ...plainSampling, ...options };
  return sampleToken(Float32Array.from(logits), all, { history, allowed: null }, never, scratch);
}

/** The tokens that can be drawn at all, by walking the draw from 0 to 1. */
function reachable(logits: number[], options: Partial<SamplingOptions>, steps = 4000): number[] {
  const scratch = createSamplerScratch(logits.length);
  const all = { ...plainSampling, temperature: 1, ...options };
  const row = Float32Array.from(logits);
  const drawn = Array.from({ length: steps }, (_, step) =>
    sampleToken(row, all, unconstrained, () => step / steps, scratch),
  );
  return [...new Set(drawn.map(Number))].toSorted((a, b) => a - b);
}

/** Logits whose softmax is these probabilities. */
const logs = (probabilities: number[]): number[] => probabilities.map((p) => Math.log(p));

test('greedy takes the greatest logit, the lower index on ties', () => {
  expect(greedy([1, 3, 3, 2], {})).toBe(1);
  expect(greedy([-5, -Infinity, -5], {})).toBe(0);
  expect(greedy([0, 0, 0], { topK: 1, topP: 0.1, minP: 1 })).toBe(0);
});

test('logits that are no distribution give no token', () => {
  expect(greedy([1, Number.NaN, 3], {})).toBeNull();
  expect(greedy([Number.NaN, 1], {})).toBeNull();
  expect(greedy([1, Infinity], {})).toBeNull();
  expect(greedy([-Infinity, -Infinity], {})).toBeNull();
  expect(greedy([1, 2], { logitBias: [[0, Infinity]] })).toBeNull();
  expect(argmax(Float32Array.of(-Infinity, 0))).toBe(1);
  const row = Float32Array.of(1, Number.NaN);
  expect(rowLogprobs(row, { token: 0, topCount: 1 })).toBeNull();
});

test('logit_bias is added before everything else, and leaves the logits as they were', () => {
  const logits = [1, 2, 3];
  expect(greedy(logits, { logitBias: [[0, 2.5]] })).toBe(0);
  expect(greedy(logits, { logitBias: [[2, -100]] })).toBe(1);
  const row = Float32Array.from(logits);
  const options = { ...plainSampling, logitBias: [[2, -100] as const] };
  sampleToken(row, options, unconstrained, never, createSamplerScratch(3));
  expect([...row]).toEqual(logits);
});

test('the repetition penalty looks at prompt and output, on either side of zero', () => {
  const prompt = Int32Array.of(1);
  expect(greedy([3, 4], { repetitionPenalty: 1.3 }, { prompt, output: new Map() })).toBe(1);
  expect(greedy([3, 4], { repetitionPenalty: 1.4 }, { prompt, output: new Map() })).toBe(0);
  expect(greedy([-5, -4], { repetitionPenalty: 1.3 }, { prompt, output: new Map() })).toBe(0);
  // Once, not twice, for a token that stands in both: 4 / 1.2 is above 3, 4 / 1.44 is not.
  const both = { prompt, output: new Map([[1, 3]]) };
  expect(greedy([3, 4], { repetitionPenalty: 1.2 }, both)).toBe(1);
  // A bias is added before the division: (2 + 2) / 2 against 1.5.
  const biased = { repetitionPenalty: 2, logitBias: [[1, 2] as const] };
  expect(greedy([1.5, 2], biased, { prompt, output: new Map() })).toBe(1);
});

test('frequency counts each use in the output, presence only the first; neither the prompt', () => {
  const history = { prompt: Int32Array.of(0), output: new Map([[1, 3]]) };
  expect(greedy([1, 2], { frequencyPenalty: 0.3 }, history)).toBe(1);
  expect(greedy([1, 2], { frequencyPenalty: 0.4 }, history)).toBe(0);
  expect(greedy([1, 2], { presencePenalty: 0.9 }, history)).toBe(1);
  expect(greedy([1, 2], { presencePenalty: 1.1 }, history)).toBe(0);
  expect(greedy([2, 1], { frequencyPenalty: 5, presencePenalty: 5 }, history)).toBe(0);
  expect(greedy([1, 2], { frequencyPenalty: -1 }, history)).toBe(1);
});

test('top_k keeps the k most likely, the lower index on ties', () => {
  expect(reachable([1, 3, 2, 3], { topK: 2 })).toEqual([1, 3]);
  expect(reachable([1, 1, 1, 1], { topK: 3 })).toEqual([0, 1, 2]);
  expect(reachable([1, 2, 3], { topK: 0 })).toEqual([0, 1, 2]);
  expect(reachable([1, 2, 3], { topK: 99 })).toEqual([0, 1, 2]);
});

test('top_p keeps the shortest prefix of the order that weighs at least p', () => {
  const logits = logs([0.1, 0.4, 0.3, 0.2]);
  expect(reachable(logits, { topP: 0.05 })).toEqual([1]);
  expect(reachable(logits, { topP: 0.45 })).toEqual([1, 2]);
  expect(reachable(logits, { topP: 0.69 })).toEqual([1, 2]);
  expect(reachable(logits, { topP: 0.71 })).toEqual([1, 2, 3]);
  expect(reachable(logits, { topP: 1 })).toEqual([0, 1, 2, 3]);
  expect(reachable(logs([0.25, 0.25, 0.25, 0.25]), { topP: 0.5 })).toEqual([0, 1]);
});

test('top_p weighs what top_k left, and min_p what both left', () => {
  const logits = logs([0.1, 0.4, 0.3, 0.2]);
  // The first of the two that are left has 4/7 = 0.571.
  expect(reachable(logits, { topK: 2, topP: 0.57 })).toEqual([1]);
  expect(reachable(logits, { topK: 2, topP: 0.58 })).toEqual([1, 2]);
  expect(reachable(logits, { minP: 0.49 })).toEqual([1, 2, 3]);
  expect(reachable(logits, { minP: 0.74 })).toEqual([1, 2]);
  expect(reachable(logits, { minP: 1 })).toEqual([1]);
  expect(reachable(logits, { topK: 2, minP: 0.1 })).toEqual([1, 2]);
});

test('a tiny temperature is greedy, a great one is flat', () => {
  expect(reachable([1, 1.001, 0], { temperature: 1e-9 })).toEqual([1]);
  expect(reachable([1, 1.001, 0], { temperature: 1e-300 })).toEqual([1]);
  expect(reachable([9, 1, -9], { temperature: 1e6 })).toEqual([0, 1, 2]);
});

test('draws follow the probabilities that are left', () => {
  const probabilities = [0.05, 0.4, 0.25, 0.2, 0.1];
  const cases: readonly [Partial<SamplingOptions>, number[]][] = [
    [{}, probabilities],
    [{ temperature: 2 }, probabilities.map((p) => Math.sqrt(p))],
    [{ topK: 3 }, [0, 0.4, 0.25, 0.2, 0]],
    [{ topP: 0.6 }, [0, 0.4, 0.25, 0, 0]],
    [{ minP: 0.4 }, [0, 0.4, 0.25, 0.2, 0]],
  ];
  const draws = 20_000;
  const scratch = createSamplerScratch(5);
  const row = Float32Array.from(logs(probabilities));
  for (const [options, kept] of cases) {
    const all = { ...plainSampling, temperature: 1, ...options };
    const counts = [0, 0, 0, 0, 0];
    for (let position = 0; position < draws; position++) {
      const draw = (): number => uniform({ seed: 2024, position });
      const token = Number(sampleToken(row, all, unconstrained, draw, scratch));
      counts[token] = at(counts, token) + 1;
    }
    const total = kept.reduce((sum, weight) => sum + weight, 0);
    let chiSquare = 0;
    for (const [token, weight] of kept.entries()) {
      const expected = (draws * weight) / total;
      if (weight === 0) expect(counts[token]).toBe(0);
      else chiSquare += (at(counts, token) - expected) ** 2 / expected;
    }
    // At most 4 degrees of freedom: 18.5 is passed once in a thousand fair runs; the seed is fixed.
    expect(chiSquare, JSON.stringify(options)).toBeLessThan(18.5);
  }
});

test('the selection without sorting agrees with sorting', () => {
  const weight = fc.oneof(
    fc.constantFrom(0, 0.25, 0.5, 1),
    fc.double({ min: 0, max: 1, noNaN: true }),
  );
  const property = fc.property(
    fc.array(weight, { minLength: 1, maxLength: 60 }),
    fc.option(fc.integer({ min: 1, max: 70 }), { nil: Infinity }),
    fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: Infinity }),
    (list, count, share) => {
      const weights = Float64Array.from(list);
      const total = list.reduce((sum, each) => sum + each, 0);
      // Half way between two tokens, so that the order of summing decides nothing.
      const sorted = list.map((_, id) => id).toSorted((a, b) => at(list, b) - at(list, a) || a - b);
      let size = 0;
      let sum = 0;
      const mass = share * total + 1e-7;
      while (size < Math.min(count, list.length) && sum < mass) sum += at(list, at(sorted, size++));
      fc.pre(Math.abs(sum - mass) > 1e-9);
      const candidates = Int32Array.from(list.keys());
      const order = { scores: weights, weights };
      const found = selectPrefix(candidates, list.length, order, { count, mass });
      const prefix = [...candidates.subarray(0, found)];
      expect(prefix.toSorted((a, b) => a - b)).toEqual(
        sorted.slice(0, size).toSorted((a, b) => a - b),
      );
      expect(prefix.at(-1)).toBe(sorted[size - 1]);
    },
  );
  fc.assert(property, { numRuns: 2000 });
});

test('filters and draw agree with a sorted reference on random rows', () => {
  const property = fc.property(
    fc.array(fc.integer({ min: -12, max: 12 }), { minLength: 2, maxLength: 40 }),
    fc.integer({ min: 0, max: 45 }),
    fc.double({ min: 0.01, max: 1, noNaN: true }),
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.double({ min: 0, max: 0.999, noNaN: true }),
    (steps, topK, topP, minP, unit) => {
      const logits = steps.map((step) => step / 4);
      const options = { ...plainSampling, temperature: 0.7, topK, topP, minP };
      const token = sampleToken(
        Float32Array.from(logits),
        options,
        unconstrained,
        () => unit,
        createSamplerScratch(logits.length),
      );
      expect(sortedReference(logits, options, unit)).toContain(token);
    },
  );
  fc.assert(property, { numRuns: 2000 });
});

/** Tokens that the draw may give; more than one only where rounding could decide. */
function sortedReference(logits: number[], options: SamplingOptions, unit: number): number[] {
  const results = [-1e-9, 0, 1e-9].map((slack) => {
    const max = Math.max(...logits);
    let kept = logits
      .map((logit, token) => ({ token, weight: Math.exp((logit - max) / options.temperature) }))
      .toSorted((a, b) => b.weight - a.weight || a.token - b.token);
    if (options.topK > 0) kept = kept.slice(0, options.topK);
    const total = kept.reduce((sum, { weight }) => sum + weight, 0);
    let sum = 0;
    if (options.topP < 1) {
      kept = kept.filter(({ weight }) => {
        const isNeeded = sum < options.topP * total + slack;
        sum += weight;
        return isNeeded;
      });
    }
    kept = kept.filter(({ weight }) => weight >= options.minP + slack);
    kept.sort((a, b) => a.token - b.token);
    const target = unit * kept.reduce((all, { weight }) => all + weight, 0) + slack;
    let cumulative = 0;
    const drawn = kept.find(({ weight }) => (cumulative += weight) > target) ?? kept.at(-1);
    return drawn?.token ?? argmax(Float32Array.from(logits)) ?? -1;
  });
  return results;
}

test('weights are e^x of the scale to half a unit, and a row of them sums exactly', () => {
  for (const vocabSize of [2, 4096, 129_280, 131_072, 262_144]) {
    const scale = weightScale(vocabSize);
    expect(scale * vocabSize).toBeLessThanOrEqual(2 ** 53);
    expect(scaledExp(0, scale)).toBe(scale);
    for (let x = 0; x > -32; x -= 0.0137) {
      const error = Math.abs(scaledExp(x, scale) - Math.exp(x) * scale);
      expect(error).toBeLessThanOrEqual(0.5 + scale * Math.exp(x) * 2 ** -51);
    }
    expect(scaledExp(-Infinity, scale)).toBe(0);
    expect(scaledExp(-1e300, scale)).toBe(0);
  }
});

test('the drawn token does not depend on the order of summing: weights are integers', () => {
  const scale = weightScale(1000);
  const weights = Array.from({ length: 1000 }, (_, i) => scaledExp(-i / 31, scale));
  expect(weights.every((weight) => Number.isSafeInteger(weight))).toBe(true);
  const sum = (list: readonly number[]): number => list.reduce((all, each) => all + each, 0);
  expect(sum(weights)).toBe(sum(weights.toReversed()));
});

test('logprobs are the log-softmax of the logits, the top sorted, lower index first on ties', () => {
  const logits = logs([0.1, 0.4, 0.2, 0.2, 0.1]).map((logit) => logit + 7);
  const { logprob, top } = rowLogprobs(Float32Array.from(logits), { token: 4, topCount: 3 }) ?? {
    top: [],
  };
  expect(logprob).toBeCloseTo(Math.log(0.1), 5);
  expect(top.map(({ token }) => token)).toEqual([1, 2, 3]);
  expect(at(top, 0).logprob).toBeCloseTo(Math.log(0.4), 5);
  const none = rowLogprobs(Float32Array.from(logits), { token: 0, topCount: 0 });
  expect(none?.top).toEqual([]);
  const all = rowLogprobs(Float32Array.from(logits), { token: 0, topCount: 9 });
  expect(all?.top.map(({ token }) => token)).toEqual([1, 2, 3, 0, 4]);
});

test('logprobs stand huge logits and impossible tokens', () => {
  const row = Float32Array.of(3e38, -Infinity, 3e38);
  const { logprob, top } = rowLogprobs(row, { token: 1, topCount: 3 }) ?? { top: [] };
  expect(logprob).toBe(-Infinity);
  expect(top[0]).toEqual({ token: 0, logprob: expect.closeTo(0, 0) });
});

describe('with tokens that are not allowed', () => {
  const size = 70;
  const only = (...tokens: number[]): Uint32Array => {
    const allowed = new Uint32Array(Math.ceil(size / 32));
    for (const token of tokens) setBit(allowed, token);
    return allowed;
  };
  const sample = (
    options: Partial<SamplingOptions>,
    allowed: Uint32Array,
    change: (row: Float32Array) => void = () => {},
    unit = 0.5,
  ): number | null => {
    const row = Float32Array.from({ length: size }, (_, token) => token / 10);
    change(row);
    const all = { ...plainSampling, ...options };
    const context = { history: null, allowed };
    return sampleToken(row, all, context, () => unit, createSamplerScratch(size));
  };

  test('the best of the allowed is greedy’s choice', () => {
    for (const tokens of [[0], [31], [32, 5], [69], [1, 63, 64]]) {
      expect(sample({}, only(...tokens))).toBe(Math.max(...tokens));
    }
  });

  test('no other is drawn, whatever is filtered and biased', () => {
    const filters = [{}, { topK: 3 }, { topP: 0.5 }, { minP: 0.9 }, { topK: 60, topP: 0.99 }];
    for (const filter of filters) {
      const options = { ...filter, temperature: 2, logitBias: [[69, 100] as const] };
      for (let unit = 0; unit < 1; unit += 0.01) {
        expect([3, 40]).toContain(sample(options, only(3, 40), () => {}, unit));
      }
    }
  });

  test('all allowed is as if nothing were said', () => {
    const all = new Uint32Array(3).fill(0xffffffff);
    expect(sample({}, all)).toBe(69);
  });

  test('a row that is no distribution stays none, and where none is allowed there is none', () => {
    for (const broken of [Number.NaN, Infinity]) {
      for (const place of [3, 50]) {
        expect(sample({}, only(3, 40), (row) => (row[place] = broken))).toBe(null);
      }
    }
    expect(sample({}, only())).toBe(null);
    expect(sample({ temperature: 1 }, only(4), (row) => (row[4] = -Infinity))).toBe(null);
  });
});
