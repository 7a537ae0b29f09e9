/**
 * The wire format of the operator's API: snake case, integers in nano-USD, times in Unix
 * milliseconds.
 */
import { z } from 'zod';
import { cacheMissReasonSchema, readCacheMissReason } from '../dialects/cache-miss-reason.ts';
import type { ModelRecord, PriceRecord, TenantRecord } from '../directory/directory-contract.ts';
import type { ServedContext } from '../directory/served-contexts.ts';
import type { UnsoldModel } from '../directory/unsold-models.ts';
import type { RefusedAnnouncement, WorkerStatus } from '../fleet/worker-contract.ts';
import type { Price } from '../money.ts';
import type { KeyLimits } from '../tenant/key-contract.ts';
import type { LedgerEntry, UsageRow } from '../tenant/report-contract.ts';

export const nanoUsd = z.int().describe('nano-USD');
/** A date can say no later one. */
const unixMsMax = 8_640_000_000_000_000;
export const unixMs = z.int().min(0).max(unixMsMax).describe('Unix milliseconds');
export const daySchema = z
  .string()
  .regex(/^\d{4}-\d{2}-\d{2}$/, 'expected YYYY-MM-DD')
  .refine(isDay, 'expected a day that there is')
  .describe('UTC');

const limit = z.int().min(0).max(1_000_000_000).nullable();
export const limitsSchema = z
  .strictObject({
    requests_per_minute: limit,
    tokens_per_minute: limit,
    concurrent_requests: limit,
  })
  .describe('null means no limit of its own');

export const tenantSchema = z.object({
  id: z.string(),
  name: z.string(),
  status: z
    .enum(['creating', 'active', 'suspended'])
    .describe('creating: something stopped its creation; create it again'),
  weight: z.int().describe('its share of the workers beside other tenants that wait too'),
  limits: limitsSchema.describe('over all keys of the tenant; null means no limit of its own'),
  created_at_ms: unixMs,
});

export const balanceSchema = z.object({
  granted_nano_usd: nanoUsd,
  topped_up_nano_usd: nanoUsd,
  held_nano_usd: nanoUsd.describe('part of the two that open holds reserve, nano-USD'),
});

export const priceSchema = z.object({
  id: z.string(),
  model: z.string(),
  input_cached: nanoUsd,
  input: nanoUsd,
  output: nanoUsd,
  from_ms: unixMs,
  window: z.object({ start_minute: z.int(), end_minute: z.int() }).nullable(),
});

/** The price of one model that is in force: nano-USD per 1,000,000 tokens. */
export const currentPriceSchema = z.object({
  id: z.string(),
  input_cached: nanoUsd,
  input: nanoUsd,
  output: nanoUsd,
});

export const modelSchema = z.object({
  id: z.string(),
  context_length: z.int(),
  served_context_length: z
    .int()
    .nullable()
    .describe('the longest of its live workers; the smaller of the two holds; null: none says'),
  revision: z.string(),
  tokenizer: z.string(),
  owned_by: z.string(),
  created_at_ms: unixMs,
});

export const unsoldSchema = z
  .object({
    model: z.string(),
    lacks: z.enum(['directory entry', 'price']),
    command: z.string().describe('adds what it lacks; words in capitals are yours to replace'),
  })
  .describe('a model that nobody can use yet');

export const workerSchema = z.object({
  id: z.string(),
  url: z.string(),
  epoch: z.int(),
  state: z.enum(['ready', 'draining', 'lost', 'failing']),
  static: z.boolean().describe('from the configuration, probed by the edge'),
  models: z.array(z.string()),
  context_lengths: z
    .record(z.string(), z.int().nullable())
    .describe('of its models, as it says; null: it does not'),
  unsold: z.array(unsoldSchema),
  tokens_in_flight: z.int(),
  requests_in_flight: z.int(),
  slots: z.int().describe('answers that it is given at a time'),
  seen_at_ms: unixMs,
  no_discount_reason: z.string().nullable(),
});

export const refusedWorkerSchema = z.object({
  id: z.string().nullable(),
  url: z.string().nullable(),
  refused_because: z.string(),
  times: z.int(),
  last_at_ms: unixMs,
});

const usageFields = {
  input_uncached: z.int(),
  input_cached: z.int().nullable().describe('null: the worker did not say; all is uncached'),
  output_text: z.int(),
  output_reasoning: z.int(),
};

export const usageRowSchema = z.object({
  day: daySchema,
  model: z.string(),
  key_id: z.string(),
  requests: z.int(),
  ...usageFields,
  cost_nano_usd: nanoUsd,
  prefix_promised: z.int(),
  prefix_broken: z.int(),
});

export const entrySchema = z.object({
  id: z.int(),
  kind: z.enum(['credit', 'pending', 'posted', 'voided', 'correction']),
  request_id: z.string().nullable(),
  refers_to: z.int().nullable(),
  amount_nano_usd: nanoUsd,
  granted_nano_usd: nanoUsd,
  topped_up_nano_usd: nanoUsd,
  model: z.string().nullable(),
  alias: z.string().optional().describe('what the request called the model'),
  budgets: z.array(z.string()).optional().describe('the budgets that the request named'),
  extended_nano_usd: nanoUsd.optional().describe('what was reserved while the answer was made'),
  key_id: z.string().nullable(),
  price_id: z.string().nullable(),
  usage: z.object(usageFields).nullable(),
  predicted_cached_bytes: z.int().nullable(),
  cache_miss_reason: cacheMissReasonSchema.optional(),
  note: z.string().nullable(),
  created_at_ms: unixMs,
});

export function limitsOf(wire: z.infer<typeof limitsSchema>): KeyLimits {
  return {
    requestsPerMinute: wire.requests_per_minute,
    tokensPerMinute: wire.tokens_per_minute,
    concurrentRequests: wire.concurrent_requests,
  };
}

export function wireLimits(limits: KeyLimits): z.infer<typeof limitsSchema> {
  return {
    requests_per_minute: limits.requestsPerMinute,
    tokens_per_minute: limits.tokensPerMinute,
    concurrent_requests: limits.concurrentRequests,
  };
}

export function wireTenant(record: TenantRecord, limits: KeyLimits): z.infer<typeof tenantSchema> {
  const { id, name, status, weight, createdAtMs } = record;
  return { id, name, status, weight, limits: wireLimits(limits), created_at_ms: createdAtMs };
}

export function wirePrice(record: PriceRecord): z.infer<typeof priceSchema> {
  const { window } = record;
  return {
    id: record.id,
    model: record.model,
    input_cached: record.inputCached,
    input: record.inputUncached,
    output: record.output,
    from_ms: record.fromMs,
    window: window && { start_minute: window.startMinute, end_minute: window.endMinute },
  };
}

export function wireCurrentPrice(price: Price): z.infer<typeof currentPriceSchema> {
  const { id, inputCached, inputUncached, output } = price;
  return { id, input_cached: inputCached, input: inputUncached, output };
}

export function wireModel(record: ModelRecord, served: ServedContext): z.infer<typeof modelSchema> {
  return {
    id: record.id,
    context_length: record.contextLength,
    served_context_length: served.longest,
    revision: record.revision,
    tokenizer: record.tokenizer,
    owned_by: record.ownedBy,
    created_at_ms: record.createdAtMs,
  };
}

export function wireWorker(
  status: WorkerStatus,
  unsold: readonly UnsoldModel[],
): z.infer<typeof workerSchema> {
  return {
    id: status.id,
    url: status.url,
    epoch: status.epoch,
    state: status.state,
    static: status.static,
    models: [...status.models],
    context_lengths: Object.fromEntries(
      status.served.map(({ id, contextLength }) => [id, contextLength]),
    ),
    unsold: unsold.filter(({ model }) => status.models.includes(model)),
    tokens_in_flight: status.tokensInFlight,
    requests_in_flight: status.requestsInFlight,
    slots: status.slots,
    seen_at_ms: status.seenAtMs,
    no_discount_reason: status.noDiscountReason,
  };
}

export function wireRefusedWorker(
  refused: RefusedAnnouncement,
): z.infer<typeof refusedWorkerSchema> {
  const { id, url, reason, times, lastAtMs } = refused;
  return { id, url, refused_because: reason, times, last_at_ms: lastAtMs };
}

export function wireUsage(row: UsageRow): z.infer<typeof usageRowSchema> {
  return {
    day: row.day,
    model: row.model,
    key_id: row.keyId,
    requests: row.requests,
    ...wireCounts(row.usage),
    cost_nano_usd: row.costNanoUsd,
    prefix_promised: row.prefixPromised,
    prefix_broken: row.prefixBroken,
  };
}

export function wireEntry(entry: LedgerEntry): z.infer<typeof entrySchema> {
  return {
    id: entry.id,
    kind: entry.kind,
    request_id: entry.requestId,
    refers_to: entry.refersTo,
    amount_nano_usd: entry.amountNanoUsd,
    granted_nano_usd: entry.grantedNanoUsd,
    topped_up_nano_usd: entry.toppedUpNanoUsd,
    model: entry.model,
    ...(entry.alias !== undefined && { alias: entry.alias }),
    ...(entry.budgets !== undefined && { budgets: [...entry.budgets] }),
    ...(entry.extendedNanoUsd !== undefined && { extended_nano_usd: entry.extendedNanoUsd }),
    key_id: entry.keyId,
    price_id: entry.priceId,
    usage: entry.usage && wireCounts(entry.usage),
    predicted_cached_bytes: entry.predictedCachedBytes,
    ...(entry.cacheMissReason !== undefined && {
      cache_miss_reason: readCacheMissReason(entry.cacheMissReason),
    }),
    note: entry.note,
    created_at_ms: entry.createdAtMs,
  };
}

function wireCounts(usage: UsageRow['usage']) {
  return {
    input_uncached: usage.inputUncached,
    input_cached: usage.inputCached,
    output_text: usage.outputText,
    output_reasoning: usage.outputReasoning,
  };
}

/** Refuses 2026-02-30, which would be read as the second of March. */
function isDay(text: string): boolean {
  const ms = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text);
}
