/** A budget as routes take and write it: integers in nano-USD, times in Unix milliseconds. */
import { z } from 'zod';
import { budgetNamePattern, budgetNameText } from '../inference/budgets-asked.ts';
import { isTimeZone } from '../calendar.ts';
import type { BudgetRecord, BudgetTerms, NamedBudget } from '../tenant/budget-contract.ts';

export const budgetNameSchema = z
  .string()
  .regex(budgetNamePattern, `expected a name that has ${budgetNameText}`);

const period = z
  .enum(['day', 'week', 'month', 'ever'])
  .describe('a day, a week from Monday or a month of the time zone; ever: never begins anew');
const limitNanoUsd = z
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .describe('what may be spent in one window, in nano-USD: 1,000,000,000 are one US dollar');
const zone = z
  .string()
  .max(64)
  .refine(isTimeZone, 'expected a time zone, such as Europe/Berlin')
  .describe('the time zone in which days, weeks and months begin');

export const budgetTermsSchema = z.strictObject({
  zone: zone.default('UTC'),
  windows: z
    .array(z.strictObject({ window: period, limit_nano_usd: limitNanoUsd }))
    .min(1)
    .max(4)
    .refine(
      (windows) => new Set(windows.map(({ window }) => window)).size === windows.length,
      'expected each window once',
    )
    .describe('all of them bind at once'),
});

export const budgetSchema = z.object({
  zone,
  windows: z.array(
    z.object({
      window: period,
      limit_nano_usd: limitNanoUsd,
      spent_nano_usd: z.int().describe('by requests that were admitted in this window'),
      held_nano_usd: z.int().describe('by those of them that still run'),
      left_nano_usd: z.int().min(0),
      started_at_ms: z.int(),
      resets_at_ms: z.int().nullable().describe('null: never'),
    }),
  ),
  created_at_ms: z.int(),
});

export const namedBudgetSchema = budgetSchema.extend({
  object: z.literal('budget'),
  name: z.string(),
});

export const budgetExample = {
  object: 'budget' as const,
  name: 'agent-7',
  zone: 'UTC',
  windows: [
    {
      window: 'day' as const,
      limit_nano_usd: 5_000_000_000,
      spent_nano_usd: 1_250_000_000,
      held_nano_usd: 2_041_000,
      left_nano_usd: 3_747_959_000,
      started_at_ms: 1_796_083_200_000,
      resets_at_ms: 1_796_169_600_000,
    },
  ],
  created_at_ms: 1_796_083_500_000,
};

export function termsOf(wire: z.infer<typeof budgetTermsSchema>): BudgetTerms {
  return {
    zone: wire.zone,
    windows: wire.windows.map(({ window, limit_nano_usd: limit }) => ({
      period: window,
      limitNanoUsd: limit,
    })),
  };
}

export function wireBudget(record: BudgetRecord): z.infer<typeof budgetSchema> {
  return {
    zone: record.zone,
    windows: record.windows.map((window) => ({
      window: window.period,
      limit_nano_usd: window.limitNanoUsd,
      spent_nano_usd: window.spentNanoUsd,
      held_nano_usd: window.heldNanoUsd,
      left_nano_usd: Math.max(0, window.limitNanoUsd - window.spentNanoUsd - window.heldNanoUsd),
      started_at_ms: window.startMs,
      resets_at_ms: window.resetsAtMs,
    })),
    created_at_ms: record.createdAtMs,
  };
}

export function wireNamedBudget(record: NamedBudget): z.infer<typeof namedBudgetSchema> {
  return { object: 'budget', name: record.name, ...wireBudget(record) };
}
