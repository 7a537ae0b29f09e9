/** Reads what the ledger says of one request: its hold, what settled it, and corrections since. */
import { strict as assert } from 'node:assert';
import { and, asc, eq, inArray } from 'drizzle-orm';
import { entry } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { BilledRequest } from '../tenant/report-contract.ts';

type EntryRow = typeof entry.$inferSelect;

/** Corrections that are listed at most: each is the act of an operator. */
const correctionsMax = 1_000;

/** Call it inside a transaction. */
export function readBilledRequest(db: SyncDb, requestId: string): BilledRequest {
  const rows = db
    .select()
    .from(entry)
    .where(
      and(eq(entry.requestId, requestId), inArray(entry.kind, ['pending', 'posted', 'voided'])),
    )
    .all();
  const pending = rows.find(({ kind }) => kind === 'pending');
  if (pending === undefined) return { kind: 'missing' };
  const settled = rows.find(({ kind }) => kind !== 'pending');
  if (settled === undefined) return { kind: 'open' };
  return { kind: 'settled', ...toSettled(pending, settled), corrections: corrections(db, settled) };
}

function toSettled(pending: EntryRow, settled: EntryRow) {
  const { requestId, model, keyId, priceId } = settled;
  const { priceInputCached, priceInputUncached, priceOutput } = settled;
  assert(requestId !== null && model !== null && keyId !== null, 'it names request, model and key');
  assert(priceId !== null && priceInputCached !== null, 'it names its price');
  assert(priceInputUncached !== null && priceOutput !== null, 'its price is whole');
  return {
    requestId,
    entryId: settled.id,
    status: settled.kind === 'voided' ? ('voided' as const) : ('posted' as const),
    outcome: settled.outcome,
    keyId,
    model,
    alias: settled.alias,
    revision: pending.revision,
    price: {
      id: priceId,
      inputCached: priceInputCached,
      inputUncached: priceInputUncached,
      output: priceOutput,
    },
    usage: {
      inputUncached: settled.inputUncached ?? 0,
      inputCached: settled.inputUncached === null ? 0 : settled.inputCached,
      outputText: settled.outputText ?? 0,
      outputReasoning: settled.outputReasoning ?? 0,
    },
    costNanoUsd: 0 - settled.amountNanoUsd,
    excessNanoUsd: settled.excessNanoUsd ?? 0,
    worker: settled.worker,
    cacheMissReason: settled.cacheMissReason,
    admittedAtMs: pending.createdAtMs,
    settledAtMs: settled.createdAtMs,
  };
}

function corrections(db: SyncDb, settled: EntryRow) {
  return db
    .select({
      id: entry.id,
      amountNanoUsd: entry.amountNanoUsd,
      createdAtMs: entry.createdAtMs,
    })
    .from(entry)
    .where(and(eq(entry.kind, 'correction'), eq(entry.refersTo, settled.id)))
    .orderBy(asc(entry.id))
    .limit(correctionsMax)
    .all();
}
