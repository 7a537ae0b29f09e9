/** The webhooks of a tenant: addresses, what each of them is told, and the secrets that sign. */
import { asc, count, eq, inArray } from 'drizzle-orm';
import { webhook, webhookDelivery, webhookTry } from '../../db/schema/account.ts';
import type { SyncDb } from '../../db/types.ts';
import type {
  NewWebhook,
  WebhookChange,
  WebhookEventType,
  WebhookRecord,
} from '../tenant/webhook-contract.ts';

export const webhooksMax = 20;
/** For so long after a rotation the secret before signs as well. */
export const previousSecretMs = 24 * 3_600_000;

export type WebhookRow = typeof webhook.$inferSelect;

/** Call everything inside a transaction. */
export class WebhookList {
  readonly #db: SyncDb;
  /**
   * false while there is no webhook, so that those who have none pay nothing. It never goes back to
   * false, because a transaction that removed the last one may still be undone.
   */
  #mayHaveAny: boolean;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#mayHaveAny = this.#countAll() > 0;
  }

  get isEmpty(): boolean {
    return !this.#mayHaveAny;
  }

  list(): WebhookRecord[] {
    return this.#db
      .select()
      .from(webhook)
      .orderBy(asc(webhook.createdAtMs), asc(webhook.id))
      .all()
      .map(toRecord);
  }

  get(id: string): WebhookRecord | null {
    const row = this.#db.select().from(webhook).where(eq(webhook.id, id)).get();
    return row === undefined ? null : toRecord(row);
  }

  /** Those that are active and told of events of the type. */
  subscribed(type: WebhookEventType): WebhookRow[] {
    if (this.isEmpty) return [];
    const active = this.#db.select().from(webhook).where(eq(webhook.status, 'active')).all();
    return active.filter(({ events }) => events.includes(type));
  }

  /** Returns the webhook of that id, made now or before; null when there are too many. */
  create(input: NewWebhook & { readonly nowMs: number }): WebhookRecord | null {
    const { nowMs, ...terms } = input;
    const before = this.get(input.id);
    if (before !== null) return before;
    if (this.#countAll() >= webhooksMax) return null;
    this.#mayHaveAny = true;
    this.#db
      .insert(webhook)
      .values({ ...terms, status: 'active', isLow: false, createdAtMs: nowMs })
      .run();
    return this.get(input.id);
  }

  /** One that is active again begins anew: what failed before does not count. */
  change(id: string, { status, ...terms }: WebhookChange): WebhookRecord | null {
    const before = this.get(id);
    if (before === null) return null;
    const isRevived = status === 'active' && before.status === 'disabled';
    const changed = {
      ...terms,
      ...(status && { status }),
      ...(status === 'disabled' && { disabledReason: 'disabled by its owner' }),
      ...(isRevived && { disabledReason: null, failingSinceMs: null }),
      ...(terms.lowBalanceNanoUsd !== undefined && { isLow: false }),
    };
    if (Object.keys(changed).length > 0) {
      this.#db.update(webhook).set(changed).where(eq(webhook.id, id)).run();
    }
    return this.get(id);
  }

  remove(id: string): boolean {
    const gone = this.#db.delete(webhook).where(eq(webhook.id, id)).returning().get();
    if (gone === undefined) return false;
    this.#db.delete(webhookDelivery).where(eq(webhookDelivery.webhookId, id)).run();
    this.#db.delete(webhookTry).where(eq(webhookTry.webhookId, id)).run();
    return true;
  }

  /** The same rotation repeated changes nothing: the secret before would be lost. */
  rotate(input: {
    readonly id: string;
    readonly secret: string;
    readonly nowMs: number;
  }): WebhookRecord | null {
    const row = this.#db.select().from(webhook).where(eq(webhook.id, input.id)).get();
    if (row === undefined) return null;
    if (row.secret !== input.secret) {
      this.#db
        .update(webhook)
        .set({
          secret: input.secret,
          previousSecret: row.secret,
          previousUntilMs: input.nowMs + previousSecretMs,
        })
        .where(eq(webhook.id, input.id))
        .run();
    }
    return this.get(input.id);
  }

  markLow(ids: readonly string[], isLow: boolean): void {
    if (ids.length === 0) return;
    this.#db.update(webhook).set({ isLow }).where(inArray(webhook.id, ids)).run();
  }

  disable(id: string, reason: string): void {
    this.#db
      .update(webhook)
      .set({ status: 'disabled', disabledReason: reason })
      .where(eq(webhook.id, id))
      .run();
  }

  /** null: its last delivery succeeded. */
  setFailing(id: string, sinceMs: number | null): void {
    this.#db.update(webhook).set({ failingSinceMs: sinceMs }).where(eq(webhook.id, id)).run();
  }

  #countAll(): number {
    return this.#db.select({ all: count() }).from(webhook).get()?.all ?? 0;
  }
}

function toRecord(row: WebhookRow): WebhookRecord {
  return {
    id: row.id,
    url: row.url,
    label: row.label,
    // Only types of the contract are stored.
    events: row.events as readonly WebhookEventType[],
    status: row.status,
    disabledReason: row.disabledReason,
    lowBalanceNanoUsd: row.lowBalanceNanoUsd,
    budgetPercents: row.budgetPercents,
    previousSecretUntilMs: row.previousUntilMs,
    failingSinceMs: row.failingSinceMs,
    createdAtMs: row.createdAtMs,
  };
}
