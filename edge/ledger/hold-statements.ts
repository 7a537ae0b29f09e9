/** The SQL of holds, prepared once: it runs twice for every request. */
import { and, eq, inArray, sql } from 'drizzle-orm';
import { account, entry, hold } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';

const value = (name: string) => sql`${sql.placeholder(name)}`;

/** Placeholders are named as their columns, so that a row is written by passing it. */
export function prepareHoldStatements(db: SyncDb) {
  return { ...accountStatements(db), ...entryStatements(db), ...holdStatements(db) };
}

function accountStatements(db: SyncDb) {
  const available = sql`${account.grantedNanoUsd} + ${account.toppedUpNanoUsd} - ${account.heldNanoUsd}`;
  return {
    account: db.select().from(account).prepare(),
    reserve: db
      .update(account)
      .set({ heldNanoUsd: sql`${account.heldNanoUsd} + ${sql.placeholder('amountNanoUsd')}` })
      .where(sql`${available} >= ${sql.placeholder('amountNanoUsd')}`)
      .returning({ id: account.id })
      .prepare(),
    charge: db
      .update(account)
      .set({
        grantedNanoUsd: sql`${account.grantedNanoUsd} - ${sql.placeholder('granted')}`,
        toppedUpNanoUsd: sql`${account.toppedUpNanoUsd} - ${sql.placeholder('toppedUp')}`,
        heldNanoUsd: sql`${account.heldNanoUsd} - ${sql.placeholder('held')}`,
      })
      .prepare(),
  };
}

function entryStatements(db: SyncDb) {
  return {
    insertPending: db
      .insert(entry)
      .values({
        kind: 'pending',
        requestId: value('requestId'),
        amountNanoUsd: value('amountNanoUsd'),
        grantedNanoUsd: 0,
        toppedUpNanoUsd: 0,
        model: value('model'),
        alias: value('alias'),
        revision: value('revision'),
        keyId: value('keyId'),
        priceId: value('priceId'),
        budgets: value('budgets'),
        budgetWindows: value('budgetWindows'),
        createdAtMs: value('nowMs'),
      })
      .returning({ id: entry.id })
      .prepare(),
    insertResolution: db
      .insert(entry)
      .values({
        kind: value('kind'),
        requestId: value('requestId'),
        refersTo: value('refersTo'),
        amountNanoUsd: value('amountNanoUsd'),
        grantedNanoUsd: value('grantedNanoUsd'),
        toppedUpNanoUsd: value('toppedUpNanoUsd'),
        model: value('model'),
        alias: value('alias'),
        keyId: value('keyId'),
        priceId: value('priceId'),
        priceInputCached: value('priceInputCached'),
        priceInputUncached: value('priceInputUncached'),
        priceOutput: value('priceOutput'),
        inputUncached: value('inputUncached'),
        inputCached: value('inputCached'),
        outputText: value('outputText'),
        outputReasoning: value('outputReasoning'),
        predictedCachedBytes: value('predictedCachedBytes'),
        cacheMissReason: value('cacheMissReason'),
        excessNanoUsd: value('excessNanoUsd'),
        outcome: value('outcome'),
        worker: value('worker'),
        note: value('note'),
        budgets: value('budgets'),
        budgetWindows: value('budgetWindows'),
        extendedNanoUsd: value('extendedNanoUsd'),
        createdAtMs: value('nowMs'),
      })
      .prepare(),
    resolution: db
      .select()
      .from(entry)
      .where(
        and(
          eq(entry.requestId, sql.placeholder('requestId')),
          inArray(entry.kind, ['posted', 'voided']),
        ),
      )
      .prepare(),
  };
}

function holdStatements(db: SyncDb) {
  return {
    insertHold: db
      .insert(hold)
      .values({
        requestId: value('requestId'),
        entryId: value('entryId'),
        keyId: value('keyId'),
        model: value('model'),
        alias: value('alias'),
        amountNanoUsd: value('amountNanoUsd'),
        priceId: value('priceId'),
        priceInputCached: value('priceInputCached'),
        priceInputUncached: value('priceInputUncached'),
        priceOutput: value('priceOutput'),
        tokensReserved: value('tokensReserved'),
        idempotencyKey: value('idempotencyKey'),
        budgets: value('budgets'),
        budgetWindows: value('budgetWindows'),
        openedAtMs: value('nowMs'),
      })
      .prepare(),
    place: db
      .update(hold)
      .set({ worker: value('worker'), epoch: value('epoch'), workerUrl: value('workerUrl') })
      .where(eq(hold.requestId, sql.placeholder('requestId')))
      .returning({ requestId: hold.requestId })
      .prepare(),
    open: db
      .select({ amountNanoUsd: hold.amountNanoUsd, budgetWindows: hold.budgetWindows })
      .from(hold)
      .where(eq(hold.requestId, sql.placeholder('requestId')))
      .prepare(),
    extend: db
      .update(hold)
      .set({
        amountNanoUsd: sql`${hold.amountNanoUsd} + ${sql.placeholder('amountNanoUsd')}`,
        extendedNanoUsd: sql`${hold.extendedNanoUsd} + ${sql.placeholder('amountNanoUsd')}`,
      })
      .where(eq(hold.requestId, sql.placeholder('requestId')))
      .prepare(),
    take: db
      .delete(hold)
      .where(eq(hold.requestId, sql.placeholder('requestId')))
      .returning()
      .prepare(),
  };
}
