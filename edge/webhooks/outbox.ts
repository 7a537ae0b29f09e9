/**
 * Events on their way to webhooks. An event is written in the transaction of its cause, and its
 * deliveries with it; each stays until a receiver has answered or its tries are used up, so it is
 * delivered at least once, always under the same id.
 */
import {
  and,
  asc,
  count,
  eq,
  gt,
  inArray,
  isNull,
  lte,
  min,
  notExists,
  notInArray,
  or,
  sql,
} from 'drizzle-orm';
import { webhook, webhookDelivery, webhookEvent, webhookTry } from '../../db/schema/account.ts';
import type { SyncDb } from '../../db/types.ts';
import type {
  DueDelivery,
  WebhookDelivery,
  WebhookEventType,
  WebhookOutcome,
  WebhookSent,
} from '../tenant/webhook-contract.ts';
import { disableAfterMs, pauseAfter } from './retry-schedule.ts';
import type { WebhookList } from './webhook-list.ts';

const dayMs = 24 * 3_600_000;
/** The log goes back so far. */
export const keptMs = 30 * dayMs;
/** An event that its cause has once is kept for longer, lest it be sent again. */
export const onceKeptMs = 400 * dayMs;
/** Deliveries that wait for one webhook at most; what its owner asks for beyond is refused. */
export const waitingMax = 1_000;
/** Old events that one new one removes at most, so that no call does much at once. */
const prunedAtOnce = 50;
const idBytes = 16;
const goneStatus = 410;

/** Call everything inside a transaction. */
export class Outbox {
  readonly #db: SyncDb;
  readonly #webhooks: WebhookList;
  readonly #random: { bytes(count: number): Uint8Array };

  constructor(
    db: SyncDb,
    options: {
      readonly webhooks: WebhookList;
      readonly random: { bytes(count: number): Uint8Array };
    },
  ) {
    this.#db = db;
    this.#webhooks = options.webhooks;
    this.#random = options.random;
  }

  /**
   * Writes an event for those webhooks.
   * @returns its id; null when its cause has an event already, or nobody is told
   */
  send(event: {
    readonly type: WebhookEventType;
    readonly data: Readonly<Record<string, unknown>>;
    readonly cause: string | null;
    readonly to: readonly string[];
    readonly nowMs: number;
  }): string | null {
    const { type, data, cause, to, nowMs } = event;
    if (to.length === 0) return null;
    const timestamp = new Date(nowMs).toISOString();
    const written = this.#db
      .insert(webhookEvent)
      .values({
        id: `msg_${Buffer.from(this.#random.bytes(idBytes)).toString('base64url')}`,
        type,
        body: JSON.stringify({ type, timestamp, data }),
        cause,
        createdAtMs: nowMs,
      })
      .onConflictDoNothing()
      .returning({ id: webhookEvent.id })
      .get();
    if (written === undefined) return null;
    const delivery = { eventId: written.id, status: 'pending', tries: 0 } as const;
    this.#db
      .insert(webhookDelivery)
      .values(to.map((id) => ({ ...delivery, webhookId: id, nextAtMs: nowMs, createdAtMs: nowMs })))
      .run();
    this.#prune(nowMs);
    return written.id;
  }

  /** The first due delivery of each active webhook that is not busy. */
  due(busy: readonly string[], nowMs: number): DueDelivery[] {
    if (this.#webhooks.isEmpty) return [];
    const rows = this.#db
      // SQLite takes the other columns from the row that has the least.
      .select({
        webhook,
        eventId: webhookDelivery.eventId,
        body: webhookEvent.body,
        atMs: min(webhookDelivery.nextAtMs),
      })
      .from(webhookDelivery)
      .innerJoin(webhook, eq(webhook.id, webhookDelivery.webhookId))
      .innerJoin(webhookEvent, eq(webhookEvent.id, webhookDelivery.eventId))
      .where(
        and(
          eq(webhookDelivery.status, 'pending'),
          lte(webhookDelivery.nextAtMs, nowMs),
          eq(webhook.status, 'active'),
          busy.length > 0 ? notInArray(webhook.id, [...busy]) : undefined,
        ),
      )
      .groupBy(webhook.id)
      .all();
    return rows.map((row) => ({
      webhookId: row.webhook.id,
      eventId: row.eventId,
      url: row.webhook.url,
      secrets: secretsOf(row.webhook, nowMs),
      body: row.body,
    }));
  }

  /** The time of the next delivery that is not due yet. */
  nextAtMs(nowMs: number): number | null {
    if (this.#webhooks.isEmpty) return null;
    const next = this.#db
      .select({ atMs: min(webhookDelivery.nextAtMs) })
      .from(webhookDelivery)
      .innerJoin(webhook, eq(webhook.id, webhookDelivery.webhookId))
      .where(
        and(
          eq(webhookDelivery.status, 'pending'),
          gt(webhookDelivery.nextAtMs, nowMs),
          eq(webhook.status, 'active'),
        ),
      )
      .get();
    return next?.atMs ?? null;
  }

  /** Notes a try and what follows from it; one of a webhook that is gone has no effect. */
  record(outcome: WebhookOutcome, nowMs: number): void {
    const { webhookId, eventId, durationMs, httpStatus, error, retryAfterMs } = outcome;
    const named = this.#named(webhookId, eventId);
    const before = this.#db.select().from(webhookDelivery).where(named).get();
    const receiver = this.#webhooks.get(webhookId);
    if (before === undefined || receiver === null) return;
    this.#db
      .insert(webhookTry)
      .values({ webhookId, eventId, atMs: nowMs, durationMs, httpStatus, error })
      .run();
    if (before.status !== 'pending') return;
    const tries = before.tries + 1;
    const isDelivered = httpStatus !== null && httpStatus >= 200 && httpStatus < 300;
    if (isDelivered) {
      this.#set(named, { status: 'delivered', tries, nextAtMs: null });
      this.#webhooks.setFailing(webhookId, null);
      return;
    }
    const [byte = 0] = this.#random.bytes(1);
    const pauseMs = pauseAfter(tries, { retryAfterMs, random: byte / 255 });
    if (pauseMs === null) this.#set(named, { status: 'failed', tries, nextAtMs: null });
    else this.#set(named, { tries, nextAtMs: nowMs + pauseMs });
    const sinceMs = receiver.failingSinceMs ?? nowMs;
    this.#webhooks.setFailing(webhookId, sinceMs);
    if (httpStatus === goneStatus) this.#disable(webhookId, 'its receiver answered 410 Gone');
    else if (nowMs - sinceMs >= disableAfterMs) {
      this.#disable(webhookId, `every try since ${new Date(sinceMs).toISOString()} failed`);
    }
  }

  /** Delivers an event once more, from the first try on. */
  resend(webhookId: string, eventId: string, nowMs: number): WebhookSent {
    const receiver = this.#webhooks.get(webhookId);
    const named = this.#named(webhookId, eventId);
    const before = this.#db.select().from(webhookDelivery).where(named).get();
    if (receiver === null || before === undefined) return { kind: 'missing' };
    if (receiver.status === 'disabled') return { kind: 'disabled' };
    if (this.#waitingOf(webhookId) >= waitingMax) return { kind: 'too-many' };
    this.#set(named, { status: 'pending', tries: 0, nextAtMs: nowMs });
    return { kind: 'sent', eventId };
  }

  test(webhookId: string, nowMs: number): WebhookSent {
    const receiver = this.#webhooks.get(webhookId);
    if (receiver === null) return { kind: 'missing' };
    if (receiver.status === 'disabled') return { kind: 'disabled' };
    if (this.#waitingOf(webhookId) >= waitingMax) return { kind: 'too-many' };
    const data = { webhook_id: webhookId };
    const type = 'webhook.test';
    const eventId = this.send({ type, data, cause: null, to: [webhookId], nowMs });
    return eventId === null ? { kind: 'missing' } : { kind: 'sent', eventId };
  }

  /** The newest first; those before an event go on from it. */
  deliveries(page: {
    readonly id: string;
    readonly beforeEvent: string | null;
    readonly limit: number;
  }): WebhookDelivery[] {
    const row = sql`${webhookDelivery}.rowid`;
    const { id, beforeEvent } = page;
    const before = sql`${row} < (SELECT d.rowid FROM ${webhookDelivery} d
      WHERE d.webhook_id = ${id} AND d.event_id = ${beforeEvent})`;
    const rows = this.#db
      .select({ delivery: webhookDelivery, type: webhookEvent.type })
      .from(webhookDelivery)
      .innerJoin(webhookEvent, eq(webhookEvent.id, webhookDelivery.eventId))
      .where(and(eq(webhookDelivery.webhookId, id), beforeEvent === null ? undefined : before))
      .orderBy(sql`${row} DESC`)
      .limit(page.limit)
      .all();
    const events = rows.map(({ delivery }) => delivery.eventId);
    const tries = this.#db
      .select()
      .from(webhookTry)
      .where(and(eq(webhookTry.webhookId, id), inArray(webhookTry.eventId, events)))
      .orderBy(asc(webhookTry.id))
      .all();
    return rows.map(({ delivery: { eventId, status, createdAtMs, nextAtMs }, type }) => ({
      eventId,
      type,
      status,
      createdAtMs,
      nextAtMs,
      tries: tries
        .filter((each) => each.eventId === eventId)
        .map(({ atMs, durationMs, httpStatus, error }) => ({
          atMs,
          durationMs,
          httpStatus,
          error,
        })),
    }));
  }

  /** Gives up the deliveries that wait: the owner sends them again once the webhook works. */
  #disable(id: string, reason: string): void {
    this.#webhooks.disable(id, reason);
    const waiting = and(eq(webhookDelivery.webhookId, id), eq(webhookDelivery.status, 'pending'));
    this.#set(waiting, { status: 'failed', nextAtMs: null });
  }

  #named(webhookId: string, eventId: string) {
    return and(eq(webhookDelivery.webhookId, webhookId), eq(webhookDelivery.eventId, eventId));
  }

  #set(
    where: ReturnType<typeof and>,
    values: Partial<Pick<typeof webhookDelivery.$inferSelect, 'status' | 'tries' | 'nextAtMs'>>,
  ): void {
    this.#db.update(webhookDelivery).set(values).where(where).run();
  }

  #waitingOf(webhookId: string): number {
    const waiting = and(
      eq(webhookDelivery.webhookId, webhookId),
      eq(webhookDelivery.status, 'pending'),
    );
    return this.#db.select({ all: count() }).from(webhookDelivery).where(waiting).get()?.all ?? 0;
  }

  /** Old events go with their log, unless one of their deliveries waits. */
  #prune(nowMs: number): void {
    const waiting = this.#db
      .select({ id: webhookDelivery.eventId })
      .from(webhookDelivery)
      .where(
        and(eq(webhookDelivery.eventId, webhookEvent.id), eq(webhookDelivery.status, 'pending')),
      );
    const old = this.#db
      .select({ id: webhookEvent.id })
      .from(webhookEvent)
      .where(
        and(
          lte(webhookEvent.createdAtMs, nowMs - keptMs),
          or(isNull(webhookEvent.cause), lte(webhookEvent.createdAtMs, nowMs - onceKeptMs)),
          notExists(waiting),
        ),
      )
      .limit(prunedAtOnce)
      .all()
      .map(({ id }) => id);
    if (old.length === 0) return;
    this.#db.delete(webhookDelivery).where(inArray(webhookDelivery.eventId, old)).run();
    this.#db.delete(webhookTry).where(inArray(webhookTry.eventId, old)).run();
    this.#db.delete(webhookEvent).where(inArray(webhookEvent.id, old)).run();
  }
}

function secretsOf(row: typeof webhook.$inferSelect, nowMs: number): string[] {
  const { secret, previousSecret, previousUntilMs } = row;
  const isInForce = previousSecret !== null && (previousUntilMs ?? 0) > nowMs;
  return isInForce ? [secret, previousSecret] : [secret];
}
