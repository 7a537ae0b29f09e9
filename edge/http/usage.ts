/** GET /v1/usage: what the account used per day, model and key. */
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import type { Usage } from '../money.ts';
import { toOpenAiUsage } from '../dialects/openai/usage.ts';
import { noUsage } from '../money.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { authorize } from '../inference/authenticate.ts';
import { parseRequest } from '../middleware/parse-request.ts';
import { usageQuerySchema } from './account-schemas.ts';

const dayMs = 24 * 3_600_000;
const defaultDays = 30;
const daysMax = 366;
/** Of one answer, some megabytes. */
const rowsMax = 20_000;

export const usage = (services: Services) => async (c: AppContext) => {
  const key = await authorize(c, services, 'read');
  const range = readRange(c.req.query(), services.clock.nowMs());
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
  return c.json({
    object: 'list',
    ...range,
    data: rows.map((row) => ({
      day: row.day,
      model: row.model,
      key_id: row.keyId,
      requests: row.requests,
      usage: withCost(row),
    })),
    total: { requests: total.requests, usage: withCost(total) },
  });
};

/** @throws ApiError for days that are none, in the wrong order, or too many. */
function readRange(query: Record<string, string>, nowMs: number) {
  const days = parseRequest(usageQuerySchema, query);
  const to = days.to ?? dayOf(nowMs);
  const from = days.from ?? dayOf(startOf(to, 'to') - (defaultDays - 1) * dayMs);
  const count = (startOf(to, 'to') - startOf(from, 'from')) / dayMs + 1;
  if (count < 1 || count > daysMax) {
    throw new ApiError('invalid_value', `'from' to 'to' is a range of 1 to ${daysMax} days.`, {
      param: 'from',
    });
  }
  return { from, to };
}

/** @throws ApiError for a day that no calendar has, such as 2026-02-30. */
function startOf(day: string, param: string): number {
  const ms = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(ms) || dayOf(ms) !== day) {
    throw new ApiError('invalid_value', `There is no day ${day}.`, { param });
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
