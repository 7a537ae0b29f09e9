/** Verifies a receipt: by its signature, and by computing its cost from its prices and counts. */
import { costNanoUsd } from '../money.ts';
import type { Price, Usage } from '../money.ts';
import type { Receipt, SignedReceipt } from './receipt.ts';
import { isSignedBy } from './receipt-keys.ts';
import type { ReceiptKey } from './receipt-keys.ts';

/** @returns a sentence about each thing that is not as it should be; [] for a good receipt. */
export async function verifyReceipt(
  signed: SignedReceipt,
  keys: readonly ReceiptKey[],
): Promise<string[]> {
  return [...(await signatureFaults(signed, keys)), ...sumFaults(signed.receipt)];
}

async function signatureFaults(
  signed: SignedReceipt,
  keys: readonly ReceiptKey[],
): Promise<string[]> {
  const { key_id: keyId } = signed.signature;
  const key = keys.find(({ kid }) => kid === keyId);
  if (key === undefined) return [`the key ${keyId}, which signed it, is not among the keys`];
  if (await isSignedBy(key, signed)) return [];
  return [`the signature of key ${keyId} is not of this receipt: something in it was changed`];
}

/** null for counts and prices that make more than any amount of money. */
function costOf(usage: Usage, price: Price): number | null {
  try {
    return costNanoUsd(usage, price);
  } catch {
    return null;
  }
}

function sumFaults(receipt: Receipt): string[] {
  const { prices, tokens } = receipt;
  const usage = {
    inputCached: tokens.cached_input,
    inputUncached: tokens.input,
    outputText: tokens.output_text,
    outputReasoning: tokens.output_reasoning,
  };
  const price = {
    id: prices.id,
    inputCached: prices.cached_input,
    inputUncached: prices.input,
    output: prices.output,
  };
  const computed = costOf(usage, price);
  const { cost_nano_usd: billed, not_billed_nano_usd: notBilled } = receipt;
  const { cached_blocks: blocks, block_tokens: blockTokens } = receipt;
  const cachedTokens = blocks === null ? null : blocks * blockTokens;
  return [
    ...(computed === billed + notBilled
      ? []
      : [
          `its prices and counts make ${computed ?? 'more than any number of'} nano-USD; it states ${billed} as billed and ` +
            `${notBilled} as not billed`,
        ]),
    ...(cachedTokens === tokens.cached_input
      ? []
      : [
          `${blocks} cached blocks of ${blockTokens} tokens are not ` +
            `${tokens.cached_input} cached tokens`,
        ]),
  ];
}
