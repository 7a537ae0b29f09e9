/** A statement as JSON: snake case, integers in nano-USD. */
import { z } from 'zod';
import { count, nanoUsd } from '../dialects/quantities.ts';
import type { BalanceChange } from '../tenant/statement-contract.ts';
import { nothing, plus, totalOf } from './statement.ts';
import type { Statement } from './statement.ts';

const unixMs = z.int().describe('Unix milliseconds');
const changeFields = {
  amount_nano_usd: nanoUsd.describe('nano-USD, granted and topped-up together'),
  granted_nano_usd: nanoUsd,
  topped_up_nano_usd: nanoUsd,
};
const changeSchema = z.object(changeFields);
const lineFields = { entry_id: z.int(), note: z.string().nullable(), created_at_ms: unixMs };

export const statementExample: StatementBody = {
  object: 'statement',
  tenant: 'acme',
  month: '2026-11',
  time_zone: 'Europe/Berlin',
  from_ms: 1_793_487_600_000,
  to_ms: 1_796_079_600_000,
  is_complete: true,
  opening_balance: {
    amount_nano_usd: 2_000_000_000,
    granted_nano_usd: 0,
    topped_up_nano_usd: 2_000_000_000,
  },
  credits: [
    {
      entry_id: 4012,
      source: 'stripe:cs_live_a1',
      note: 'Stripe event evt_1',
      created_at_ms: 1_794_000_000_000,
      amount_nano_usd: 25_000_000_000,
      granted_nano_usd: 0,
      topped_up_nano_usd: 25_000_000_000,
    },
  ],
  spend: [
    {
      model: 'sift-large',
      key_id: 'Jx3fQ0aZ',
      key_label: 'production',
      requests: 812,
      input_uncached_tokens: 1_200_000,
      input_cached_tokens: 9_800_000,
      output_text_tokens: 310_000,
      output_reasoning_tokens: 0,
      cost_nano_usd: 740_600_000,
      saved_by_cache_nano_usd: 2_469_600_000,
    },
  ],
  corrections: [],
  totals: {
    credits: {
      amount_nano_usd: 25_000_000_000,
      granted_nano_usd: 0,
      topped_up_nano_usd: 25_000_000_000,
    },
    cost_nano_usd: 740_600_000,
    saved_by_cache_nano_usd: 2_469_600_000,
    corrections: { amount_nano_usd: 0, granted_nano_usd: 0, topped_up_nano_usd: 0 },
  },
  closing_balance: {
    amount_nano_usd: 26_259_400_000,
    granted_nano_usd: 0,
    topped_up_nano_usd: 26_259_400_000,
  },
  open_holds: { count: 0, amount_nano_usd: 0 },
};

export const statementSchema = z.object({
  object: z.literal('statement'),
  tenant: z.string(),
  month: z.string(),
  time_zone: z.string(),
  from_ms: unixMs,
  to_ms: unixMs.describe('the end of the month, or now while it goes on'),
  is_complete: z.boolean().describe('true once the month is over: it does not change any more'),
  opening_balance: changeSchema,
  credits: z.array(z.object({ source: z.string(), ...lineFields, ...changeFields })),
  spend: z.array(
    z.object({
      model: z.string(),
      key_id: z.string(),
      key_label: z.string(),
      requests: count,
      input_uncached_tokens: count,
      input_cached_tokens: count,
      output_text_tokens: count,
      output_reasoning_tokens: count,
      cost_nano_usd: nanoUsd,
      saved_by_cache_nano_usd: nanoUsd.describe(
        'what the cached tokens would have cost more as uncached ones, nano-USD',
      ),
    }),
  ),
  corrections: z.array(
    z.object({
      corrects: z.int().describe('the id of the entry that it corrects'),
      model: z.string().nullable(),
      key_id: z.string().nullable(),
      ...lineFields,
      ...changeFields,
    }),
  ),
  totals: z
    .object({
      credits: changeSchema,
      cost_nano_usd: nanoUsd,
      saved_by_cache_nano_usd: nanoUsd,
      corrections: changeSchema,
    })
    .describe('opening balance + credits - cost + corrections = closing balance'),
  closing_balance: changeSchema,
  open_holds: z
    .object({ count, amount_nano_usd: nanoUsd })
    .describe('reserved at the end by requests that ran then, out of the closing balance'),
});

export type StatementBody = z.infer<typeof statementSchema>;

export function wireStatement(statement: Statement): StatementBody {
  const { credits, spend, corrections, openHolds } = statement;
  return {
    object: 'statement',
    tenant: statement.tenant,
    month: statement.month,
    time_zone: statement.timeZone,
    from_ms: statement.fromMs,
    to_ms: statement.toMs,
    is_complete: statement.isComplete,
    opening_balance: wireChange(statement.opening),
    credits: credits.map((row) => ({ source: row.source, ...wireLine(row), ...wireChange(row) })),
    spend: spend.map((row) => ({
      model: row.model,
      key_id: row.keyId,
      key_label: row.keyLabel,
      requests: row.requests,
      input_uncached_tokens: row.inputUncached,
      input_cached_tokens: row.inputCached,
      output_text_tokens: row.outputText,
      output_reasoning_tokens: row.outputReasoning,
      cost_nano_usd: 0 - totalOf(row),
      saved_by_cache_nano_usd: row.savedNanoUsd,
    })),
    corrections: corrections.map((row) => ({
      corrects: row.corrects,
      model: row.model,
      key_id: row.keyId,
      ...wireLine(row),
      ...wireChange(row),
    })),
    totals: {
      credits: wireChange(credits.reduce<BalanceChange>(plus, nothing)),
      cost_nano_usd: 0 - totalOf(spend.reduce<BalanceChange>(plus, nothing)),
      saved_by_cache_nano_usd: spend.reduce((sum, { savedNanoUsd }) => sum + savedNanoUsd, 0),
      corrections: wireChange(corrections.reduce<BalanceChange>(plus, nothing)),
    },
    closing_balance: wireChange(statement.closing),
    open_holds: { count: openHolds.count, amount_nano_usd: openHolds.amountNanoUsd },
  };
}

function wireChange(change: BalanceChange): z.infer<typeof changeSchema> {
  return {
    amount_nano_usd: totalOf(change),
    granted_nano_usd: change.grantedNanoUsd,
    topped_up_nano_usd: change.toppedUpNanoUsd,
  };
}

function wireLine(row: {
  readonly entryId: number;
  readonly note: string | null;
  readonly createdAtMs: number;
}) {
  return { entry_id: row.entryId, note: row.note, created_at_ms: row.createdAtMs };
}
