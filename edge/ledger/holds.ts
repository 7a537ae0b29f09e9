/**
 * Two-phase transfers: a hold is `pending`, then exactly one of `posted` (the actual cost; the rest
 * returns) or `voided`. The guards stand in the database: the UPDATE that reserves, the CHECKs on
 * the account, and the unique indexes on the entries. Call everything inside a transaction.
 */
import { strict as assert } from 'node:assert';
import { asc, gt, lte, or } from 'drizzle-orm';
import { hold } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import { formatUsd } from '../money-text.ts';
import { billed, noUsage } from '../money.ts';
import type { Price } from '../money.ts';
import type { OpenHold, SettleInput, Settlement } from '../tenant/settlement-contract.ts';
import { prepareHoldStatements } from './hold-statements.ts';

/** Open holds that one look lists at most; the next look, after resolving, lists the next. */
export const openHoldsMax = 1_000;

export interface HoldInput {
  readonly requestId: string;
  readonly keyId: string;
  readonly model: string;
  readonly alias?: string | null;
  readonly revision?: string | null;
  readonly price: Price;
  readonly amountNanoUsd: number;
  readonly tokensReserved: number;
  readonly idempotencyKey: string | null;
  readonly nowMs: number;
}

/** The budgets that a hold counts in; null: none. */
type OfBudgets = {
  readonly names: readonly string[];
  readonly windowIds: readonly number[];
} | null;

export type HoldRow = typeof hold.$inferSelect;

type Resolution = Pick<
  SettleInput,
  'outcome' | 'usage' | 'worker' | 'predictedCachedBytes' | 'cacheMissReason'
>;

/** Call everything inside a transaction. */
export class Holds {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareHoldStatements>;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#statements = prepareHoldStatements(db);
  }

  /** Reserves the amount; false when the available balance does not cover it: nothing changed. */
  reserve(amountNanoUsd: number): boolean {
    assert(Number.isSafeInteger(amountNanoUsd) && amountNanoUsd >= 0, 'a hold is an amount');
    return this.#statements.reserve.get({ amountNanoUsd }) !== undefined;
  }

  /** Opens the hold of an amount that was reserved. */
  open(input: HoldInput, ofBudgets: OfBudgets): void {
    const { price, requestId, keyId, model, amountNanoUsd, nowMs } = input;
    const { alias = null, revision = null } = input;
    const budgets = namesOf(ofBudgets?.names);
    const budgetWindows = json(ofBudgets?.windowIds);
    // UNIQUE(request_id, kind) refuses a request id that was admitted before.
    const pending = this.#statements.insertPending.get({
      requestId,
      keyId,
      model,
      alias,
      revision,
      amountNanoUsd,
      priceId: price.id,
      budgets,
      budgetWindows,
      nowMs,
    });
    assert(pending !== undefined, 'an inserted entry has an id');
    this.#statements.insertHold.run({
      ...input,
      alias,
      budgets,
      budgetWindows,
      entryId: pending.id,
      priceId: price.id,
      priceInputCached: price.inputCached,
      priceInputUncached: price.inputUncached,
      priceOutput: price.output,
    });
  }

  /** The open hold of a request; null if it is resolved. */
  find(requestId: string): Pick<HoldRow, 'amountNanoUsd' | 'budgetWindows'> | null {
    return this.#statements.open.get({ requestId }) ?? null;
  }

  /** Adds what was reserved for it to an open hold. */
  extend(requestId: string, amountNanoUsd: number): void {
    this.#statements.extend.run({ requestId, amountNanoUsd });
  }

  /** Remembers where the request went; false when the hold is resolved already. */
  place(input: {
    readonly requestId: string;
    readonly worker: string;
    readonly epoch: number;
    readonly workerUrl: string | null;
  }): boolean {
    return this.#statements.place.get(input) !== undefined;
  }

  /** Takes the row of an open hold out, to be resolved; null if the request has none. */
  take(requestId: string): HoldRow | null {
    return this.#statements.take.get({ requestId }) ?? null;
  }

  /** Resolves what was taken with its usage, or voids it when nothing was delivered (null). */
  resolve(open: HoldRow, resolution: Resolution, nowMs: number): Settlement {
    const usage = resolution.usage ?? noUsage;
    const bill = billed(usage, priceOf(open), open.amountNanoUsd);
    const { excessNanoUsd } = bill;
    const paid = this.#spend(open, bill.costNanoUsd);
    this.#statements.insertResolution.run({
      ...paid,
      kind: resolution.usage === null ? 'voided' : 'posted',
      requestId: open.requestId,
      refersTo: open.entryId,
      model: open.model,
      alias: open.alias,
      keyId: open.keyId,
      priceId: open.priceId,
      priceInputCached: open.priceInputCached,
      priceInputUncached: open.priceInputUncached,
      priceOutput: open.priceOutput,
      ...usage,
      predictedCachedBytes: resolution.predictedCachedBytes,
      cacheMissReason: resolution.cacheMissReason ?? null,
      excessNanoUsd,
      outcome: resolution.outcome,
      worker: resolution.worker ?? open.worker,
      budgets: namesOf(open.budgets),
      budgetWindows: json(open.budgetWindows),
      extendedNanoUsd: open.extendedNanoUsd === 0 ? null : open.extendedNanoUsd,
      note: excessNanoUsd > 0 ? `cost exceeded the hold by ${formatUsd(excessNanoUsd)} USD` : null,
      nowMs,
    });
    return { ...bill, usage, first: true };
  }

  /** Spends granted credit first; the part of the hold beyond the cost is available again. */
  #spend(open: HoldRow, cost: number) {
    const balance = this.#statements.account.get();
    assert(balance !== undefined, 'a tenant has an account');
    const granted = Math.min(balance.grantedNanoUsd, cost);
    const toppedUp = cost - granted;
    this.#statements.charge.run({ granted, toppedUp, held: open.amountNanoUsd });
    return { amountNanoUsd: 0 - cost, grantedNanoUsd: 0 - granted, toppedUpNanoUsd: 0 - toppedUp };
  }

  /** The earlier settlement of the request; null when it was never settled. */
  earlier(requestId: string): Settlement | null {
    const row = this.#statements.resolution.get({ requestId });
    if (row === undefined) return null;
    const { inputUncached, inputCached, outputText, outputReasoning } = row;
    const isCounted = inputUncached !== null;
    return {
      costNanoUsd: 0 - row.amountNanoUsd,
      usage: {
        inputUncached: inputUncached ?? 0,
        inputCached: isCounted ? inputCached : 0,
        outputText: outputText ?? 0,
        outputReasoning: outputReasoning ?? 0,
      },
      first: false,
      excessNanoUsd: row.excessNanoUsd ?? 0,
    };
  }

  /**
   * Holds open for that long, oldest first. One that was opened in a far future is listed too: the
   * clock has gone back since, and its age is unknown.
   */
  stale(age: { readonly olderThanMs: number; readonly nowMs: number }): OpenHold[] {
    const { olderThanMs, nowMs } = age;
    return this.#db
      .select({
        requestId: hold.requestId,
        worker: hold.worker,
        workerUrl: hold.workerUrl,
        openedAtMs: hold.openedAtMs,
      })
      .from(hold)
      .where(
        or(lte(hold.openedAtMs, nowMs - olderThanMs), gt(hold.openedAtMs, nowMs + olderThanMs)),
      )
      .orderBy(asc(hold.openedAtMs), asc(hold.requestId))
      .limit(openHoldsMax)
      .all();
  }
}

function json(value: readonly unknown[] | null | undefined): string | null {
  return value == null ? null : JSON.stringify(value);
}

/** A key's own budget has no name. */
function namesOf(names: readonly string[] | null | undefined): string | null {
  return names == null || names.length === 0 ? null : json(names);
}

function priceOf(open: HoldRow): Price {
  return {
    id: open.priceId,
    inputCached: open.priceInputCached,
    inputUncached: open.priceInputUncached,
    output: open.priceOutput,
  };
}
