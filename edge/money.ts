/**
 * The arithmetic of money: integers in nano-USD, prices per 1,000,000 tokens, one rounding, up,
 * after summing (docs/design.md#money). BigInt inside, because tokens times price passes 2^53.
 */
import { strict as assert } from 'node:assert';

/**
 * Disjoint token counts; every wire format is a pure function of them. 0 is a value, not "absent".
 */
export interface Usage {
  readonly inputUncached: number;
  /** null: the worker did not say, and the whole prompt is `inputUncached`. */
  readonly inputCached: number | null;
  readonly outputText: number;
  readonly outputReasoning: number;
}

/**
 * Integers, nano-USD per 1,000,000 tokens. `id` names the price in force, stored with each entry.
 */
export interface Price {
  readonly id: string;
  readonly inputCached: number;
  readonly inputUncached: number;
  readonly output: number;
}

const tokensPerPrice = 1_000_000n;

/** A count of nothing: known, and free. */
export const noUsage: Usage = {
  inputUncached: 0,
  inputCached: 0,
  outputText: 0,
  outputReasoning: 0,
};

/** Null if nothing at all was counted: there is nothing to bill. */
export function usedOrNull(usage: Usage | null): Usage | null {
  if (usage === null) return null;
  return Object.values(usage).some((tokens) => tokens > 0) ? usage : null;
}

/**
 * The cost of the usage at that price, in nano-USD, rounded up once. Throws on anything but counts.
 */
export function costNanoUsd(usage: Usage, price: Price): number {
  const sum =
    product(usage.inputCached ?? 0, price.inputCached) +
    product(usage.inputUncached, price.inputUncached) +
    product(usage.outputText, price.output) +
    product(usage.outputReasoning, price.output);
  return roundUp(sum);
}

/**
 * The bill of usage: its cost, but never more than the hold. The hold is an upper bound, so
 * an excess means a worker that counts wrongly: it is not billed, and is there to be seen.
 */
export function billed(
  usage: Usage,
  price: Price,
  holdAmountNanoUsd: number,
): { readonly costNanoUsd: number; readonly excessNanoUsd: number } {
  const fullCostNanoUsd = costNanoUsd(usage, price);
  const billedNanoUsd = Math.min(fullCostNanoUsd, holdAmountNanoUsd);
  return { costNanoUsd: billedNanoUsd, excessNanoUsd: fullCostNanoUsd - billedNanoUsd };
}

/**
 * The most that a request can cost, in nano-USD: every prompt token at the dearer input price and
 * every output token that it may generate.
 */
export function holdNanoUsd(
  tokens: { readonly promptTokensMax: number; readonly outputTokensMax: number },
  price: Price,
): number {
  const inputPrice = Math.max(price.inputUncached, price.inputCached);
  const sum =
    product(tokens.promptTokensMax, inputPrice) + product(tokens.outputTokensMax, price.output);
  return roundUp(sum);
}

/** The most output tokens of which such a hold stays within an amount; null: none. */
export function outputTokensWithin(
  amountNanoUsd: number,
  tokens: { readonly promptTokensMax: number; readonly outputTokensMax: number },
  price: Price,
): number | null {
  const { promptTokensMax, outputTokensMax } = tokens;
  const inputPrice = Math.max(price.inputUncached, price.inputCached);
  const left = BigInt(amountNanoUsd) * tokensPerPrice - product(promptTokensMax, inputPrice);
  if (left < 0n) return null;
  if (price.output === 0) return outputTokensMax;
  const within = left / BigInt(price.output);
  return within < BigInt(outputTokensMax) ? Number(within) : outputTokensMax;
}

/** Uncached input and output: what a tokens-per-minute limit counts. Cached input is free of it. */
export function limitedTokens(usage: Usage): number {
  return usage.inputUncached + usage.outputText + usage.outputReasoning;
}

function product(tokens: number, price: number): bigint {
  assertCount(tokens);
  assertCount(price);
  return BigInt(tokens) * BigInt(price);
}

function roundUp(sum: bigint): number {
  const cost = (sum + tokensPerPrice - 1n) / tokensPerPrice;
  assert(cost <= BigInt(Number.MAX_SAFE_INTEGER), 'a cost fits a safe integer of nano-USD');
  return Number(cost);
}

function assertCount(value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'tokens and prices are integers from 0');
}
