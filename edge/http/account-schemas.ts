/** The answers of the account's own routes, and the query of one: what the reference shows too. */
import { z } from '@hono/zod-openapi';
import { count, nanoUsd } from '../dialects/quantities.ts';
import { usageSchema } from '../dialects/openai/response-schemas.ts';

export const balanceSchema = z.object({
  is_available: z.boolean().describe('Whether a request may be admitted at all.'),
  balance_infos: z.array(
    z.object({
      currency: z.literal('USD'),
      total_balance: z.string().describe('What was granted and topped up, exact, such as "9.50".'),
      granted_balance: z.string(),
      topped_up_balance: z.string(),
    }),
  ),
});

const day = z.string().regex(/^\d{4}-\d\d-\d\d$/, 'expected a day such as 2026-01-31');

export const usageQuerySchema = z.strictObject({
  from: day.optional().describe('First day, UTC; 30 days ago without it.'),
  to: day.optional().describe('Last day, UTC; today without it.'),
});

export const usageReportSchema = z.object({
  object: z.literal('list'),
  from: day,
  to: day,
  data: z.array(
    z.object({
      day,
      model: z.string(),
      key_id: z.string(),
      requests: count,
      usage: usageSchema,
    }),
  ),
  total: z.object({ requests: count, usage: usageSchema }),
});

export const quoteSchema = z.object({
  object: z.literal('quote'),
  model: z.string(),
  prices: z
    .object({ cached_input: nanoUsd, input: nanoUsd, output: nanoUsd })
    .describe('In nano-USD per 1,000,000 tokens, as in force now.'),
  max_cost_nano_usd: nanoUsd.describe('No request costs more; this much is held while it runs.'),
  prompt_tokens_max: count,
  output_tokens_max: count,
  prompt_tokens_estimate: count,
  cached_tokens_estimate: count.describe('What the prefix index expects a worker to have cached.'),
  input_cost_estimate_nano_usd: nanoUsd,
});
