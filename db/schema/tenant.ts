/**
 * One tenant's database: money, keys, limits, idempotency and the prefix index. All amounts are
 * nano-USD, all times Unix milliseconds. What SQLite can guard it guards here: balances by CHECK,
 * uniqueness by indexes, the entries' immutability by triggers (in the migration, like WITHOUT
 * ROWID).
 */
import { sql } from 'drizzle-orm';
import {
  blob,
  check,
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core';

/** One row: whose database this is, so that one in another's place is not taken for its own. */
export const identity = sqliteTable(
  'identity',
  { id: integer().primaryKey(), tenant: text().notNull() },
  (t) => [check('identity_one_row', sql`${t.id} = 1`)],
);

/** One row. `held` is reserved by open holds out of the two balances together. */
export const account = sqliteTable(
  'account',
  {
    id: integer().primaryKey(),
    grantedNanoUsd: integer('granted_nano_usd').notNull(),
    toppedUpNanoUsd: integer('topped_up_nano_usd').notNull(),
    heldNanoUsd: integer('held_nano_usd').notNull(),
  },
  (t) => [
    check('account_one_row', sql`${t.id} = 1`),
    check('account_granted', sql`${t.grantedNanoUsd} >= 0`),
    check('account_topped_up', sql`${t.toppedUpNanoUsd} >= 0`),
    check('account_held', sql`${t.heldNanoUsd} >= 0`),
    check(
      'account_available',
      sql`${t.grantedNanoUsd} + ${t.toppedUpNanoUsd} - ${t.heldNanoUsd} >= 0`,
    ),
  ],
);

/**
 * The ledger: rows are added, never changed. `amount` is what the balance changed by (granted and
 * topped-up together); only a `pending` row moves nothing, and its amount is what it reserves.
 */
export const entry = sqliteTable(
  'entry',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    kind: text({ enum: ['credit', 'pending', 'posted', 'voided', 'correction'] }).notNull(),
    requestId: text('request_id'),
    refersTo: integer('refers_to'),
    /** Names the payment or grant that a credit stands for. */
    source: text(),
    amountNanoUsd: integer('amount_nano_usd').notNull(),
    grantedNanoUsd: integer('granted_nano_usd').notNull(),
    toppedUpNanoUsd: integer('topped_up_nano_usd').notNull(),
    model: text(),
    keyId: text('key_id'),
    priceId: text('price_id'),
    priceInputCached: integer('price_input_cached'),
    priceInputUncached: integer('price_input_uncached'),
    priceOutput: integer('price_output'),
    inputUncached: integer('input_uncached'),
    inputCached: integer('input_cached'),
    outputText: integer('output_text'),
    outputReasoning: integer('output_reasoning'),
    predictedCachedBytes: integer('predicted_cached_bytes'),
    /** Cost beyond the hold, which is not billed. */
    excessNanoUsd: integer('excess_nano_usd'),
    outcome: text({ enum: ['done', 'aborted', 'failed'] }),
    worker: text(),
    note: text(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** The name that the request asked for, where it is not the model that ran. */
    alias: text(),
    /** The revision of the model that was sold, on the `pending` entry of a request. */
    revision: text(),
    /** JSON: why a cache had no more of the prompt, as the request's usage states it. */
    cacheMissReason: text('cache_miss_reason'),
    /** Names of the budgets that the request named; null: none. */
    budgets: text({ mode: 'json' }).$type<readonly string[]>(),
    /** budget_window.id of all windows that the amount counts in; null: none. */
    budgetWindows: text('budget_windows', { mode: 'json' }).$type<readonly number[]>(),
    /** The part of the hold that was reserved after its pending entry; null: none. */
    extendedNanoUsd: integer('extended_nano_usd'),
  },
  (t) => [
    uniqueIndex('entry_request_kind').on(t.requestId, t.kind),
    uniqueIndex('entry_source')
      .on(t.source)
      .where(sql`${t.source} IS NOT NULL`),
    uniqueIndex('entry_resolved_once')
      .on(t.refersTo)
      .where(sql`${t.kind} IN ('posted', 'voided')`),
    index('entry_corrections')
      .on(t.refersTo)
      .where(sql`${t.kind} = 'correction'`),
    check(
      'entry_amount',
      sql`CASE ${t.kind}
        WHEN 'pending' THEN ${t.amountNanoUsd} >= 0 AND ${t.grantedNanoUsd} = 0 AND ${t.toppedUpNanoUsd} = 0
        ELSE ${t.amountNanoUsd} = ${t.grantedNanoUsd} + ${t.toppedUpNanoUsd} END`,
    ),
    check(
      'entry_sign',
      sql`CASE ${t.kind}
        WHEN 'credit' THEN ${t.amountNanoUsd} > 0
        WHEN 'posted' THEN ${t.grantedNanoUsd} <= 0 AND ${t.toppedUpNanoUsd} <= 0
        WHEN 'voided' THEN ${t.grantedNanoUsd} = 0 AND ${t.toppedUpNanoUsd} = 0
        ELSE 1 END`,
    ),
    check(
      'entry_names_another',
      sql`(${t.kind} IN ('posted', 'voided', 'correction')) = (${t.refersTo} IS NOT NULL)`,
    ),
  ],
);

/** Open holds only: the row goes, in one transaction with the entry that resolves it. */
export const hold = sqliteTable(
  'hold',
  {
    requestId: text('request_id').primaryKey(),
    entryId: integer('entry_id').notNull(),
    keyId: text('key_id').notNull(),
    model: text().notNull(),
    amountNanoUsd: integer('amount_nano_usd').notNull(),
    priceId: text('price_id').notNull(),
    priceInputCached: integer('price_input_cached').notNull(),
    priceInputUncached: integer('price_input_uncached').notNull(),
    priceOutput: integer('price_output').notNull(),
    /** Taken from the token buckets at admission; the difference to the actual count goes back. */
    tokensReserved: integer('tokens_reserved').notNull(),
    idempotencyKey: text('idempotency_key'),
    worker: text(),
    epoch: integer(),
    workerUrl: text('worker_url'),
    openedAtMs: integer('opened_at_ms').notNull(),
    /** The name that the request asked for, where it is not the model. */
    alias: text(),
    /** The part of the amount that was reserved since the pending entry, lease by lease. */
    extendedNanoUsd: integer('extended_nano_usd').notNull().default(0),
    /** Names of the budgets that the request named; null: none. */
    budgets: text({ mode: 'json' }).$type<readonly string[]>(),
    /** budget_window.id of all windows that the amount counts in; null: none. */
    budgetWindows: text('budget_windows', { mode: 'json' }).$type<readonly number[]>(),
  },
  (t) => [
    index('hold_opened').on(t.openedAtMs),
    check('hold_amount', sql`${t.amountNanoUsd} >= 0`),
  ],
);

export const apiKey = sqliteTable('api_key', {
  keyId: text('key_id').primaryKey(),
  /** SHA-256 of the key's secret, hex; the secret itself is nowhere. */
  secretHash: text('secret_hash').notNull(),
  label: text().notNull(),
  status: text({ enum: ['active', 'revoked'] }).notNull(),
  scopes: text({ mode: 'json' }).$type<readonly string[]>().notNull(),
  createdAtMs: integer('created_at_ms').notNull(),
  /** Orders the tenant's own keys when its requests wait. */
  priority: text({ enum: ['low', 'normal', 'high'] })
    .notNull()
    .default('normal'),
  /** The key's share beside other keys of its tenant and priority that wait too. */
  weight: integer().notNull().default(1),
  /** From then on the key is refused; null: never. */
  expiresAtMs: integer('expires_at_ms'),
  /** Ids of the models that the key may run; null: all. */
  models: text({ mode: 'json' }).$type<readonly string[]>(),
  /** The key has a budget: only then are the tables of budgets asked for it. */
  hasBudget: integer('has_budget', { mode: 'boolean' }).notNull().default(false),
});

/** Budgets: each is a key's own, or has a name that requests name. */
export const budget = sqliteTable(
  'budget',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    keyId: text('key_id').unique(),
    name: text().unique(),
    /** The IANA time zone in which its days, weeks and months begin. */
    zone: text().notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [check('budget_of_key_or_named', sql`(${t.keyId} IS NULL) <> (${t.name} IS NULL)`)],
);

/** The limits of a budget, one for each length of window. */
export const budgetLimit = sqliteTable(
  'budget_limit',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    budgetId: integer('budget_id').notNull(),
    period: text({ enum: ['day', 'week', 'month', 'ever'] }).notNull(),
    limitNanoUsd: integer('limit_nano_usd').notNull(),
  },
  (t) => [
    uniqueIndex('budget_limit_period').on(t.budgetId, t.period),
    check('budget_limit_amount', sql`${t.limitNanoUsd} >= 0`),
  ],
);

/**
 * Each window of a limit, with what counts in it. A request counts in the windows in which it was
 * admitted, whenever it is settled: holds and entries name their ids, which are never used again.
 */
export const budgetWindow = sqliteTable(
  'budget_window',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    limitId: integer('limit_id').notNull(),
    startMs: integer('start_ms').notNull(),
    endMs: integer('end_ms').notNull(),
    heldNanoUsd: integer('held_nano_usd').notNull(),
    spentNanoUsd: integer('spent_nano_usd').notNull(),
  },
  (t) => [
    uniqueIndex('budget_window_start').on(t.limitId, t.startMs),
    check('budget_window_amounts', sql`${t.heldNanoUsd} >= 0 AND ${t.spentNanoUsd} >= 0`),
  ],
);

/**
 * Limits and their buckets, per key and (owner '') for the whole tenant. A level is in 1/60,000 of
 * a request or token, so that a refill is `elapsed ms * limit per minute`: integers, no rounding.
 * null: no limit of its own, or a bucket not used yet, which is full.
 */
export const quota = sqliteTable(
  'quota',
  {
    owner: text().primaryKey(),
    requestsPerMinute: integer('requests_per_minute'),
    tokensPerMinute: integer('tokens_per_minute'),
    concurrentRequests: integer('concurrent_requests'),
    requestsLevel: integer('requests_level'),
    tokensLevel: integer('tokens_level'),
    inFlight: integer('in_flight').notNull(),
    /** The time of the last admission: the levels were right then, and the key was last used. */
    usedAtMs: integer('used_at_ms'),
  },
  (t) => [check('quota_in_flight', sql`${t.inFlight} >= 0`)],
);

/** The requests under idempotency keys, each with its answer once there is one. */
export const idempotency = sqliteTable(
  'idempotency',
  {
    keyId: text('key_id').notNull(),
    idempotencyKey: text('idempotency_key').notNull(),
    requestHash: text('request_hash').notNull(),
    requestId: text('request_id').notNull(),
    state: text({ enum: ['in-flight', 'answered', 'no-answer'] }).notNull(),
    status: integer(),
    contentType: text('content_type'),
    headers: text({ mode: 'json' }).$type<Readonly<Record<string, string>>>(),
    body: text(),
    /** Bytes of the answer's body in UTF-8; 0 while there is none. */
    bodyBytes: integer('body_bytes').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.keyId, t.idempotencyKey] }),
    index('idempotency_created').on(t.createdAtMs),
    index('idempotency_answered')
      .on(t.createdAtMs)
      .where(sql`${t.state} = 'answered'`),
  ],
);

/** One row: what the answers kept take up, so that the bound needs no scan. */
export const idempotencySize = sqliteTable(
  'idempotency_size',
  {
    id: integer().primaryKey(),
    rows: integer().notNull(),
    bodyBytes: integer('body_bytes').notNull(),
  },
  (t) => [
    check('idempotency_size_one_row', sql`${t.id} = 1`),
    check('idempotency_size_positive', sql`${t.rows} >= 0 AND ${t.bodyBytes} >= 0`),
  ],
);

/** Responses that requests asked to store, each with its own input: JSON of both. */
export const storedResponse = sqliteTable(
  'stored_response',
  {
    id: text().primaryKey(),
    /** The response that this one goes on from; it may be gone. */
    previousId: text('previous_id'),
    input: text().notNull(),
    response: text().notNull(),
    bytes: integer().notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** The time when it was made, or a request last went on from it. */
    usedAtMs: integer('used_at_ms').notNull(),
  },
  (t) => [index('stored_response_used').on(t.usedAtMs)],
);

/** One row: what the stored responses take up, so that the bound needs no scan. */
export const storedResponseSize = sqliteTable(
  'stored_response_size',
  { id: integer().primaryKey(), rows: integer().notNull(), bytes: integer().notNull() },
  (t) => [
    check('stored_response_size_one_row', sql`${t.id} = 1`),
    check('stored_response_size_positive', sql`${t.rows} >= 0 AND ${t.bytes} >= 0`),
  ],
);

/** Gives a worker's present epoch a small number; a new epoch takes a new one. */
export const prefixWorker = sqliteTable('prefix_worker', {
  id: integer().primaryKey({ autoIncrement: true }),
  worker: text().notNull().unique(),
  epoch: integer().notNull(),
  seenAtMs: integer('seen_at_ms').notNull(),
});

/**
 * The workers that probably hold the KV of each prefix (docs/design.md#prefix-chain). WITHOUT
 * ROWID.
 */
export const prefixChunk = sqliteTable(
  'prefix_chunk',
  {
    key: blob({ mode: 'buffer' }).notNull(),
    /** prefix_worker.id: a worker in one epoch. */
    worker: integer().notNull(),
    /** Bytes of the prompt up to and with this chunk. */
    bytes: integer().notNull(),
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.key, t.worker] }),
    index('prefix_chunk_expires').on(t.expiresAtMs),
    check('prefix_chunk_key', sql`length(${t.key}) = 16`),
  ],
);

/** One row: how many rows prefix_chunk has, so that the bound needs no scan. */
export const prefixSize = sqliteTable(
  'prefix_size',
  { id: integer().primaryKey(), rows: integer().notNull() },
  (t) => [
    check('prefix_size_one_row', sql`${t.id} = 1`),
    check('prefix_size_positive', sql`${t.rows} >= 0`),
  ],
);

/** Roll-up of the posted entries, written in the transaction that posts. */
export const usageDaily = sqliteTable(
  'usage_daily',
  {
    /** YYYY-MM-DD, UTC, of the settlement. */
    day: text().notNull(),
    model: text().notNull(),
    keyId: text('key_id').notNull(),
    requests: integer().notNull(),
    inputUncached: integer('input_uncached').notNull(),
    inputCached: integer('input_cached').notNull(),
    outputText: integer('output_text').notNull(),
    outputReasoning: integer('output_reasoning').notNull(),
    costNanoUsd: integer('cost_nano_usd').notNull(),
    /**
     * Complete answers whose prompt the prefix index expected to be cached where they were placed.
     */
    prefixPromised: integer('prefix_promised').notNull().default(0),
    /** The promised answers for which the worker had nothing cached. */
    prefixBroken: integer('prefix_broken').notNull().default(0),
  },
  (t) => [primaryKey({ columns: [t.day, t.model, t.keyId] })],
);
