/**
 * A receipt: what one request cost, and all that the cost follows from. It is made of the entries
 * that settled the request, when it is asked for, and holds nothing of prompt or answer.
 */
import { z } from 'zod';
import { billedBlockTokens } from '../../gpu-worker/protocol/usage.ts';
import { cacheMissReasonSchema, readCacheMissReason } from '../dialects/cache-miss-reason.ts';
import { cachedCount, count, nanoUsd } from '../dialects/quantities.ts';
import type { SettledRequest } from '../tenant/report-contract.ts';

const time = z.iso.datetime().describe('ISO 8601, UTC');
const tokenPrice = z.int().min(0);
/** RFC 8785 has no form for a half of a character. */
const text = z.string().refine((value) => value.isWellFormed(), 'has half a character');

/** A member that is not listed would be signed and not read, so there may be none. */
export const receiptSchema = z.strictObject({
  version: z.literal(1),
  account: text,
  key_id: text,
  request_id: text,
  entry_id: z.int().min(1).describe('the entry of the ledger that settled the request'),
  status: z.enum(['posted', 'voided']).describe('voided: nothing was billed'),
  outcome: z
    .enum(['done', 'aborted', 'failed'])
    .nullable()
    .describe('aborted: the client left; failed: the worker did not finish'),
  model: text,
  revision: text.nullable().describe('of the model; null where it was not recorded yet'),
  alias: text.nullable().describe('the name that the request had for the model'),
  worker: text.nullable(),
  prices: z
    .strictObject({ id: text, cached_input: tokenPrice, input: tokenPrice, output: tokenPrice })
    .describe('nano-USD per 1,000,000 tokens, as in force at admission'),
  tokens: z.strictObject({
    cached_input: cachedCount,
    input: count.describe('what no cache had'),
    output_text: count.describe('billed at the price of output'),
    output_reasoning: count.describe('billed at the price of output'),
  }),
  cached_blocks: cachedCount.describe('cached_input in blocks of block_tokens'),
  block_tokens: z.int().min(1),
  cache_miss_reason: cacheMissReasonSchema,
  cost_nano_usd: nanoUsd.describe(
    'what was billed: the sum of tokens times price, rounded up once',
  ),
  not_billed_nano_usd: nanoUsd.describe('cost beyond the hold, which is never billed; else 0'),
  admitted_at: time,
  settled_at: time,
  corrections: z
    .array(z.strictObject({ entry_id: z.int().min(1), amount_nano_usd: nanoUsd, at: time }))
    .describe('entries that corrected this one since; a positive amount came back'),
});
export type Receipt = z.infer<typeof receiptSchema>;

export const signedReceiptSchema = z.strictObject({
  receipt: receiptSchema,
  signature: z.strictObject({
    algorithm: z.literal('Ed25519'),
    form: z.literal('RFC 8785').describe('the form of the receipt whose UTF-8 bytes are signed'),
    key_id: z.string().describe('names a key of /.well-known/sift-receipts.json'),
    value: z.base64url(),
  }),
});
export type SignedReceipt = z.infer<typeof signedReceiptSchema>;

export function toReceipt(account: string, request: SettledRequest): Receipt {
  const { usage, price } = request;
  const { inputCached } = usage;
  const { cacheMissReason: reason } = request;
  return {
    version: 1,
    account,
    key_id: request.keyId,
    request_id: request.requestId,
    entry_id: request.entryId,
    status: request.status,
    outcome: request.outcome,
    model: request.model,
    revision: request.revision,
    alias: request.alias,
    worker: request.worker,
    prices: {
      id: price.id,
      cached_input: price.inputCached,
      input: price.inputUncached,
      output: price.output,
    },
    tokens: {
      cached_input: inputCached,
      input: usage.inputUncached,
      output_text: usage.outputText,
      output_reasoning: usage.outputReasoning,
    },
    cached_blocks: inputCached === null ? null : blocksOf(inputCached),
    block_tokens: billedBlockTokens,
    cache_miss_reason: reason === null ? null : readCacheMissReason(reason),
    cost_nano_usd: request.costNanoUsd,
    not_billed_nano_usd: request.excessNanoUsd,
    admitted_at: toTime(request.admittedAtMs),
    settled_at: toTime(request.settledAtMs),
    corrections: request.corrections.map(({ id, amountNanoUsd, createdAtMs }) => ({
      entry_id: id,
      amount_nano_usd: amountNanoUsd,
      at: toTime(createdAtMs),
    })),
  };
}

function blocksOf(tokens: number): number {
  return Math.floor(tokens / billedBlockTokens);
}

function toTime(ms: number): string {
  return new Date(ms).toISOString();
}
