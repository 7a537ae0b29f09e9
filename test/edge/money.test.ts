import fc from 'fast-check';
import { expect, test } from 'vitest';
import { billed, costNanoUsd, holdNanoUsd, limitedTokens } from '../../edge/money.ts';
import type { Price, Usage } from '../../edge/money.ts';
import { price, usageOf } from '../support/edge/tenant-samples.ts';

const tokens = fc.integer({ min: 0, max: 10_000_000 });
const amount = fc.integer({ min: 0, max: 10_000_000_000 });
const anyUsage: fc.Arbitrary<Usage> = fc.record({
  inputUncached: tokens,
  inputCached: fc.option(tokens),
  outputText: tokens,
  outputReasoning: tokens,
});
const anyPrice: fc.Arbitrary<Price> = fc.record({
  id: fc.constant('p'),
  inputCached: amount,
  inputUncached: amount,
  output: amount,
});

test('the published example costs 11,904,928 nano-USD', () => {
  const usage = usageOf({ inputCached: 65_536, inputUncached: 34_464, outputText: 1_000 });
  expect(costNanoUsd(usage, price)).toBe(11_904_928);
});

test('nothing costs nothing, and a millionth of a nano-dollar costs one', () => {
  expect(costNanoUsd(usageOf(), price)).toBe(0);
  const cheap = { id: 'p', inputCached: 1, inputUncached: 1, output: 1 };
  expect(costNanoUsd(usageOf({ inputCached: 1 }), cheap)).toBe(1);
});

test('a cost is rounded once, after summing, not per part', () => {
  const thirds = { id: 'p', inputCached: 400_000, inputUncached: 300_000, output: 300_000 };
  const one = usageOf({ inputCached: 1, inputUncached: 1, outputText: 1 });
  expect(costNanoUsd(one, thirds)).toBe(1);
});

test('text and reasoning cost the same, and prices below a nano-dollar a token are exact', () => {
  const fraction = { id: 'p', inputCached: 3_625_000, inputUncached: 0, output: 0 };
  expect(costNanoUsd(usageOf({ inputCached: 8 }), fraction)).toBe(29);
  expect(costNanoUsd(usageOf({ outputText: 7 }), price)).toBe(
    costNanoUsd(usageOf({ outputReasoning: 7 }), price),
  );
});

test('a cost is the least integer that is not below the exact sum', () => {
  fc.assert(
    fc.property(anyUsage, anyPrice, (usage, at) => {
      const exact =
        BigInt(usage.inputCached ?? 0) * BigInt(at.inputCached) +
        BigInt(usage.inputUncached) * BigInt(at.inputUncached) +
        BigInt(usage.outputText + usage.outputReasoning) * BigInt(at.output);
      const cost = BigInt(costNanoUsd(usage, at));
      expect(cost * 1_000_000n >= exact && (cost - 1n) * 1_000_000n < exact).toBe(true);
    }),
  );
});

test('usage is billed at its cost up to the hold, and what lies beyond is the excess', () => {
  const usage = usageOf({ outputText: 1_000 });
  const cost = costNanoUsd(usage, price);
  expect(billed(usage, price, cost)).toEqual({ costNanoUsd: cost, excessNanoUsd: 0 });
  expect(billed(usage, price, cost - 3)).toEqual({ costNanoUsd: cost - 3, excessNanoUsd: 3 });
});

test('whatever of the prompt was cached and however it was cut short, the hold covers the cost', () => {
  fc.assert(
    fc.property(anyUsage, anyPrice, tokens, tokens, (usage, at, moreInput, moreOutput) => {
      const bounds = {
        promptTokensMax: (usage.inputCached ?? 0) + usage.inputUncached + moreInput,
        outputTokensMax: usage.outputText + usage.outputReasoning + moreOutput,
      };
      expect(holdNanoUsd(bounds, at)).toBeGreaterThanOrEqual(costNanoUsd(usage, at));
    }),
  );
});

test('a request of twice the size never costs more than two of it', () => {
  fc.assert(
    fc.property(anyUsage, anyPrice, (usage, at) => {
      const twice: Usage = {
        inputUncached: 2 * usage.inputUncached,
        inputCached: 2 * (usage.inputCached ?? 0),
        outputText: 2 * usage.outputText,
        outputReasoning: 2 * usage.outputReasoning,
      };
      expect(costNanoUsd(twice, at)).toBeLessThanOrEqual(2 * costNanoUsd(usage, at));
    }),
  );
});

test.each([-1, 0.5, Number.NaN, Infinity, 2 ** 53])(
  '%s is no count of tokens nor a price',
  (bad) => {
    expect(() => costNanoUsd(usageOf({ inputUncached: bad }), price)).toThrow(/integers from 0/);
    expect(() => costNanoUsd(usageOf(), { ...price, output: bad })).toThrow(/integers from 0/);
    expect(() => holdNanoUsd({ promptTokensMax: bad, outputTokensMax: 1 }, price)).toThrow(
      'integers from 0',
    );
  },
);

test('a cost beyond 2^53 nano-USD is refused rather than rounded', () => {
  const huge = usageOf({ inputUncached: Number.MAX_SAFE_INTEGER });
  expect(() => costNanoUsd(huge, { ...price, inputUncached: 10_000_000 })).toThrow(/safe integer/);
});

test('cached input is free of the tokens-per-minute limit', () => {
  const usage = { inputUncached: 1, inputCached: 20, outputText: 300, outputReasoning: 4_000 };
  expect(limitedTokens(usage)).toBe(4_301);
});
