/**
 * The data that all tenants share: models, prices, tenants and the payment events seen. It holds no
 * balances. All times are Unix milliseconds, all prices nano-USD per 1,000,000 tokens.
 */
import { sql } from 'drizzle-orm';
import { check, index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core';

export const model = sqliteTable('model', {
  id: text().primaryKey(),
  contextLength: integer('context_length').notNull(),
  revision: text().notNull(),
  tokenizer: text().notNull(),
  ownedBy: text('owned_by').notNull(),
  createdAtMs: integer('created_at_ms').notNull(),
});

/** Other names of models: a request for one runs on the first of its models that can take it. */
export const modelAlias = sqliteTable('model_alias', {
  name: text().primaryKey(),
  models: text({ mode: 'json' }).$type<readonly string[]>().notNull(),
  createdAtMs: integer('created_at_ms').notNull(),
});

/** Rows are added, never changed: entries name them. */
export const price = sqliteTable(
  'price',
  {
    id: text().primaryKey(),
    model: text().notNull(),
    inputCached: integer('input_cached').notNull(),
    inputUncached: integer('input_uncached').notNull(),
    output: integer().notNull(),
    fromMs: integer('from_ms').notNull(),
    /** Minutes of the UTC day; both or neither. A window may pass midnight (start > end). */
    windowStartMinute: integer('window_start_minute'),
    windowEndMinute: integer('window_end_minute'),
  },
  (t) => [
    index('price_model_from').on(t.model, t.fromMs),
    check(
      'price_not_negative',
      sql`${t.inputCached} >= 0 AND ${t.inputUncached} >= 0 AND ${t.output} >= 0`,
    ),
    check(
      'price_window',
      sql`(${t.windowStartMinute} IS NULL AND ${t.windowEndMinute} IS NULL) OR
        (${t.windowStartMinute} BETWEEN 0 AND 1439 AND ${t.windowEndMinute} BETWEEN 0 AND 1440
          AND ${t.windowStartMinute} <> ${t.windowEndMinute})`,
    ),
  ],
);

export const tenant = sqliteTable('tenant', {
  id: text().primaryKey(),
  name: text().notNull(),
  /** `creating`: its database is not known to exist yet. */
  status: text({ enum: ['creating', 'active', 'suspended'] }).notNull(),
  createdAtMs: integer('created_at_ms').notNull(),
  /** The tenant's share of the workers beside other tenants that wait too. */
  weight: integer().notNull().default(1),
});

/**
 * Payments, by the source under which a tenant's ledger has them. A row outlives the tenant's
 * database, so that a payment is not credited again to one that was put back from an old copy.
 */
export const payment = sqliteTable(
  'payment',
  {
    source: text().primaryKey(),
    tenant: text().notNull(),
    amountNanoUsd: integer('amount_nano_usd').notNull(),
    /** `begun`: the ledger may have it or not. */
    state: text({ enum: ['begun', 'credited'] }).notNull(),
    beganAtMs: integer('began_at_ms').notNull(),
  },
  (t) => [index('payment_tenant').on(t.tenant, t.source)],
);

/** Payment events received. The credit itself is made unique by its source, in the tenant. */
export const webhookEvent = sqliteTable('webhook_event', {
  id: text().primaryKey(),
  kind: text().notNull(),
  tenant: text(),
  receivedAtMs: integer('received_at_ms').notNull(),
});
