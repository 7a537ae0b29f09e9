/** The batch of the current step, checked and laid out where the kernels read it. */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { checkColumns, sequencesOf } from '../batch.ts';
import type { Batch, BatchOps, SequenceRows } from '../batch.ts';
import { checkBlock, checkSameBlocks } from '../checks.ts';
import type { CacheShape } from '../shapes.ts';
import type { Arena } from './arena.ts';

/** Block table entries of a step, all its sequences together: 64 M tokens; 4 MiB of them. */
const tableEntriesMax = 1_048_576;

/** Adjacent rows of one sequence, and the address of its block table, [blocks] u32. */
export interface PlacedRows extends SequenceRows {
  readonly blockTable: number;
}

export class CpuStep implements BatchOps {
  readonly rowsMax: number;
  /** Addresses of [rowsMax] 4-byte elements. */
  readonly tokens: number;
  readonly positions: number;
  readonly slots: number;
  /** [rowsMax] addresses of each row's block table. */
  readonly blockTables: number;
  readonly #arena: Arena;
  /** [tableEntriesMax] u32 */
  readonly #tables: number;
  #shape: CacheShape | null = null;
  #current: { batch: Batch; sequences: readonly PlacedRows[] } | null = null;

  constructor(arena: Arena, rowsMax: number) {
    this.#arena = arena;
    this.rowsMax = rowsMax;
    const column = (what: string) => arena.allocate(rowsMax * 4, 'activation', `a step's ${what}`);
    this.tokens = column('tokens');
    this.positions = column('positions');
    this.slots = column('slots');
    this.blockTables = column('block tables');
    this.#tables = arena.allocate(tableEntriesMax * 4, 'activation', 'block tables');
  }

  /** Tells which blocks there are; from then on batches are checked against them. */
  useCaches(shape: CacheShape): void {
    checkSameBlocks(this.#shape, shape);
    this.#shape = shape;
  }

  begin(batch: Batch): void {
    checkColumns(batch, this.rowsMax);
    const { i32 } = this.#arena;
    i32.set(batch.tokens, this.tokens / 4);
    i32.set(batch.positions, this.positions / 4);
    i32.set(batch.slots, this.slots / 4);
    this.#current = { batch, sequences: this.#shape === null ? [] : this.#sequencesOf(batch) };
  }

  /** The CPU gains nothing from launches that are captured: it calls the ops of every step. */
  captureOrReplay(ops: () => void): void {
    ops();
  }

  guarded(_property: string, read: (batch: Batch) => number): number {
    return read(this.batch);
  }

  /** Rows of the current step. */
  get rows(): number {
    return this.batch.tokens.length;
  }

  get batch(): Batch {
    assert(this.#current !== null, 'an op that reads the batch ran before batch.begin');
    return this.#current.batch;
  }

  /** The batch's rows by sequence; needs caches. */
  get sequences(): readonly PlacedRows[] {
    assert(this.#current !== null, 'an op that reads the batch ran before batch.begin');
    assert(this.#shape !== null, 'an op that reads caches ran before they were made');
    return this.#current.sequences;
  }

  #sequencesOf(batch: Batch): PlacedRows[] {
    const places = this.#copyTables(batch.blockTables);
    return sequencesOf(batch).map((rows) => {
      const blockTable = at(places, rows.sequence);
      const start = this.blockTables / 4 + rows.rowStart;
      this.#arena.u32.fill(blockTable, start, start + rows.rowCount);
      return { ...rows, blockTable };
    });
  }

  /** Addresses of the tables' copies. */
  #copyTables(tables: readonly Int32Array[]): number[] {
    const blocks = this.#shape?.blocks ?? 0;
    let entries = 0;
    return tables.map((table) => {
      const place = this.#tables + entries * 4;
      entries += table.length;
      assert(entries <= tableEntriesMax, 'the block tables of a step do not fit');
      for (const block of table) checkBlock(block, blocks);
      this.#arena.i32.set(table, place / 4);
      return place;
    });
  }
}
