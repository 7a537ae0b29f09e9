/**
 * Decides when the owner of an account is told something: where its balance changes, and before one
 * of its keys expires. An account without webhooks pays for none of it.
 */
import { strict as assert } from 'node:assert';
import { account } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { Outbox } from './outbox.ts';
import type { WebhookList } from './webhook-list.ts';

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

  #readBalance(): number {
    const row = this.#db.select().from(account).get();
    assert(row !== undefined, 'a tenant has an account');
    return row.grantedNanoUsd + row.toppedUpNanoUsd;
  }
}
