/**
 * Remembers which worker probably holds the KV of which prefix. It is a hint for placement and for
 * the price quoted, never for the bill. Rows live 600 s after a placement that nothing confirmed
 * and 3,600 s after the worker confirmed; a row is written again only when less than half of its
 * life remains.
 */
import { strict as assert } from 'node:assert';
import type { SyncDb } from '../../db/types.ts';
import type { PrefixHit, PrefixKey } from '../tenant/admission-contract.ts';
import { preparePrefixStatements } from './prefix-statements.ts';

export const expectedMs = 600_000;
export const confirmedMs = 3_600_000;
/** Rows per tenant; at 12 rows for a 64 KiB prompt, some 16,000 conversations. */
export const prefixRowsMax = 200_000;
/** Keys of one chain that are indexed: 64 MiB of prompt. */
const chainKeysMax = 8_192;
/** Expired rows that a write takes away besides what it must evict. */
const sweepRows = 32;

interface Holder {
  readonly worker: string;
  readonly epoch: number;
}

/** Call everything inside a transaction. */
export class PrefixIndex {
  readonly #statements: ReturnType<typeof preparePrefixStatements>;
  readonly #rowsMax: number;

  constructor(db: SyncDb, rowsMax: number = prefixRowsMax) {
    this.#statements = preparePrefixStatements(db);
    this.#rowsMax = rowsMax;
  }

  /** Finds the deepest chunk on each worker, by one query. */
  lookup(chain: readonly PrefixKey[], nowMs: number): PrefixHit[] {
    if (chain.length === 0) return [];
    const keys = keyList(chain);
    return this.#statements.lookup.all({ keys, nowMs, latestMs: nowMs + confirmedMs });
  }

  /** A request was placed there: the worker is expected to hold its prompt soon. */
  expect(holder: Holder, chain: readonly PrefixKey[], nowMs: number): void {
    if (chain.length === 0) return;
    this.#write(this.#currentId(holder, nowMs), chain, { nowMs, lifeMs: expectedMs });
  }

  /** The worker finished and holds the chain. One that has restarted since holds nothing. */
  confirm(holder: Holder, chain: readonly PrefixKey[], nowMs: number): void {
    if (chain.length === 0) return;
    const known = this.#statements.worker.get({ worker: holder.worker });
    if (known?.epoch !== holder.epoch) return;
    this.#write(this.#currentId(holder, nowMs), chain, { nowMs, lifeMs: confirmedMs });
  }

  /**
   * The number of the worker in this epoch. A new epoch gets a new one, and the old rows mean
   * nothing.
   */
  #currentId(holder: Holder, nowMs: number): number {
    const known = this.#statements.worker.get({ worker: holder.worker });
    if (known?.epoch === holder.epoch) {
      const unseenMs = nowMs - known.seenAtMs;
      if (unseenMs < 0 || unseenMs > expectedMs) this.#statements.see.run({ id: known.id, nowMs });
      return known.id;
    }
    if (known !== undefined) this.#statements.forget.run({ id: known.id });
    // All rows of a worker unseen for longer than a row can live have expired.
    this.#statements.forgetUnseen.run({ beforeMs: nowMs - 2 * confirmedMs });
    const added = this.#statements.addWorker.get({ ...holder, nowMs });
    assert(added !== undefined, 'an inserted worker has an id');
    return added.id;
  }

  #write(
    id: number,
    chain: readonly PrefixKey[],
    life: { readonly nowMs: number; readonly lifeMs: number },
  ): void {
    const { nowMs, lifeMs } = life;
    const kept = chain.slice(0, Math.min(chainKeysMax, this.#rowsMax));
    const present = this.#statements.present.all({ keys: keyList(kept), id });
    const lasting = new Set(
      present
        .filter(({ expiresAtMs: at }) => at >= nowMs + lifeMs / 2 && at <= nowMs + confirmedMs)
        .map(({ bytes }) => bytes),
    );
    const due = kept.filter(({ bytes }) => !lasting.has(bytes));
    // The usual case of a conversation that goes on: what it had before is not written again.
    if (due.length === 0) return;
    const pairs = JSON.stringify(due.map(({ key, bytes }) => [key, bytes]));
    this.#statements.write.run({ pairs, id, expiresAtMs: nowMs + lifeMs });
    const added = kept.length - present.length;
    const latestMs = nowMs + confirmedMs;
    const swept = this.#statements.sweep.all({ nowMs, latestMs, limit: sweepRows }).length;
    const excess = this.rows() + added - swept - this.#rowsMax;
    const evicted = excess > 0 ? this.#statements.evict.all({ limit: excess }).length : 0;
    const change = added - swept - evicted;
    if (change !== 0) this.#statements.resize.run({ change });
  }

  rows(): number {
    const size = this.#statements.size.get();
    assert(size !== undefined, 'the size of the index is a row');
    return size.rows;
  }
}

function keyList(chain: readonly PrefixKey[]): string {
  const keys = chain.slice(0, chainKeysMax).map(({ key }) => key);
  return `["${keys.join('","')}"]`;
}
