/** Reading the ledger: the balance, daily usage, and pages of entries for the export. */
import { strict as assert } from 'node:assert';
import { and, asc, between, gt, sql } from 'drizzle-orm';
import { account, entry, usageDaily } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { Balance, LedgerEntry, UsageCursor, UsageRow } from '../tenant/report-contract.ts';
import type { Settlement } from '../tenant/settlement-contract.ts';

export const entriesPageMax = 1_000;
/** Rows of one usage report at most: a year of a hundred pairs of model and key. */
export const usageRowsMax = 40_000;

/** Call everything inside a transaction. */
export class Reports {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareReportsStatements>;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#statements = prepareReportsStatements(db);
  }

  /** Adds a posted settlement to its day; in the transaction that posts it. */
  count(posted: {
    readonly model: string;
    readonly keyId: string;
    readonly settlement: Settlement;
    readonly prefixPromised: boolean;
    readonly nowMs: number;
  }): void {
    const { model, keyId, settlement, prefixPromised, nowMs } = posted;
    const prefixBroken = prefixPromised && settlement.usage.inputCached === 0;
    this.#statements.rollUp.run({
      day: dayOf(nowMs),
      model,
      keyId,
      ...settlement.usage,
      inputCached: settlement.usage.inputCached ?? 0,
      costNanoUsd: settlement.costNanoUsd,
      prefixPromised: Number(prefixPromised),
      prefixBroken: Number(prefixBroken),
    });
  }

  balance(): Balance {
    const row = this.#db.select().from(account).get();
    assert(row !== undefined, 'a tenant has an account');
    return {
      granted: row.grantedNanoUsd,
      toppedUp: row.toppedUpNanoUsd,
      held: row.heldNanoUsd,
    };
  }

  /** Sums usage from day to day, both included, YYYY-MM-DD. */
  usage(page: {
    readonly fromDay: string;
    readonly toDay: string;
    readonly after: UsageCursor | null;
    readonly limit: number;
  }): UsageRow[] {
    const { after } = page;
    const key = sql`(${usageDaily.day}, ${usageDaily.model}, ${usageDaily.keyId})`;
    const rows = this.#db
      .select()
      .from(usageDaily)
      .where(
        and(
          between(usageDaily.day, page.fromDay, page.toDay),
          after ? sql`${key} > (${after.day}, ${after.model}, ${after.keyId})` : undefined,
        ),
      )
      .orderBy(asc(usageDaily.day), asc(usageDaily.model), asc(usageDaily.keyId))
      .limit(Math.min(Math.max(page.limit, 1), usageRowsMax))
      .all();
    return rows.map((row) => ({
      day: row.day,
      model: row.model,
      keyId: row.keyId,
      requests: row.requests,
      usage: {
        inputUncached: row.inputUncached,
        inputCached: row.inputCached,
        outputText: row.outputText,
        outputReasoning: row.outputReasoning,
      },
      costNanoUsd: row.costNanoUsd,
      prefixPromised: row.prefixPromised,
      prefixBroken: row.prefixBroken,
    }));
  }

  /**
   * Lists entries in the order they were written, from after that id; fewer than the limit means
   * the end.
   */
  entries(page: { readonly afterId: number; readonly limit: number }): LedgerEntry[] {
    const limit = Math.min(Math.max(page.limit, 1), entriesPageMax);
    return this.#db
      .select()
      .from(entry)
      .where(gt(entry.id, page.afterId))
      .orderBy(asc(entry.id))
      .limit(limit)
      .all()
      .map(toLedgerEntry);
  }
}

function prepareReportsStatements(db: SyncDb) {
  const rollUp = db
    .insert(usageDaily)
    .values({
      day: sql.placeholder('day'),
      model: sql.placeholder('model'),
      keyId: sql.placeholder('keyId'),
      requests: 1,
      inputUncached: sql.placeholder('inputUncached'),
      inputCached: sql.placeholder('inputCached'),
      outputText: sql.placeholder('outputText'),
      outputReasoning: sql.placeholder('outputReasoning'),
      costNanoUsd: sql.placeholder('costNanoUsd'),
      prefixPromised: sql.placeholder('prefixPromised'),
      prefixBroken: sql.placeholder('prefixBroken'),
    })
    .onConflictDoUpdate({
      target: [usageDaily.day, usageDaily.model, usageDaily.keyId],
      set: {
        requests: added('requests'),
        inputUncached: added('input_uncached'),
        inputCached: added('input_cached'),
        outputText: added('output_text'),
        outputReasoning: added('output_reasoning'),
        costNanoUsd: added('cost_nano_usd'),
        prefixPromised: added('prefix_promised'),
        prefixBroken: added('prefix_broken'),
      },
    })
    .prepare();
  return { rollUp };
}

/** The SQL of an upsert that adds to what the row has. */
const added = (column: string) => sql.raw(`"${column}" + excluded."${column}"`);

/** The UTC day of an instant, YYYY-MM-DD. */
export function dayOf(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 10);
}

export function toLedgerEntry(row: typeof entry.$inferSelect): LedgerEntry {
  const { inputUncached, inputCached, outputText, outputReasoning } = row;
  const counted =
    row.kind === 'posted' &&
    inputUncached !== null &&
    outputText !== null &&
    outputReasoning !== null;
  return {
    id: row.id,
    kind: row.kind,
    requestId: row.requestId,
    refersTo: row.refersTo,
    amountNanoUsd: row.amountNanoUsd,
    grantedNanoUsd: row.grantedNanoUsd,
    toppedUpNanoUsd: row.toppedUpNanoUsd,
    model: row.model,
    ...(row.alias !== null && { alias: row.alias }),
    ...(row.budgets !== null && { budgets: row.budgets }),
    ...(row.extendedNanoUsd !== null && { extendedNanoUsd: row.extendedNanoUsd }),
    keyId: row.keyId,
    priceId: row.priceId,
    usage: counted ? { inputUncached, inputCached, outputText, outputReasoning } : null,
    predictedCachedBytes: row.predictedCachedBytes,
    ...(row.cacheMissReason !== null && { cacheMissReason: row.cacheMissReason }),
    note: row.note,
    createdAtMs: row.createdAtMs,
  };
}
