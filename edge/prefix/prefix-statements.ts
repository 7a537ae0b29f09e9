/**
 * The SQL of the prefix index, prepared once. Times are Unix milliseconds, `keys` and `pairs` JSON.
 */
import { and, eq, gt, lte, sql } from 'drizzle-orm';
import { prefixChunk, prefixSize, prefixWorker } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';

const { key, worker, bytes, expiresAtMs } = prefixChunk;
const placeholder = sql.placeholder;

export function preparePrefixStatements(db: SyncDb) {
  return { ...workerStatements(db), ...readStatements(db), ...writeStatements(db) };
}

function workerStatements(db: SyncDb) {
  return {
    worker: db
      .select()
      .from(prefixWorker)
      .where(eq(prefixWorker.worker, placeholder('worker')))
      .prepare(),
    see: db
      .update(prefixWorker)
      .set({ seenAtMs: sql`${placeholder('nowMs')}` })
      .where(eq(prefixWorker.id, placeholder('id')))
      .prepare(),
    forget: db
      .delete(prefixWorker)
      .where(eq(prefixWorker.id, placeholder('id')))
      .prepare(),
    forgetUnseen: db
      .delete(prefixWorker)
      .where(lte(prefixWorker.seenAtMs, placeholder('beforeMs')))
      .prepare(),
    addWorker: db
      .insert(prefixWorker)
      .values({
        worker: placeholder('worker'),
        epoch: placeholder('epoch'),
        seenAtMs: placeholder('nowMs'),
      })
      .returning({ id: prefixWorker.id })
      .prepare(),
  };
}

function readStatements(db: SyncDb) {
  return {
    size: db.select({ rows: prefixSize.rows }).from(prefixSize).prepare(),
    // CROSS JOIN keeps the short list of keys outermost: one search of the b-tree per key.
    lookup: db
      .select({
        worker: prefixWorker.worker,
        epoch: prefixWorker.epoch,
        bytes: sql<number>`max(${bytes})`,
      })
      .from(sql`json_each(${placeholder('keys')}) AS wanted`)
      .crossJoin(prefixChunk)
      .innerJoin(prefixWorker, eq(prefixWorker.id, worker))
      .where(
        and(
          sql`${key} = unhex(wanted.value)`,
          gt(expiresAtMs, placeholder('nowMs')),
          lte(expiresAtMs, placeholder('latestMs')),
        ),
      )
      .groupBy(worker)
      .prepare(),
    present: db
      .select({ bytes, expiresAtMs })
      .from(sql`json_each(${placeholder('keys')}) AS wanted`)
      .crossJoin(prefixChunk)
      .where(and(sql`${key} = unhex(wanted.value)`, eq(worker, placeholder('id'))))
      .prepare(),
  };
}

function writeStatements(db: SyncDb) {
  // A row that expires later than any can be written was written under a clock that ran ahead.
  const expired = sql`(${expiresAtMs} <= ${placeholder('nowMs')} OR ${expiresAtMs} > ${placeholder('latestMs')})`;
  return {
    resize: db
      .update(prefixSize)
      .set({ rows: sql`${prefixSize.rows} + ${placeholder('change')}` })
      .prepare(),
    write: db
      .insert(prefixChunk)
      .select(
        sql`SELECT unhex(value ->> 0), ${placeholder('id')}, value ->> 1, ${placeholder('expiresAtMs')}
          FROM json_each(${placeholder('pairs')}) WHERE true`,
      )
      .onConflictDoUpdate({
        target: [key, worker],
        set: { expiresAtMs: sql`excluded.expires_at_ms` },
      })
      .prepare(),
    sweep: db
      .delete(prefixChunk)
      .where(
        sql`(${key}, ${worker}) IN (SELECT ${key}, ${worker} FROM ${prefixChunk}
          WHERE ${expired} LIMIT ${placeholder('limit')})`,
      )
      .returning({ bytes })
      .prepare(),
    evict: db
      .delete(prefixChunk)
      .where(
        sql`(${key}, ${worker}) IN (SELECT ${key}, ${worker} FROM ${prefixChunk}
          ORDER BY ${expiresAtMs} LIMIT ${placeholder('limit')})`,
      )
      .returning({ bytes })
      .prepare(),
  };
}
