/**
 * Sends rows to the ranks that have their experts, and what the experts make of them back. The
 * ranks that share a group's heads have the same rows: a row goes to an expert's rank once, from
 * the rank that has the same place in its group, and the outcome goes to all ranks of the row's
 * group.
 */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import type { SharedRanks } from './shared-ranks.ts';

/** The rows of a group, and the experts that they go to. */
export interface RoutedRows {
  readonly rows: number;
  readonly hidden: number;
  /** [rows, perToken], by their numbers among all experts. */
  readonly chosen: Int32Array;
  rowOf(row: number): Float32Array;
}

/** Rows that came to this rank's experts: those of rank 0 first, in each rank's own order. */
export interface ArrivedRows {
  /** [count], by their numbers on this rank. */
  readonly experts: Int32Array;
  /** [count][hidden] */
  readonly values: readonly Float32Array[];
  /** The number that came from each rank. */
  readonly perRank: readonly number[];
}

export class ExpertExchange {
  readonly #ranks: SharedRanks;
  readonly #groupSize: number;
  /** Experts of a rank. */
  readonly #count: number;

  constructor(ranks: SharedRanks, options: { groupSize: number; count: number }) {
    this.#ranks = ranks;
    this.#groupSize = options.groupSize;
    this.#count = options.count;
  }

  /** Sends each row to the ranks of its experts, once for each expert. */
  dispatch({ rows, hidden, chosen, rowOf }: RoutedRows): ArrivedRows {
    const entry = hidden + 1;
    const perToken = chosen.length / Math.max(rows, 1);
    const parts = this.#slotsByOwner(chosen).map((slots, owner) => {
      if (owner % this.#groupSize !== this.#place) return new Float32Array();
      const part = new Float32Array(slots.length * entry);
      for (const [i, slot] of slots.entries()) {
        // The expert's number is exact in a float.
        part[i * entry] = at(chosen, slot) - owner * this.#count;
        part.set(rowOf(Math.floor(slot / perToken)), i * entry + 1);
      }
      return part;
    });
    const came = this.#ranks.exchange(parts);
    const perRank = came.map(({ length }) => length / entry);
    const entries = came.flatMap((part, rank) =>
      Array.from({ length: at(perRank, rank) }, (_, i) =>
        part.subarray(i * entry, (i + 1) * entry),
      ),
    );
    return {
      experts: Int32Array.from(entries, (each) => at(each, 0)),
      values: entries.map((each) => each.subarray(1)),
      perRank,
    };
  }

  /**
   * Sends what the experts made of the rows that arrived ([count, hidden]) to their groups, and
   * hands what came of this group's own to `take`, by row * perToken + choice.
   */
  combine(
    { hidden, chosen }: RoutedRows,
    arrived: ArrivedRows,
    outputs: Float32Array,
    take: (slot: number, output: Float32Array) => void,
  ): void {
    const ofGroup = this.#byGroup(arrived, outputs, hidden);
    const { size } = this.#ranks;
    const parts = Array.from({ length: size }, (_, rank) =>
      at(ofGroup, Math.floor(rank / this.#groupSize)),
    );
    const came = this.#ranks.exchange(parts);
    for (const [owner, slots] of this.#slotsByOwner(chosen).entries()) {
      const part = at(came, owner);
      assert(part.length === slots.length * hidden, 'every row that was sent comes back');
      for (const [i, slot] of slots.entries()) {
        take(slot, part.subarray(i * hidden, (i + 1) * hidden));
      }
    }
  }

  /** The outputs for each group: it sent its rows through the rank of this one's place. */
  #byGroup({ perRank }: ArrivedRows, outputs: Float32Array, hidden: number): Float32Array[] {
    const groups: Float32Array[] = [];
    let start = 0;
    for (const [rank, count] of perRank.entries()) {
      const end = start + count * hidden;
      if (rank % this.#groupSize === this.#place) groups.push(outputs.subarray(start, end));
      start = end;
    }
    return groups;
  }

  /** For each rank, row * perToken + choice of those that go to its experts, ascending. */
  #slotsByOwner(chosen: Int32Array): number[][] {
    const slots = Array.from({ length: this.#ranks.size }, (): number[] => []);
    for (const [slot, expert] of chosen.entries()) {
      at(slots, Math.floor(expert / this.#count)).push(slot);
    }
    return slots;
  }

  /** The place of this rank in its group. */
  get #place(): number {
    return this.#ranks.rank % this.#groupSize;
  }
}
