/** Money that comes in, and corrections: new entries, each naming what it stands for. */
import { strict as assert } from 'node:assert';
import { and, eq, inArray, sql } from 'drizzle-orm';
import { account, entry } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import { formatUsd } from '../money-text.ts';
import type { LedgerEntry } from '../tenant/report-contract.ts';
import { toLedgerEntry } from './reports.ts';

/** The amounts that an entry took from, or put into, each of the two balances. */
interface Split {
  readonly grantedNanoUsd: number;
  readonly toppedUpNanoUsd: number;
}

/** A source of the operator's can never be mistaken for a payment. */
export function operatorSource(name: string): string {
  return `operator:${name}`;
}

/** Call everything inside a transaction. */
export class Credits {
  readonly #db: SyncDb;

  constructor(db: SyncDb) {
    this.#db = db;
  }

  /** Credits once per source; false when the source was seen before, whatever its amount. */
  credit(input: {
    readonly kind: 'granted' | 'topped-up';
    readonly amountNanoUsd: number;
    readonly source: string;
    readonly note: string;
    readonly nowMs: number;
  }): boolean {
    const { kind, amountNanoUsd, source, note, nowMs } = input;
    assert(Number.isSafeInteger(amountNanoUsd) && amountNanoUsd > 0, 'a credit is more than 0');
    assert(source !== '', 'a credit has a source');
    const seen = this.#db
      .select({ id: entry.id })
      .from(entry)
      .where(eq(entry.source, source))
      .get();
    if (seen !== undefined) return false;
    const split: Split = {
      grantedNanoUsd: kind === 'granted' ? amountNanoUsd : 0,
      toppedUpNanoUsd: kind === 'topped-up' ? amountNanoUsd : 0,
    };
    this.#move(split);
    this.#db
      .insert(entry)
      .values({ kind: 'credit', source, amountNanoUsd, ...split, note, createdAtMs: nowMs })
      .run();
    return true;
  }

  /** Those of the sources that no credit has, nor one of the operator's under the same name. */
  uncredited(sources: readonly string[]): string[] {
    return sources.filter((source) => {
      const names = [source, operatorSource(source)];
      return !this.#db
        .select({ id: entry.id })
        .from(entry)
        .where(inArray(entry.source, names))
        .get();
    });
  }

  /**
   * Corrects a credit, a posting or a void by a new entry that names it. Positive gives back at
   * most what the entry took, to where it came from, topped-up first: the last spent returns first.
   * Negative takes: of a credit at most what it gave and out of the same balance first, otherwise
   * as a cost is taken, granted first. Throws when the entry cannot be corrected so, or when the
   * available balance does not cover it.
   */
  correct(input: {
    readonly entryId: number;
    readonly amountNanoUsd: number;
    readonly note: string;
    readonly nowMs: number;
  }): LedgerEntry {
    const { entryId, amountNanoUsd, note, nowMs } = input;
    assert(Number.isSafeInteger(amountNanoUsd) && amountNanoUsd !== 0, 'a correction is an amount');
    const corrected = this.#db.select().from(entry).where(eq(entry.id, entryId)).get();
    assert(corrected !== undefined, `there is no entry ${entryId}`);
    const { kind } = corrected;
    const correctable = kind === 'credit' || kind === 'posted' || kind === 'voided';
    assert(correctable, `a ${kind} entry cannot be corrected`);
    const net = this.#netOf(entryId, corrected);
    const split =
      kind === 'credit'
        ? this.#ofCredit(corrected, net, amountNanoUsd)
        : this.#ofCost(net, amountNanoUsd);
    this.#move(split);
    const row = this.#db
      .insert(entry)
      .values({
        kind: 'correction',
        refersTo: entryId,
        amountNanoUsd,
        ...split,
        model: corrected.model,
        keyId: corrected.keyId,
        note,
        createdAtMs: nowMs,
      })
      .returning()
      .get();
    return toLedgerEntry(row);
  }

  /** The entry together with its corrections so far. */
  #netOf(entryId: number, corrected: Split): Split {
    const sums = this.#db
      .select({
        granted: sql<number>`coalesce(sum(${entry.grantedNanoUsd}), 0)`,
        toppedUp: sql<number>`coalesce(sum(${entry.toppedUpNanoUsd}), 0)`,
      })
      .from(entry)
      .where(and(eq(entry.kind, 'correction'), eq(entry.refersTo, entryId)))
      .get();
    assert(sums !== undefined, 'a sum over no rows is a row');
    return {
      grantedNanoUsd: corrected.grantedNanoUsd + sums.granted,
      toppedUpNanoUsd: corrected.toppedUpNanoUsd + sums.toppedUp,
    };
  }

  #ofCredit(credited: Split, net: Split, amountNanoUsd: number): Split {
    const toGranted = credited.grantedNanoUsd > 0;
    if (amountNanoUsd > 0) return intoOne(toGranted, amountNanoUsd);
    const given = net.grantedNanoUsd + net.toppedUpNanoUsd;
    assert(-amountNanoUsd <= given, `the credit gave ${formatUsd(given)} USD, corrections counted`);
    const balance = this.#readBalance();
    const first = toGranted ? balance.grantedNanoUsd : balance.toppedUpNanoUsd;
    const fromFirst = Math.min(first, -amountNanoUsd);
    const fromOther = -amountNanoUsd - fromFirst;
    return toGranted ? taking(fromFirst, fromOther) : taking(fromOther, fromFirst);
  }

  #ofCost(net: Split, amountNanoUsd: number): Split {
    if (amountNanoUsd < 0) {
      const granted = Math.min(this.#readBalance().grantedNanoUsd, -amountNanoUsd);
      return taking(granted, -amountNanoUsd - granted);
    }
    const taken = 0 - net.grantedNanoUsd - net.toppedUpNanoUsd;
    assert(amountNanoUsd <= taken, `the entry took ${formatUsd(taken)} USD, corrections counted`);
    const toppedUp = Math.min(Math.max(0, -net.toppedUpNanoUsd), amountNanoUsd);
    return { grantedNanoUsd: amountNanoUsd - toppedUp, toppedUpNanoUsd: toppedUp };
  }

  #readBalance(): Split {
    const balance = this.#db.select().from(account).get();
    assert(balance !== undefined, 'a tenant has an account');
    return balance;
  }

  /** Guarded like a hold, so that a refusal is a sentence; the CHECKs stand behind it. */
  #move(split: Split): void {
    const granted = sql`${account.grantedNanoUsd} + ${split.grantedNanoUsd}`;
    const toppedUp = sql`${account.toppedUpNanoUsd} + ${split.toppedUpNanoUsd}`;
    const covered = sql`${granted} >= 0 AND ${toppedUp} >= 0
      AND ${granted} + ${toppedUp} - ${account.heldNanoUsd} >= 0`;
    const after = this.#db
      .update(account)
      .set({ grantedNanoUsd: granted, toppedUpNanoUsd: toppedUp })
      .where(covered)
      .returning()
      .get();
    assert(after !== undefined, 'the available balance does not cover it');
    const balance = after.grantedNanoUsd + after.toppedUpNanoUsd;
    assert(Number.isSafeInteger(balance), 'a balance is a safe integer of nano-USD');
  }
}

function intoOne(granted: boolean, amountNanoUsd: number): Split {
  return granted
    ? { grantedNanoUsd: amountNanoUsd, toppedUpNanoUsd: 0 }
    : { grantedNanoUsd: 0, toppedUpNanoUsd: amountNanoUsd };
}

/** `0 -` rather than a minus sign, which makes -0 of 0. */
function taking(granted: number, toppedUp: number): Split {
  return { grantedNanoUsd: 0 - granted, toppedUpNanoUsd: 0 - toppedUp };
}
