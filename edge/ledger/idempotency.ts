/**
 * Idempotency keys, per API key: the first request under a key runs, the same request again is told
 * that it runs and later gets the stored answer, another request under it is refused. Kept for 24 hours; answers of at most
 * 1 MiB each and 64 MiB together, oldest dropped first. A dropped answer leaves its row, so that the
 * request is still never billed twice; only beyond 50,000 rows within the 24 hours do rows go early.
 */
import { strict as assert } from 'node:assert';
import { and, eq, sql } from 'drizzle-orm';
import { idempotency, idempotencySize } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { AdmitResult, StoredAnswer } from '../tenant/admission-contract.ts';

export interface IdempotencyBounds {
  readonly keepMs: number;
  readonly answerBytesMax: number;
  readonly bodyBytesMax: number;
  readonly rowsMax: number;
}

export const idempotencyBounds: IdempotencyBounds = {
  keepMs: 24 * 3_600_000,
  answerBytesMax: 1024 * 1024,
  bodyBytesMax: 64 * 1024 * 1024,
  rowsMax: 50_000,
};

/** Rows looked at per clean-up; each new key cleans up at most so many, so none waits for a sweep. */
const batchRows = 16;

interface Named {
  readonly keyId: string;
  readonly idempotencyKey: string;
}

export type Idempotency = ReturnType<typeof createIdempotency>;

/** Call everything inside a transaction. */
export function createIdempotency(db: SyncDb, bounds: IdempotencyBounds = idempotencyBounds) {
  const named = and(
    eq(idempotency.keyId, sql.placeholder('keyId')),
    eq(idempotency.idempotencyKey, sql.placeholder('idempotencyKey')),
  );
  const find = db.select().from(idempotency).where(named).prepare();
  const finish = db
    .update(idempotency)
    .set({
      state: sql`${sql.placeholder('state')}`,
      status: sql`${sql.placeholder('status')}`,
      contentType: sql`${sql.placeholder('contentType')}`,
      headers: sql`${sql.placeholder('headers')}`,
      body: sql`${sql.placeholder('body')}`,
      bodyBytes: sql`${sql.placeholder('bodyBytes')}`,
    })
    .where(named)
    .prepare();

  /** What to say instead of running the request; null when it is to run. */
  function seen(
    request: Named & {
      readonly requestHash: string;
      readonly afterEvent: number;
      readonly nowMs: number;
    },
  ): Exclude<AdmitResult, { kind: 'admitted' }> | null {
    const { afterEvent } = request;
    const row = find.get({ keyId: request.keyId, idempotencyKey: request.idempotencyKey });
    if (row === undefined || expired(row, request.nowMs)) {
      // Another answer would not go on where the one that the client has broke off.
      return afterEvent > 0 ? refused({ kind: 'idempotency-no-event', afterEvent }) : null;
    }
    if (row.requestHash !== request.requestHash) return refused({ kind: 'idempotency-mismatch' });
    if (row.state === 'in-flight') return { kind: 'running', requestId: row.requestId };
    if (row.state === 'no-answer' || row.status === null || row.body === null) {
      return refused({ kind: 'idempotency-no-answer', requestId: row.requestId });
    }
    const { status, contentType, body, headers } = row;
    const answer = { status, contentType: contentType ?? '', body, headers: headers ?? {} };
    return { kind: 'replay', answer };
  }

  /** Whether the request that has the key is under way, or was billed. */
  function knows(request: Named, nowMs: number): boolean {
    const row = find.get({ keyId: request.keyId, idempotencyKey: request.idempotencyKey });
    return row !== undefined && !expired(row, nowMs);
  }

  /** Claims the key for an admitted request, after `seen` said null. */
  function begin(
    request: Named & {
      readonly requestHash: string;
      readonly requestId: string;
      readonly nowMs: number;
    },
  ): void {
    const { nowMs, ...row } = request;
    remove(request);
    db.insert(idempotency)
      .values({ ...row, state: 'in-flight', bodyBytes: 0, createdAtMs: nowMs })
      .run();
    resize({ rows: 1, bodyBytes: 0 });
    cleanUp(nowMs);
  }

  /** Keeps the answer of a billed request, or, when there is none to keep, that it was billed. */
  function answered(request: Named, answer: StoredAnswer | null): void {
    const bodyBytes = answer === null ? 0 : Buffer.byteLength(answer.body);
    const kept = answer !== null && bodyBytes <= bounds.answerBytesMax ? answer : null;
    const { keyId, idempotencyKey } = request;
    if (find.get({ keyId, idempotencyKey }) === undefined) return;
    finish.run({
      keyId,
      idempotencyKey,
      state: kept === null ? 'no-answer' : 'answered',
      status: kept?.status ?? null,
      contentType: kept?.contentType ?? null,
      headers: kept === null ? null : JSON.stringify(kept.headers),
      body: kept?.body ?? null,
      bodyBytes: kept === null ? 0 : bodyBytes,
    });
    if (kept === null) return;
    resize({ rows: 0, bodyBytes });
    dropOldAnswers();
  }

  /** Frees the key of a request that was not billed: it may run again. */
  function remove(request: Named): void {
    const { keyId, idempotencyKey } = request;
    const gone = db
      .delete(idempotency)
      .where(and(eq(idempotency.keyId, keyId), eq(idempotency.idempotencyKey, idempotencyKey)))
      .returning({ bodyBytes: idempotency.bodyBytes })
      .get();
    if (gone !== undefined) resize({ rows: -1, bodyBytes: 0 - gone.bodyBytes });
  }

  /** A request in flight keeps its key however long it takes: its hold decides. */
  function expired(row: typeof idempotency.$inferSelect, nowMs: number): boolean {
    return row.state !== 'in-flight' && nowMs - row.createdAtMs > bounds.keepMs;
  }

  function cleanUp(nowMs: number): void {
    const excess = size().rows - bounds.rowsMax;
    const old = db
      .select()
      .from(idempotency)
      .where(sql`${idempotency.state} <> 'in-flight'`)
      .orderBy(idempotency.createdAtMs)
      .limit(batchRows)
      .all();
    old.filter((row, index) => index < excess || expired(row, nowMs)).forEach((row) => remove(row));
  }

  function dropOldAnswers(): void {
    while (size().bodyBytes > bounds.bodyBytesMax) {
      const oldest = db
        .select()
        .from(idempotency)
        .where(sql`${idempotency.state} = 'answered'`)
        .orderBy(idempotency.createdAtMs)
        .limit(1)
        .get();
      assert(oldest !== undefined, 'bytes that are kept belong to an answer');
      finish.run({
        keyId: oldest.keyId,
        idempotencyKey: oldest.idempotencyKey,
        state: 'no-answer',
        status: null,
        contentType: null,
        headers: null,
        body: null,
        bodyBytes: 0,
      });
      resize({ rows: 0, bodyBytes: 0 - oldest.bodyBytes });
    }
  }

  function size(): { rows: number; bodyBytes: number } {
    const row = db.select().from(idempotencySize).get();
    assert(row !== undefined, 'the size of what is kept is a row');
    return row;
  }

  function resize(by: { readonly rows: number; readonly bodyBytes: number }): void {
    db.update(idempotencySize)
      .set({
        rows: sql`${idempotencySize.rows} + ${by.rows}`,
        bodyBytes: sql`${idempotencySize.bodyBytes} + ${by.bodyBytes}`,
      })
      .run();
  }

  return { seen, knows, begin, answered, remove };
}

function refused(
  reason: Extract<AdmitResult, { kind: 'refused' }>['reason'],
): Exclude<AdmitResult, { kind: 'admitted' }> {
  return { kind: 'refused', reason, limits: null };
}
