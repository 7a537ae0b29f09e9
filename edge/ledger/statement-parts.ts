/** The entries of a statement, summed in pieces: a long ledger holds up nobody while it is read. */
import { strict as assert } from 'node:assert';
import { and, eq, gt, gte, inArray, lt, lte, max, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import type { SQL, SQLWrapper } from 'drizzle-orm';
import { entry } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type {
  StatementCorrection,
  StatementCredit,
  StatementPart,
  StatementPartInput,
  StatementSpend,
} from '../tenant/statement-contract.ts';

/** Entries that one piece reads, in some ten milliseconds. */
const entriesPerPart = 5_000;

const sumOf = (value: SQLWrapper) => sql<number>`coalesce(sum(${value}), 0)`;
const change = {
  grantedNanoUsd: sumOf(entry.grantedNanoUsd),
  toppedUpNanoUsd: sumOf(entry.toppedUpNanoUsd),
};

/** Call inside a transaction. */
export function readStatementPart(db: SyncDb, input: StatementPartInput): StatementPart {
  const untilId = input.untilId ?? lastEntryId(db);
  const lastId = Math.min(input.afterId + entriesPerPart, untilId);
  const read = and(gt(entry.id, input.afterId), lte(entry.id, lastId));
  const during = and(read, gte(entry.createdAtMs, input.fromMs), lt(entry.createdAtMs, input.toMs));
  const before = db
    .select(change)
    .from(entry)
    .where(and(read, lt(entry.createdAtMs, input.fromMs)))
    .get();
  assert(before !== undefined, 'a sum over no rows is a row');
  return {
    untilId,
    lastId: lastId < untilId ? lastId : null,
    before,
    credits: creditsOf(db, during),
    spend: spendOf(db, during),
    corrections: correctionsOf(db, during),
    openHolds: openHoldsOf(db, and(read, lt(entry.createdAtMs, input.toMs)), input.toMs),
  };
}

function lastEntryId(db: SyncDb): number {
  return (
    db
      .select({ id: max(entry.id) })
      .from(entry)
      .get()?.id ?? 0
  );
}

function creditsOf(db: SyncDb, during: SQL | undefined): StatementCredit[] {
  return db
    .select({
      entryId: entry.id,
      source: sql<string>`coalesce(${entry.source}, '')`,
      note: entry.note,
      createdAtMs: entry.createdAtMs,
      grantedNanoUsd: entry.grantedNanoUsd,
      toppedUpNanoUsd: entry.toppedUpNanoUsd,
    })
    .from(entry)
    .where(and(during, eq(entry.kind, 'credit')))
    .orderBy(entry.id)
    .all();
}

function spendOf(db: SyncDb, during: SQL | undefined): StatementSpend[] {
  const dearer = sql`${entry.priceInputUncached} - ${entry.priceInputCached}`;
  return db
    .select({
      model: sql<string>`coalesce(${entry.model}, '')`,
      keyId: sql<string>`coalesce(${entry.keyId}, '')`,
      requests: sql<number>`count(*)`,
      inputUncached: sumOf(entry.inputUncached),
      inputCached: sumOf(entry.inputCached),
      outputText: sumOf(entry.outputText),
      outputReasoning: sumOf(entry.outputReasoning),
      savedNanoUsd: sumOf(sql`CAST(${entry.inputCached} * (${dearer}) / 1000000 AS INTEGER)`),
      ...change,
    })
    .from(entry)
    .where(and(during, eq(entry.kind, 'posted')))
    .groupBy(entry.model, entry.keyId)
    .all();
}

function correctionsOf(db: SyncDb, during: SQL | undefined): StatementCorrection[] {
  return db
    .select({
      entryId: entry.id,
      corrects: sql<number>`${entry.refersTo}`,
      model: entry.model,
      keyId: entry.keyId,
      note: entry.note,
      createdAtMs: entry.createdAtMs,
      grantedNanoUsd: entry.grantedNanoUsd,
      toppedUpNanoUsd: entry.toppedUpNanoUsd,
    })
    .from(entry)
    .where(and(during, eq(entry.kind, 'correction')))
    .orderBy(entry.id)
    .all();
}

/** A resolution takes back what its pending entry added, whichever piece that entry was in. */
function openHoldsOf(db: SyncDb, until: SQL | undefined, toMs: number): StatementPart['openHolds'] {
  const pending = alias(entry, 'pending_entry');
  const opened = db
    .select({ count: sql<number>`count(*)`, amountNanoUsd: sumOf(entry.amountNanoUsd) })
    .from(entry)
    .where(and(until, eq(entry.kind, 'pending')))
    .get();
  const resolved = db
    .select({ count: sql<number>`count(*)`, amountNanoUsd: sumOf(sql`${pending.amountNanoUsd}`) })
    .from(entry)
    .innerJoin(pending, eq(pending.id, entry.refersTo))
    .where(and(until, inArray(entry.kind, ['posted', 'voided']), lt(pending.createdAtMs, toMs)))
    .get();
  assert(opened !== undefined && resolved !== undefined, 'a sum over no rows is a row');
  return {
    count: opened.count - resolved.count,
    amountNanoUsd: opened.amountNanoUsd - resolved.amountNanoUsd,
  };
}
