/** The batch of the current step, checked and laid out where the kernels read it. */
import assert from 'node:assert/strict';
import { type Batch, blockTokens, type CacheShape } from '../backend.ts';
import type { Arena } from './arena.ts';

/** Block table entries of a step, all its sequences together: 64 M tokens; 4 MiB of them. */
const tableEntriesMax = 1_048_576;

/** Adjacent rows of one sequence. */
export interface SequenceRows {
  readonly rowStart: number;
  readonly rowCount: number;
  /** Address of the sequence's block table, [blocks] u32. */
  readonly blockTable: number;
  /** Tokens that its last row sees. */
  readonly tokens: number;
}

export class Step {
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
  #current: { batch: Batch; sequences: readonly SequenceRows[] } | null = null;

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
    assert(
      this.#shape === null || this.#shape.blocks === shape.blocks,
      'all caches of a backend must have the same number of blocks',
    );
    this.#shape = shape;
  }

  begin(batch: Batch): void {
    const rows = batch.tokens.length;
    assert(rows > 0 && rows <= this.rowsMax, `a step of ${rows} rows; ${this.rowsMax} fit`);
    for (const column of [batch.positions, batch.slots, batch.sequences]) {
      assert(column.length === rows, 'the columns of a batch must be equally long');
    }
    const { i32 } = this.#arena;
    i32.set(batch.tokens, this.tokens / 4);
    i32.set(batch.positions, this.positions / 4);
    i32.set(batch.slots, this.slots / 4);
    this.#current = { batch, sequences: this.#shape === null ? [] : this.#sequencesOf(batch) };
  }

  /** Rows of the current step. */
  get rows(): number {
    return this.batch.tokens.length;
  }

  get batch(): Batch {
    assert(this.#current !== null, 'an op that reads the batch ran before beginStep');
    return this.#current.batch;
  }

  /** The batch's rows by sequence; needs caches. */
  get sequences(): readonly SequenceRows[] {
    assert(this.#current !== null, 'an op that reads the batch ran before beginStep');
    assert(this.#shape !== null, 'an op that reads caches ran before they were made');
    return this.#current.sequences;
  }

  #sequencesOf(batch: Batch): SequenceRows[] {
    const places = this.#copyTables(batch.blockTables);
    const found: SequenceRows[] = [];
    const seen = new Set<number>();
    const rows = batch.tokens.length;
    for (let start = 0; start < rows;) {
      const sequence = batch.sequences[start] ?? -1;
      const table = batch.blockTables[sequence];
      const blockTable = places[sequence];
      assert(table !== undefined && blockTable !== undefined, `there is no sequence ${sequence}`);
      assert(!seen.has(sequence), 'rows of one sequence must be adjacent');
      seen.add(sequence);
      let end = start;
      while (end < rows && batch.sequences[end] === sequence) this.#checkRow(batch, end++, table);
      this.#arena.u32.fill(blockTable, this.blockTables / 4 + start, this.blockTables / 4 + end);
      const tokens = (batch.positions[end - 1] ?? 0) + 1;
      found.push({ rowStart: start, rowCount: end - start, blockTable, tokens });
      start = end;
    }
    return found;
  }

  /** Addresses of the tables' copies. */
  #copyTables(tables: readonly Int32Array[]): number[] {
    const blocks = this.#shape?.blocks ?? 0;
    let entries = 0;
    return tables.map((table) => {
      const at = this.#tables + entries * 4;
      entries += table.length;
      assert(entries <= tableEntriesMax, 'the block tables of a step do not fit');
      assert(
        table.every((block) => block >= 0 && block < blocks),
        'a block table names a block that there is not',
      );
      this.#arena.i32.set(table, at / 4);
      return at;
    });
  }

  #checkRow(batch: Batch, row: number, table: Int32Array): void {
    const position = batch.positions[row] ?? -1;
    const follows = row > 0 && batch.sequences[row - 1] === batch.sequences[row];
    assert(
      position >= 0 && (!follows || position > (batch.positions[row - 1] ?? -1)),
      'positions of a sequence must ascend from 0',
    );
    const block = table[Math.floor(position / blockTokens)];
    assert(block !== undefined, 'a block table is shorter than its sequence');
    assert(
      batch.slots[row] === block * blockTokens + (position % blockTokens),
      'a slot does not lie where the block table puts its position',
    );
  }
}
