/**
 * The operator's reports: usage and ledgers of all tenants as streams, and the audit of the books.
 */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import { lostPayments } from '../payments/lost-payments.ts';
import type { Services } from '../services.ts';
import type { UsageCursor, UsageRow } from '../tenant/report-contract.ts';
import { balanceExample, entryExample, usageRowExample } from './examples.ts';
import { streamEndpoint, jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { rowExamples, streamRows } from './row-stream.ts';
import type { Row } from './row-stream.ts';
import { knownTenant, tenantIdSchema } from '../directory/known-tenant.ts';
import { unavailableOf, unavailableSchema } from './unavailable.ts';
import type { Unavailable } from './unavailable.ts';
import { balanceSchema, daySchema, wireEntry, wireUsage } from './wire.ts';
import type { entrySchema } from './wire.ts';

const entriesPerPage = 500;
const usageRowsPerPage = 1_000;
const allDays = { fromDay: '0000-01-01', toDay: '9999-12-31' };

const exportQuery = z.strictObject({
  format: z.enum(['jsonl', 'csv']).default('jsonl'),
  tenant: tenantIdSchema.optional().describe('all tenants if left out'),
});

const usageColumns = [
  'tenant',
  'day',
  'model',
  'key_id',
  'requests',
  'input_uncached',
  'input_cached',
  'output_text',
  'output_reasoning',
  'cost_nano_usd',
  'prefix_promised',
  'prefix_broken',
  'unavailable',
];
const entryColumns = [
  'tenant',
  'id',
  'kind',
  'request_id',
  'refers_to',
  'amount_nano_usd',
  'granted_nano_usd',
  'topped_up_nano_usd',
  'model',
  'alias',
  'key_id',
  'budgets',
  'price_id',
  'input_uncached',
  'input_cached',
  'output_text',
  'output_reasoning',
  'predicted_cached_bytes',
  'extended_nano_usd',
  'cache_miss_reason',
  'note',
  'created_at_ms',
  'unavailable',
];

const unavailableTenants = z
  .array(unavailableSchema)
  .describe('tenants that are not in it, because their database cannot be used');

export const reportEndpoints: readonly Endpoint[] = [
  streamEndpoint(
    {
      method: 'get',
      path: '/export/usage',
      summary: 'Usage per tenant, day, model and key, as JSON lines or CSV',
      query: exportQuery.extend({ from: daySchema.optional(), to: daySchema.optional() }),
      examples: rowExamples(usageColumns, { tenant: 'acme', ...usageRowExample }),
    },
    async ({ services, query }) => {
      const ids = await tenantIds(services, query.tenant);
      return streamRows(usageRows(services, ids, rangeOf(query)), {
        columns: usageColumns,
        format: query.format,
      });
    },
  ),
  streamEndpoint(
    {
      method: 'get',
      path: '/export/entries',
      summary: 'Every entry of the ledgers, as JSON lines or CSV',
      query: exportQuery,
      examples: rowExamples(entryColumns, entryRow('acme', entryExample)),
    },
    async ({ services, query }) => {
      const ids = await tenantIds(services, query.tenant);
      return streamRows(entryRows(services, ids), { columns: entryColumns, format: query.format });
    },
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/prefixes',
      summary: 'How often the prefix index promised a cached prefix that its worker did not have',
      query: z.strictObject({
        tenant: tenantIdSchema.optional().describe('all tenants if left out'),
        from: daySchema.optional(),
        to: daySchema.optional(),
      }),
      answer: z
        .object({
          requests: z.int(),
          promised: z.int().describe('complete answers placed where a prefix was expected'),
          broken: z.int().describe('of those, the ones of which the worker had nothing'),
          mismatch_rate: z.number().nullable(),
          unavailable: unavailableTenants,
        })
        .meta({
          examples: [
            { requests: 1_000, promised: 900, broken: 9, mismatch_rate: 0.01, unavailable: [] },
          ],
        }),
    },
    async ({ services, query }) =>
      prefixReport(services, await tenantIds(services, query.tenant), rangeOf(query)),
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/audit',
      summary: 'Recomputes every balance from its entries and says what does not agree',
      query: z.strictObject({ tenant: tenantIdSchema.optional() }),
      answer: z
        .object({
          ok: z.boolean(),
          tenants: z.int(),
          total: balanceSchema,
          findings: z.array(z.object({ tenant: z.string(), finding: z.string() })),
          unavailable: unavailableTenants,
        })
        .meta({
          examples: [
            { ok: true, tenants: 1, total: balanceExample, findings: [], unavailable: [] },
          ],
        }),
    },
    async ({ services, query }) => audit(services, await tenantIds(services, query.tenant)),
  ),
];

async function audit(services: Services, ids: readonly string[]) {
  const findings: { tenant: string; finding: string }[] = [];
  const total = { granted_nano_usd: 0, topped_up_nano_usd: 0, held_nano_usd: 0 };
  const unavailable: Unavailable[] = [];
  for (const id of ids) {
    try {
      const tenant = services.tenant(id);
      const { directory } = services;
      const lost = await lostPayments({
        directory,
        tenant: id,
        uncredited: (sources) => tenant.uncredited(sources),
      });
      const found = [...(await tenant.audit()), ...lost];
      const balance = await tenant.balance();
      findings.push(...found.map((finding) => ({ tenant: id, finding })));
      total.granted_nano_usd += balance.granted;
      total.topped_up_nano_usd += balance.toppedUp;
      total.held_nano_usd += balance.held;
    } catch (error) {
      unavailable.push(unavailableOf(services, id, error));
    }
  }
  if (!Object.values(total).every(Number.isSafeInteger)) {
    throw new ApiError('internal_error', 'The sum of all balances passes 2^53 nano-USD.');
  }
  const ok = findings.length === 0 && unavailable.length === 0;
  return { ok, tenants: ids.length, total, findings, unavailable };
}

async function* usageRows(
  services: Services,
  ids: readonly string[],
  range: { readonly fromDay: string; readonly toDay: string },
): AsyncGenerator<Row> {
  yield* rowsOfAll(services, ids, async function* rowsOf(tenant) {
    for await (const row of usageOf(services, tenant, range)) yield { tenant, ...wireUsage(row) };
  });
}

/** A tenant whose rows cannot be read to the end has a last row that says so. */
async function* rowsOfAll(
  services: Services,
  ids: readonly string[],
  rowsOf: (tenant: string) => AsyncGenerator<Row>,
): AsyncGenerator<Row> {
  for (const tenant of ids) {
    try {
      yield* rowsOf(tenant);
    } catch (error) {
      yield { tenant, unavailable: unavailableOf(services, tenant, error).advice };
    }
  }
}

async function* usageOf(
  services: Services,
  tenant: string,
  range: { readonly fromDay: string; readonly toDay: string },
): AsyncGenerator<UsageRow> {
  for (let after: UsageRow | null = null; ;) {
    const page: UsageRow[] = await services
      .tenant(tenant)
      .usage({ ...range, after: after && cursorOf(after), limit: usageRowsPerPage });
    yield* page;
    after = page.at(-1) ?? null;
    if (page.length < usageRowsPerPage) return;
  }
}

/** Makes a row of its own, because all of an object's fields are sent to a Durable Object. */
function cursorOf({ day, model, keyId }: UsageRow): UsageCursor {
  return { day, model, keyId };
}

function rangeOf(query: { readonly from?: string | undefined; readonly to?: string | undefined }) {
  return { fromDay: query.from ?? allDays.fromDay, toDay: query.to ?? allDays.toDay };
}

/** Compares what the prefix index promised with what workers then had. */
async function prefixReport(
  services: Services,
  ids: readonly string[],
  range: { readonly fromDay: string; readonly toDay: string },
) {
  const sum = { requests: 0, promised: 0, broken: 0 };
  const unavailable: Unavailable[] = [];
  for (const tenant of ids) {
    try {
      for await (const row of usageOf(services, tenant, range)) {
        sum.requests += row.requests;
        sum.promised += row.prefixPromised;
        sum.broken += row.prefixBroken;
      }
    } catch (error) {
      unavailable.push(unavailableOf(services, tenant, error));
    }
  }
  const mismatchRate = sum.promised === 0 ? null : sum.broken / sum.promised;
  return { ...sum, mismatch_rate: mismatchRate, unavailable };
}

async function* entryRows(services: Services, ids: readonly string[]): AsyncGenerator<Row> {
  yield* rowsOfAll(services, ids, async function* rowsOf(tenant) {
    for (let afterId = 0; ;) {
      const page = await services.tenant(tenant).entries({ afterId, limit: entriesPerPage });
      for (const each of page) yield entryRow(tenant, wireEntry(each));
      const last = page.at(-1);
      if (last === undefined || page.length < entriesPerPage) return;
      afterId = last.id;
    }
  });
}

function entryRow(tenant: string, wire: z.infer<typeof entrySchema>): Row {
  const { usage, budgets, cache_miss_reason: reason, ...entry } = wire;
  // Names of budgets hold no spaces.
  const names = budgets && { budgets: budgets.join(' ') };
  const miss = reason && { cache_miss_reason: JSON.stringify(reason) };
  return { tenant, ...entry, ...names, ...miss, ...usage };
}

async function tenantIds(services: Services, only: string | undefined): Promise<string[]> {
  if (only === undefined) return (await services.directory.tenants()).map(({ id }) => id);
  await knownTenant(services, only);
  return [only];
}
