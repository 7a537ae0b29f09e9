/** Works out how much is held for a request at its admission, and how long its answer may be. */
import { exhausted } from '../ledger/budgets.ts';
import type { BudgetLook } from '../ledger/budgets.ts';
import { holdNanoUsd, outputTokensWithin } from '../money.ts';
import type { AdmitInput, Refusal } from './admission-contract.ts';

export interface HoldAmounts {
  readonly amountNanoUsd: number;
  /** The amount that the hold can grow to. */
  readonly amountNanoUsdMax: number;
  readonly outputTokensMax: number;
}

/**
 * A budget must cover all that the request may cost, unless the answer may be shorter; the balance
 * only what is held at once.
 * @param availableNanoUsd asked for only where the answer may be shorter.
 */
export function holdAmounts(
  input: AdmitInput,
  { tightest }: BudgetLook,
  availableNanoUsd: () => number,
): HoldAmounts | { readonly refusal: Refusal } {
  const { price } = input;
  const neededNanoUsd = holdNanoUsd(input, price);
  const trimTo = input.budgets?.trimTo ?? null;
  if (trimTo === null) {
    if (tightest !== null && tightest.leftNanoUsd < neededNanoUsd) {
      return { refusal: exhausted(tightest, neededNanoUsd) };
    }
    return amountsFor(input, input.outputTokensMax);
  }
  const available = availableNanoUsd();
  const coveredNanoUsd = Math.min(available, tightest?.leftNanoUsd ?? available);
  const within = outputTokensWithin(coveredNanoUsd, input, price) ?? 0;
  // All of what was asked for need not be a multiple.
  const tokens = within >= input.outputTokensMax ? within : within - (within % trimTo);
  if (tokens > 0) return amountsFor(input, tokens);
  const least = holdNanoUsd({ ...input, outputTokensMax: trimTo }, price);
  if (tightest !== null && tightest.leftNanoUsd <= available) {
    return { refusal: exhausted(tightest, least) };
  }
  return {
    refusal: { kind: 'no-balance', availableNanoUsd: available, neededNanoUsd: least },
  };
}

function amountsFor(input: AdmitInput, outputTokensMax: number): HoldAmounts {
  const { promptTokensMax, price, lease } = input;
  const outputTokensHeld = Math.min(outputTokensMax, lease?.outputTokens ?? outputTokensMax);
  return {
    amountNanoUsd: holdNanoUsd({ promptTokensMax, outputTokensMax: outputTokensHeld }, price),
    amountNanoUsdMax: holdNanoUsd({ promptTokensMax, outputTokensMax }, price),
    outputTokensMax,
  };
}
