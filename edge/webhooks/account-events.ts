/**
 * Decides when the owner of an account is told something: where its balance changes, and before one
 * of its keys expires. An account without webhooks pays for none of it.
 */
import { strict as assert } from 'node:assert';
import { and, eq, gt, inArray } from 'drizzle-orm';
import { account, apiKey, budget, budgetLimit, budgetWindow } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { Outbox } from './outbox.ts';
import type { WebhookList } from './webhook-list.ts';

/** The owner of a key is told so long before it expires. */
export const expiringMs = 7 * 24 * 3_600_000;

/** Call everything inside the transaction of the cause. */
export class AccountEvents {
  readonly #db: SyncDb;
  readonly #webhooks: WebhookList;
  readonly #outbox: Outbox;

  constructor(db: SyncDb, parts: { readonly webhooks: WebhookList; readonly outbox: Outbox }) {
    this.#db = db;
    this.#webhooks = parts.webhooks;
    this.#outbox = parts.outbox;
  }

  /**
   * Tells those webhooks to which the balance became low since they were last told, once until it
   * is above their bound again. What holds reserve counts as there.
   * @returns true if anything is to be sent
   */
  balanceChanged(nowMs: number): boolean {
    if (this.#webhooks.isEmpty) return false;
    const balanceNanoUsd = this.#readBalance();
    const watching = this.#webhooks.subscribed('balance.low').map((each) => ({
      ...each,
      boundNanoUsd: each.lowBalanceNanoUsd ?? 0,
    }));
    const isLow = ({ boundNanoUsd }: { readonly boundNanoUsd: number }) =>
      balanceNanoUsd < boundNanoUsd;
    const recovered = watching.filter((each) => each.isLow && !isLow(each));
    const fallen = watching.filter((each) => !each.isLow && isLow(each));
    const idsOf = (some: typeof watching) => some.map(({ id }) => id);
    this.#webhooks.markLow(idsOf(recovered), false);
    this.#webhooks.markLow(idsOf(fallen), true);
    for (const boundNanoUsd of new Set(fallen.map((each) => each.boundNanoUsd))) {
      this.#outbox.send({
        type: 'balance.low',
        data: { balance_nano_usd: balanceNanoUsd, low_balance_nano_usd: boundNanoUsd },
        cause: null,
        to: idsOf(fallen.filter((each) => each.boundNanoUsd === boundNanoUsd)),
        nowMs,
      });
    }
    return fallen.length > 0;
  }

  /** @returns true if anything is to be sent */
  toppedUp(input: {
    readonly amountNanoUsd: number;
    readonly source: string;
    readonly nowMs: number;
  }): boolean {
    const to = this.#webhooks.subscribed('top_up.received').map(({ id }) => id);
    if (to.length === 0) return false;
    const { amountNanoUsd, source, nowMs } = input;
    const data = {
      amount_nano_usd: amountNanoUsd,
      source,
      balance_nano_usd: this.#readBalance(),
    };
    return this.#outbox.send({ type: 'top_up.received', data, cause: null, to, nowMs }) !== null;
  }

  /**
   * Tells of each key that expires within a week, once for each expiry.
   * @returns the time at which the next key has a week left; null: none is known
   */
  tellOfExpiringKeys(nowMs: number): number | null {
    const to = this.#webhooks.subscribed('key.expiring').map(({ id }) => id);
    if (to.length === 0) return null;
    const expiring = this.#db
      .select({ keyId: apiKey.keyId, label: apiKey.label, expiresAtMs: apiKey.expiresAtMs })
      .from(apiKey)
      .where(and(eq(apiKey.status, 'active'), gt(apiKey.expiresAtMs, nowMs)))
      .all();
    let nextAtMs: number | null = null;
    for (const { keyId, label, expiresAtMs } of expiring) {
      if (expiresAtMs === null) continue;
      const tellAtMs = expiresAtMs - expiringMs;
      if (tellAtMs > nowMs) nextAtMs = Math.min(tellAtMs, nextAtMs ?? tellAtMs);
      else {
        const data = { key_id: keyId, label, expires_at_ms: expiresAtMs };
        const cause = `expiring ${keyId} ${expiresAtMs}`;
        this.#outbox.send({ type: 'key.expiring', data, cause, to, nowMs });
      }
    }
    return nextAtMs;
  }

  /**
   * Tells each webhook of its shares of budgets that are spent, once in each window.
   * @param windowIds the windows in which a cost was counted just now; null: none
   * @returns true if anything is to be sent
   */
  budgetsSpent(windowIds: readonly number[] | null, nowMs: number): boolean {
    if (windowIds === null || windowIds.length === 0 || this.#webhooks.isEmpty) return false;
    const told = this.#webhooks.subscribed('budget.threshold_reached');
    if (told.length === 0) return false;
    const windows = this.#db
      .select({ budget, budgetLimit, budgetWindow })
      .from(budgetWindow)
      .innerJoin(budgetLimit, eq(budgetLimit.id, budgetWindow.limitId))
      .innerJoin(budget, eq(budget.id, budgetLimit.budgetId))
      .where(inArray(budgetWindow.id, [...windowIds]))
      .all();
    let isSent = false;
    for (const row of windows) {
      const { id, spentNanoUsd, endMs } = row.budgetWindow;
      const { limitNanoUsd, period } = row.budgetLimit;
      for (const { id: webhookId, budgetPercents } of told) {
        const reached = budgetPercents.filter((percent) =>
          isShareSpent({ spentNanoUsd, limitNanoUsd, percent }),
        );
        for (const percent of reached) {
          const data = {
            budget: row.budget.name,
            key_id: row.budget.keyId,
            window: period,
            percent,
            limit_nano_usd: limitNanoUsd,
            spent_nano_usd: spentNanoUsd,
            resets_at_ms: period === 'ever' ? null : endMs,
          };
          const cause = `budget ${id} ${limitNanoUsd} ${percent} ${webhookId}`;
          const event = { type: 'budget.threshold_reached', data, cause, nowMs } as const;
          isSent = this.#outbox.send({ ...event, to: [webhookId] }) !== null || isSent;
        }
      }
    }
    return isSent;
  }

  #readBalance(): number {
    const row = this.#db.select().from(account).get();
    assert(row !== undefined, 'a tenant has an account');
    return row.grantedNanoUsd + row.toppedUpNanoUsd;
  }
}

/** A product of an amount and a percentage may pass 2^53. */
function isShareSpent(of: {
  readonly spentNanoUsd: number;
  readonly limitNanoUsd: number;
  readonly percent: number;
}): boolean {
  const { spentNanoUsd, limitNanoUsd, percent } = of;
  if (spentNanoUsd === 0) return false;
  return BigInt(spentNanoUsd) * 100n >= BigInt(limitNanoUsd) * BigInt(percent);
}
