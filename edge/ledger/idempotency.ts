/**
 * Idempotency keys, per API key: the first request under a key runs, the same request again is told
 * that it runs and later gets the stored answer, another request under it is refused. Keys are kept
 * for 24 hours, and answers of at most 1 MiB each and 64 MiB together, the oldest dropped first. A
 * dropped answer leaves its row, so that the request is still never billed twice; only beyond
 * 50,000 rows within the 24 hours do rows go early.
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

/**
 * Rows looked at per clean-up; each new key cleans up at most so many, so none waits for a sweep.
 */
const batchRows = 16;

interface Named {
  readonly keyId: string;
  readonly idempotencyKey: string;
}

/** Call everything inside a transaction. */
export class Idempotency {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareIdempotencyStatements>;
  readonly #bounds: IdempotencyBounds;

  constructor(db: SyncDb, bounds: IdempotencyBounds = idempotencyBounds) {
    this.#db = db;
    this.#statements = prepareIdempotencyStatements(db);
    this.#bounds = bounds;
  }

  /** Decides what to say instead of running the request; null when it is to run. */
  seen(
    request: Named & {
      readonly requestHash: string;
      readonly afterEvent: number;
      readonly nowMs: number;
    },
  ): Exclude<AdmitResult, { kind: 'admitted' }> | null {
    const { afterEvent } = request;
    const row = this.#statements.find.get({
      keyId: request.keyId,
      idempotencyKey: request.idempotencyKey,
    });
    if (row === undefined || this.#expired(row, request.nowMs)) {
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

  /** true when the request that has the key is under way, or was billed. */
  knows(request: Named, nowMs: number): boolean {
    const row = this.#statements.find.get({
      keyId: request.keyId,
      idempotencyKey: request.idempotencyKey,
    });
    return row !== undefined && !this.#expired(row, nowMs);
  }

  /** Claims the key for an admitted request, after `seen` said null. */
  begin(
    request: Named & {
      readonly requestHash: string;
      readonly requestId: string;
      readonly nowMs: number;
    },
  ): void {
    const { nowMs, ...row } = request;
    this.remove(request);
    this.#db
      .insert(idempotency)
      .values({ ...row, state: 'in-flight', bodyBytes: 0, createdAtMs: nowMs })
      .run();
    this.#resize({ rows: 1, bodyBytes: 0 });
    this.#cleanUp(nowMs);
  }

  /** Keeps the answer of a billed request, or, when there is none to keep, that it was billed. */
  answered(request: Named, answer: StoredAnswer | null): void {
    const bodyBytes = answer === null ? 0 : Buffer.byteLength(answer.body);
    const kept = answer !== null && bodyBytes <= this.#bounds.answerBytesMax ? answer : null;
    const { keyId, idempotencyKey } = request;
    if (this.#statements.find.get({ keyId, idempotencyKey }) === undefined) return;
    this.#statements.finish.run({
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
    this.#resize({ rows: 0, bodyBytes });
    this.#dropOldAnswers();
  }

  /** Frees the key of a request that was not billed: it may run again. */
  remove(request: Named): void {
    const { keyId, idempotencyKey } = request;
    const gone = this.#db
      .delete(idempotency)
      .where(and(eq(idempotency.keyId, keyId), eq(idempotency.idempotencyKey, idempotencyKey)))
      .returning({ bodyBytes: idempotency.bodyBytes })
      .get();
    if (gone !== undefined) this.#resize({ rows: -1, bodyBytes: 0 - gone.bodyBytes });
  }

  /** A request in flight keeps its key however long it takes: its hold decides. */
  #expired(row: typeof idempotency.$inferSelect, nowMs: number): boolean {
    return row.state !== 'in-flight' && nowMs - row.createdAtMs > this.#bounds.keepMs;
  }

  #cleanUp(nowMs: number): void {
    const excess = this.#size().rows - this.#bounds.rowsMax;
    const old = this.#db
      .select()
      .from(idempotency)
      .where(sql`${idempotency.state} <> 'in-flight'`)
      .orderBy(idempotency.createdAtMs)
      .limit(batchRows)
      .all();
    old
      .filter((row, index) => index < excess || this.#expired(row, nowMs))
      .forEach((row) => this.remove(row));
  }

  #dropOldAnswers(): void {
    while (this.#size().bodyBytes > this.#bounds.bodyBytesMax) {
      const oldest = this.#db
        .select()
        .from(idempotency)
        .where(sql`${idempotency.state} = 'answered'`)
        .orderBy(idempotency.createdAtMs)
        .limit(1)
        .get();
      assert(oldest !== undefined, 'bytes that are kept belong to an answer');
      this.#statements.finish.run({
        keyId: oldest.keyId,
        idempotencyKey: oldest.idempotencyKey,
        state: 'no-answer',
        status: null,
        contentType: null,
        headers: null,
        body: null,
        bodyBytes: 0,
      });
      this.#resize({ rows: 0, bodyBytes: 0 - oldest.bodyBytes });
    }
  }

  #size(): { rows: number; bodyBytes: number } {
    const row = this.#db.select().from(idempotencySize).get();
    assert(row !== undefined, 'the size of what is kept is a row');
    return row;
  }

  #resize(by: { readonly rows: number; readonly bodyBytes: number }): void {
    this.#db
      .update(idempotencySize)
      .set({
        rows: sql`${idempotencySize.rows} + ${by.rows}`,
        bodyBytes: sql`${idempotencySize.bodyBytes} + ${by.bodyBytes}`,
      })
      .run();
  }
}

function prepareIdempotencyStatements(db: SyncDb) {
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
  return { find, finish };
}

function refused(
  reason: Extract<AdmitResult, { kind: 'refused' }>['reason'],
): Exclude<AdmitResult, { kind: 'admitted' }> {
  return { kind: 'refused', reason, limits: null };
}
