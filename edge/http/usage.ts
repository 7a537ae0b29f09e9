/** GET /v1/usage: what the account used per day, model and key. */
import { z } from 'zod';
import { usageSchema } from '../dialects/openai/response-schemas.ts';
import { count } from '../dialects/quantities.ts';
import { ApiError } from '../errors.ts';
import { keyEndpoint } from './key-endpoint.ts';
import type { Usage } from '../money.ts';
import { toOpenAiUsage } from '../dialects/openai/usage.ts';
import { noUsage } from '../money.ts';

const dayMs = 24 * 3_600_000;
const defaultDays = 30;
const daysMax = 366;
/** An answer of so many rows has some megabytes. */
const rowsMax = 20_000;

const day = z.string().regex(/^\d{4}-\d\d-\d\d$/, 'expected a day such as 2026-01-31');

const usageQuerySchema = z.strictObject({
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

const exampleUsage = {
  ...toOpenAiUsage({
    inputUncached: 12_000,
    inputCached: 64_000,
    outputText: 5_000,
    outputReasoning: 0,
  }),
  cost_nano_usd: 7_252_000,
};
const example = {
  object: 'list',
  from: '2026-12-01',
  to: '2026-12-01',
  data: [
    {
      day: '2026-12-01',
      model: 'sift-tiny',
      key_id: 'Jx3fQ0aZ',
      requests: 1_000,
      usage: exampleUsage,
    },
  ],
  total: { requests: 1_000, usage: exampleUsage },
};

export const usage = keyEndpoint(
  {
    method: 'get',
    path: '/v1/usage',
    summary: 'Usage per day, model and key',
    description: 'Of the whole account, days in UTC. Needs the scope read.',
    scope: 'read',
    query: usageQuerySchema,
    answer: usageReportSchema.meta({ examples: [example] }),
  },
  async ({ services, key, query }) => {
    const range = readRange(query, services.clock.nowMs());
    const page = { fromDay: range.from, toDay: range.to, after: null, limit: rowsMax + 1 };
    const rows = await services.tenant(key.tenant).usage(page);
    if (rows.length > rowsMax) {
      throw new ApiError(
        'invalid_value',
        `There are more than ${rowsMax} rows; ask for fewer days.`,
        {
          param: 'from',
        },
      );
    }
    const total = rows.reduce(
      (sum, row) => ({
        requests: sum.requests + row.requests,
        usage: add(sum.usage, row.usage),
        costNanoUsd: sum.costNanoUsd + row.costNanoUsd,
      }),
      { requests: 0, usage: noUsage, costNanoUsd: 0 },
    );
    return {
      object: 'list' as const,
      ...range,
      data: rows.map((row) => ({
        day: row.day,
        model: row.model,
        key_id: row.keyId,
        requests: row.requests,
        usage: withCost(row),
      })),
      total: { requests: total.requests, usage: withCost(total) },
    };
  },
);

/** @throws ApiError for days that are none, in the wrong order, or too many. */
function readRange(days: z.infer<typeof usageQuerySchema>, nowMs: number) {
  const to = days.to ?? dayOf(nowMs);
  const from = days.from ?? dayOf(startOf(to, 'to') - (defaultDays - 1) * dayMs);
  const length = (startOf(to, 'to') - startOf(from, 'from')) / dayMs + 1;
  if (length < 1 || length > daysMax) {
    throw new ApiError('invalid_value', `'from' to 'to' is a range of 1 to ${daysMax} days.`, {
      param: 'from',
    });
  }
  return { from, to };
}

/** @throws ApiError for a day that no calendar has, such as 2026-02-30. */
function startOf(text: string, param: string): number {
  const ms = Date.parse(`${text}T00:00:00Z`);
  if (Number.isNaN(ms) || dayOf(ms) !== text) {
    throw new ApiError('invalid_value', `There is no day ${text}.`, { param });
  }
  return ms;
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

function add(a: Usage, b: Usage): Usage {
  return {
    inputUncached: a.inputUncached + b.inputUncached,
    inputCached: (a.inputCached ?? 0) + (b.inputCached ?? 0),
    outputText: a.outputText + b.outputText,
    outputReasoning: a.outputReasoning + b.outputReasoning,
  };
}

function withCost(row: { readonly usage: Usage; readonly costNanoUsd: number }) {
  return { ...toOpenAiUsage(row.usage), cost_nano_usd: row.costNanoUsd };
}
