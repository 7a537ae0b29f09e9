/** The batch of the current step, checked and sent to where the kernels read it. */
import assert from 'node:assert/strict';
import { type Batch, blockTokens, type CacheShape } from '../backend.ts';
import type { Device } from './device.ts';

/** Block table entries of a step, all its sequences together; 16 MiB of them. */
const tableEntriesMax = 4_194_304;

/** Adjacent rows of one sequence. */
export interface SequenceRows {
  readonly rowStart: number;
  readonly rowCount: number;
  /** Where the sequence's block table, [blocks] i32, starts in `tables`, and its address. */
  readonly tableStart: number;
  readonly table: number;
  /** Tokens that its last row sees. */
  readonly tokens: number;
}

export class Step {
  readonly rowsMax: number;
  /** Addresses of [rowsMax] i32. */
  readonly tokens: number;
  readonly positions: number;
  readonly slots: number;
  /** [rowsMax] i64: where each row's block table starts in `tables`. */
  readonly tableStarts: number;
  readonly #device: Device;
  readonly #tables: number;
  #shape: CacheShape | null = null;
  #current: { batch: Batch; sequences: readonly SequenceRows[] } | null = null;

  constructor(device: Device, rowsMax: number) {
    this.#device = device;
    this.rowsMax = rowsMax;
    const column = (what: string, bytes = 4) =>
      device.allocate(rowsMax * bytes, 'activation', `a step's ${what}`);
    this.tokens = column('tokens');
    this.positions = column('positions');
    this.slots = column('slots');
    this.tableStarts = column('block table starts', 8);
    this.#tables = device.allocate(tableEntriesMax * 4, 'activation', 'block tables');
  }

  /** From here on batches name blocks of these caches. */
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
    const device = this.#device;
    // What is queued still reads the batch before.
    device.queue.flush();
    device.send(this.tokens, batch.tokens);
    device.send(this.positions, batch.positions);
    device.send(this.slots, batch.slots);
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

  /** Tokens that the row which sees most of them sees. */
  get longest(): number {
    return Math.max(...this.sequences.map((sequence) => sequence.tokens));
  }

  /** Address of the block tables of all sequences. */
  get tables(): number {
    return this.#tables;
  }

  #sequencesOf(batch: Batch): SequenceRows[] {
    const starts = this.#sendTables(batch.blockTables);
    const found: SequenceRows[] = [];
    const seen = new Set<number>();
    const rows = batch.tokens.length;
    const tableStarts = new BigInt64Array(rows);
    for (let start = 0; start < rows;) {
      const sequence = batch.sequences[start] ?? -1;
      const table = batch.blockTables[sequence];
      const tableStart = starts[sequence];
      assert(table !== undefined && tableStart !== undefined, `there is no sequence ${sequence}`);
      assert(!seen.has(sequence), 'rows of one sequence must be adjacent');
      seen.add(sequence);
      let end = start;
      while (end < rows && batch.sequences[end] === sequence) this.#checkRow(batch, end++, table);
      tableStarts.fill(BigInt(tableStart), start, end);
      found.push({
        rowStart: start,
        rowCount: end - start,
        tableStart,
        table: this.#tables + tableStart * 4,
        tokens: (batch.positions[end - 1] ?? 0) + 1,
      });
      start = end;
    }
    this.#device.send(this.tableStarts, tableStarts);
    return found;
  }

  /** Where each table starts among the entries. */
  #sendTables(tables: readonly Int32Array[]): number[] {
    const blocks = this.#shape?.blocks ?? 0;
    let entries = 0;
    const starts = tables.map((table) => {
      const start = entries;
      entries += table.length;
      assert(entries <= tableEntriesMax, 'the block tables of a step do not fit');
      assert(
        table.every((block) => block >= 0 && block < blocks),
        'a block table names a block that there is not',
      );
      return start;
    });
    const all = new Int32Array(entries);
    tables.forEach((table, i) => all.set(table, starts[i]));
    this.#device.send(this.#tables, all);
    return starts;
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
