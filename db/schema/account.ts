/**
 * The part of a tenant's database that its own admin keys manage: webhooks with what is still to be
 * delivered to them, and the log of who changed what. All times are Unix milliseconds.
 */
import { sql } from 'drizzle-orm';
import { check, index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';

/** The addresses to which events are sent. */
export const webhook = sqliteTable(
  'webhook',
  {
    id: text().primaryKey(),
    url: text().notNull(),
    label: text().notNull(),
    events: text({ mode: 'json' }).$type<readonly string[]>().notNull(),
    status: text({ enum: ['active', 'disabled'] }).notNull(),
    disabledReason: text('disabled_reason'),
    /** It signs, so unlike a key's it is kept as it is. */
    secret: text().notNull(),
    /** The secret before the last rotation, which signs as well until its time is over. */
    previousSecret: text('previous_secret'),
    previousUntilMs: integer('previous_until_ms'),
    /** A balance below this is low; null: none is. */
    lowBalanceNanoUsd: integer('low_balance_nano_usd'),
    /** The balance was low when it last changed, and the event of that was sent. */
    isLow: integer('is_low', { mode: 'boolean' }).notNull(),
    /** Shares of a budget, in percent, whose spending is told. */
    budgetPercents: text('budget_percents', { mode: 'json' }).$type<readonly number[]>().notNull(),
    /** The first failure since the last success; null: the last delivery succeeded. */
    failingSinceMs: integer('failing_since_ms'),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [
    check('webhook_previous', sql`(${t.previousSecret} IS NULL) = (${t.previousUntilMs} IS NULL)`),
  ],
);

/** Events, each written in the transaction of its cause. */
export const webhookEvent = sqliteTable(
  'webhook_event',
  {
    /** It is the `webhook-id` of every delivery of the event. */
    id: text().primaryKey(),
    type: text().notNull(),
    /** The body as it is sent and signed. */
    body: text().notNull(),
    /** Names a cause that has one event; null: each time is another. */
    cause: text().unique(),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [index('webhook_event_created').on(t.createdAtMs)],
);

export const webhookDelivery = sqliteTable(
  'webhook_delivery',
  {
    webhookId: text('webhook_id').notNull(),
    eventId: text('event_id').notNull(),
    status: text({ enum: ['pending', 'delivered', 'failed'] }).notNull(),
    /** Tries since it was written, or sent again by hand. */
    tries: integer().notNull(),
    nextAtMs: integer('next_at_ms'),
    createdAtMs: integer('created_at_ms').notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.webhookId, t.eventId] }),
    index('webhook_delivery_event').on(t.eventId),
    index('webhook_delivery_due')
      .on(t.nextAtMs)
      .where(sql`${t.status} = 'pending'`),
    check('webhook_delivery_next', sql`(${t.status} = 'pending') = (${t.nextAtMs} IS NOT NULL)`),
  ],
);

/** The log of deliveries: a row per try. */
export const webhookTry = sqliteTable(
  'webhook_try',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    webhookId: text('webhook_id').notNull(),
    eventId: text('event_id').notNull(),
    atMs: integer('at_ms').notNull(),
    durationMs: integer('duration_ms').notNull(),
    /** null: there was no answer, and `error` says why. */
    httpStatus: integer('http_status'),
    error: text(),
  },
  (t) => [index('webhook_try_of').on(t.webhookId, t.eventId)],
);

/** Changes of keys, budgets, webhooks and money that somebody made through the API. */
export const auditLog = sqliteTable('audit_log', {
  id: integer().primaryKey({ autoIncrement: true }),
  atMs: integer('at_ms').notNull(),
  /** The id of the key that acted; null: the operator. */
  actorKeyId: text('actor_key_id'),
  action: text().notNull(),
  /** The id of what was changed. */
  object: text().notNull(),
  /** JSON of what was asked for, without secrets. */
  detail: text().notNull(),
});
