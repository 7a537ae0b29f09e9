/**
 * Responses that their requests asked to store. Each is kept for 30 days after its last use: when
 * it was made, or a request went on from it. All of a tenant's have at most 64 MiB together and
 * 50,000 rows; the one that was not used for the longest time goes first.
 */
import { strict as assert } from 'node:assert';
import { asc, eq, sql } from 'drizzle-orm';
import { storedResponse, storedResponseSize } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { NewStoredResponse } from '../dialects/answer-format.ts';
import type { StoredNames } from '../dialects/inference-request.ts';
import type { EarlierFound, StoredResponse } from '../tenant/stored-response-contract.ts';

export interface StoredResponseBounds {
  readonly keepMs: number;
  readonly bytesMax: number;
  readonly rowsMax: number;
  /** A request goes on from so many bytes of items at most. */
  readonly historyBytesMax: number;
}

export const storedResponseBounds: StoredResponseBounds = {
  keepMs: 30 * 24 * 3_600_000,
  bytesMax: 64 * 1024 * 1024,
  rowsMax: 50_000,
  historyBytesMax: 4 * 1024 * 1024,
};

/** Expired rows that go with each new one at most. */
const batchRows = 16;
const responsesInHistoryMax = 1_000;

type Row = typeof storedResponse.$inferSelect;

/** Call everything inside a transaction. */
export class StoredResponses {
  readonly #db: SyncDb;
  readonly #bounds: StoredResponseBounds;

  constructor(db: SyncDb, bounds: StoredResponseBounds = storedResponseBounds) {
    this.#db = db;
    this.#bounds = bounds;
  }

  /** A response that was stored under its id before stays as it is. */
  store(response: NewStoredResponse, nowMs: number): void {
    const bytes = Buffer.byteLength(response.input) + Buffer.byteLength(response.response);
    const added = this.#db
      .insert(storedResponse)
      .values({ ...response, bytes, createdAtMs: nowMs, usedAtMs: nowMs })
      .onConflictDoNothing()
      .returning({ id: storedResponse.id })
      .get();
    if (added === undefined) return;
    this.#resize({ rows: 1, bytes });
    this.#cleanUp(nowMs);
  }

  find(id: string, nowMs: number): StoredResponse | null {
    const row = this.#row(id, nowMs);
    return row && { response: row.response, input: row.input };
  }

  /** false when there is no such response. */
  remove(id: string, nowMs: number): boolean {
    const row = this.#row(id, nowMs);
    if (row !== null) this.#drop(row);
    return row !== null;
  }

  earlierItems({ previousId, itemIds }: StoredNames, nowMs: number): EarlierFound {
    const history: Row[] = [];
    let bytes = 0;
    for (let id = previousId; id !== null;) {
      const row = this.#row(id, nowMs);
      if (row === null) return { kind: 'no-response', id, after: history.at(-1)?.id ?? null };
      history.push(row);
      bytes += row.bytes;
      const isTooLong = bytes > this.#bounds.historyBytesMax;
      if (isTooLong || history.length > responsesInHistoryMax) return { kind: 'too-long' };
      id = row.previousId;
    }
    const items: Record<string, string> = {};
    for (const id of itemIds) {
      const found = this.#item(id, nowMs);
      if (found === null) return { kind: 'no-item', id };
      bytes += found.json.length;
      if (bytes > this.#bounds.historyBytesMax) return { kind: 'too-long' };
      items[id] = found.json;
      this.#use(found.responseId, nowMs);
    }
    for (const { id } of history) this.#use(id, nowMs);
    const all = history.toReversed().flatMap((row) => [...inputOf(row), ...outputOf(row)]);
    return { kind: 'found', earlier: { history: JSON.stringify(all), items } };
  }

  /** An item of an answer has the id of its response in its own. */
  #item(id: string, nowMs: number): { json: string; responseId: string } | null {
    const [, requestId] = /^(?:msg|fc|rs)_([0-9A-Za-z]+)_\d+$/.exec(id) ?? [];
    const row = requestId === undefined ? null : this.#row(`resp_${requestId}`, nowMs);
    const item = row && outputOf(row).find((each) => each.id === id);
    return row && item ? { json: JSON.stringify(item), responseId: row.id } : null;
  }

  #row(id: string, nowMs: number): Row | null {
    const row = this.#db.select().from(storedResponse).where(eq(storedResponse.id, id)).get();
    return row === undefined || this.#expired(row, nowMs) ? null : row;
  }

  #expired({ usedAtMs }: Pick<Row, 'usedAtMs'>, nowMs: number): boolean {
    return nowMs - usedAtMs > this.#bounds.keepMs;
  }

  #use(id: string, nowMs: number): void {
    this.#db.update(storedResponse).set({ usedAtMs: nowMs }).where(eq(storedResponse.id, id)).run();
  }

  #cleanUp(nowMs: number): void {
    for (let dropped = 0; ; dropped++) {
      const size = this.#db.select().from(storedResponseSize).get();
      assert(size !== undefined, 'the size of what is stored is a row');
      const isTooMuch = size.rows > this.#bounds.rowsMax || size.bytes > this.#bounds.bytesMax;
      const oldest = this.#db
        .select()
        .from(storedResponse)
        .orderBy(asc(storedResponse.usedAtMs))
        .limit(1)
        .get();
      if (oldest === undefined) return;
      if (!isTooMuch && (dropped >= batchRows || !this.#expired(oldest, nowMs))) return;
      this.#drop(oldest);
    }
  }

  #drop({ id, bytes }: Pick<Row, 'id' | 'bytes'>): void {
    this.#db.delete(storedResponse).where(eq(storedResponse.id, id)).run();
    this.#resize({ rows: -1, bytes: 0 - bytes });
  }

  #resize(by: { readonly rows: number; readonly bytes: number }): void {
    this.#db
      .update(storedResponseSize)
      .set({
        rows: sql`${storedResponseSize.rows} + ${by.rows}`,
        bytes: sql`${storedResponseSize.bytes} + ${by.bytes}`,
      })
      .run();
  }
}

interface WrittenItem {
  readonly id?: string;
}

function inputOf({ input }: Row): WrittenItem[] {
  // It was written as the JSON of a list of items.
  return JSON.parse(input) as WrittenItem[];
}

function outputOf({ response }: Row): WrittenItem[] {
  // It was written as the JSON of a response, which has its items.
  return (JSON.parse(response) as { readonly output: WrittenItem[] }).output;
}
