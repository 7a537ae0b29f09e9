/** The batch of the current step, checked and sent to where the kernels read it. */
import { strict as assert } from 'node:assert';
import { at, missing } from '../../at.ts';
import { checkColumns, sequencesOf } from '../batch.ts';
import type { Batch, SequenceRows } from '../batch.ts';
import { checkBlock, checkSameBlocks } from '../checks.ts';
import type { CacheShape } from '../shapes.ts';
import type { OpDevice } from './op-device.ts';

/** Block table entries of a step, all its sequences together; 16 MiB of them. */
const tableEntriesMax = 4_194_304;
/** Bytes of a row in all columns. */
const rowBytes = 20;
/** A table starts at a multiple of this many entries. */
const tableStep = 64;

/** Adjacent rows of one sequence, and the place of its block table on the GPU. */
export interface PlacedRows extends SequenceRows {
  /** The start of the sequence's block table, [blocks] i32, in `tables`, and its address. */
  readonly tableStart: number;
  readonly table: number;
}

/**
 * Properties of the batch that ops read while their launches were recorded. A guard reads its
 * property of the current batch, and holds if the value is still the recorded one.
 */
export type Guards = ReadonlyMap<string, Guard>;

interface Guard {
  readonly read: () => number;
  readonly value: number;
}

export class CudaStep {
  readonly rowsMax: number;
  readonly #device: OpDevice;
  /**
   * The columns of the batch one behind another, so that they take one copy: here and on the GPU.
   */
  readonly #columns: Uint8Array<ArrayBuffer>;
  readonly #columnsAt: number;
  readonly #tables: number;
  /** The entries that lie in `tables`, so that only those that changed are sent. */
  readonly #sentTables = new Int32Array(tableEntriesMax).fill(-1);
  #shape: CacheShape | null = null;
  #serial = 0;
  #current: { batch: Batch; sequences: readonly PlacedRows[] } | null = null;
  #tokensEnd = Infinity;
  #positionsEnd = Infinity;
  /** The guards of the launches being recorded, or null once an op has read the batch itself. */
  #guards: Map<string, Guard> | null = null;
  #recording = false;

  constructor(device: OpDevice, rowsMax: number) {
    this.#device = device;
    this.rowsMax = rowsMax;
    this.#columns = new Uint8Array(paddedRows(rowsMax) * rowBytes);
    this.#columnsAt = device.allocate(this.#columns.length, 'activation', "a step's columns");
    this.#tables = device.allocate(tableEntriesMax * 4, 'activation', 'block tables');
  }

  /** Counts the steps begun. */
  get serial(): number {
    return this.#serial;
  }

  /** From here on batches name blocks of these caches. */
  useCaches(shape: CacheShape): void {
    checkSameBlocks(this.#shape, shape);
    this.#shape = shape;
  }

  begin(batch: Batch): void {
    checkColumns(batch, this.rowsMax);
    const device = this.#device;
    // Launches that are queued still read the batch before.
    device.queue.flush();
    this.#serial++;
    this.#current = { batch, sequences: this.#shape === null ? [] : this.#sequencesOf(batch) };
    this.#checkTokens(batch);
    this.#checkPositions(batch);
    this.#sendColumns(batch);
  }

  #sendColumns({ tokens, positions, slots }: Batch): void {
    const { buffer } = this.#columns;
    const padded = paddedRows(tokens.length);
    [tokens, positions, slots].forEach((column, i) =>
      new Int32Array(buffer, padded * (8 + 4 * i), column.length).set(column),
    );
    this.#device.send(this.#columnsAt, this.#columns.subarray(0, padded * rowBytes));
  }

  /** Every token from here on must be below `end`: what embeds them has no more. */
  limitTokens(end: number): void {
    if (end === this.#tokensEnd) return;
    this.#tokensEnd = end;
    if (this.#current !== null) this.#checkTokens(this.#current.batch);
  }

  /** Every position from here on must be below `end`. */
  limitPositions(end: number): void {
    this.#positionsEnd = end;
    if (this.#current !== null) this.#checkPositions(this.#current.batch);
  }

  /** [rows] i64: where each row's block table starts in `tables`. */
  get tableStarts(): number {
    return this.#columnsAt;
  }

  /** [rows] i32 */
  get tokens(): number {
    return this.#columnsAt + paddedRows(this.rows) * 8;
  }

  /** [rows] i32 */
  get positions(): number {
    return this.#columnsAt + paddedRows(this.rows) * 12;
  }

  /** [rows] i32 */
  get slots(): number {
    return this.#columnsAt + paddedRows(this.rows) * 16;
  }

  /** A property of the batch, recorded as a guard. */
  guarded(property: string, read: (batch: Batch) => number): number {
    return this.#guard(property, () => read(this.#batchNow()));
  }

  /** Rows of the current step. */
  get rows(): number {
    return this.#guard('rows', () => this.#batchNow().tokens.length);
  }

  /** The number of sequences that the rows belong to; needs caches. */
  get sequenceCount(): number {
    return this.#guard('sequences', () => this.#sequencesNow().length);
  }

  /** True if some row sees more than `tokens` tokens. */
  seesMoreThan(tokens: number): boolean {
    return this.#guard(`more than ${tokens}`, () => Number(this.#longestNow() > tokens)) === 1;
  }

  /** True if some sequence has at least so many rows. */
  hasRun(rows: number): boolean {
    const has = () => Number(this.#sequencesNow().some(({ rowCount }) => rowCount >= rows));
    return this.#guard(`a run of ${rows}`, has) === 1;
  }

  /**
   * A power of two, at least 1,024, that is no less than the tokens which the row that sees most of
   * them sees: launches sized by it are replayed while a context grows.
   */
  get longestBucket(): number {
    return this.#guard(
      'bucket',
      () => 2 ** Math.ceil(Math.log2(Math.max(this.#longestNow(), 1024))),
    );
  }

  /** Tokens that the row which sees most of them sees; as a guard it rarely holds. */
  get longest(): number {
    return this.#guard('longest', () => this.#longestNow());
  }

  /** The batch itself. A step whose ops read it is not captured. */
  get batch(): Batch {
    if (this.#recording) this.#guards = null;
    return this.#batchNow();
  }

  /** The batch's rows by sequence; needs caches. A step whose ops read them is not captured. */
  get sequences(): readonly PlacedRows[] {
    if (this.#recording) this.#guards = null;
    return this.#sequencesNow();
  }

  /** Address of the block tables of all sequences. */
  get tables(): number {
    return this.#tables;
  }

  /**
   * Runs `ops` and returns the guards that they recorded, or null if they read the batch itself.
   */
  recordGuards(ops: () => void): Guards | null {
    assert(!this.#recording, 'a step is recorded already');
    this.#recording = true;
    this.#guards = new Map();
    try {
      ops();
      return this.#guards;
    } finally {
      this.#recording = false;
      this.#guards = null;
    }
  }

  /** True if the current batch has all of the recorded values. */
  guardsHold(guards: Guards): boolean {
    for (const { read, value } of guards.values()) if (read() !== value) return false;
    return true;
  }

  #guard(property: string, read: () => number): number {
    const value = read();
    if (this.#recording) this.#guards?.set(property, { read, value });
    return value;
  }

  #batchNow(): Batch {
    assert(this.#current !== null, 'an op that reads the batch ran before batch.begin');
    return this.#current.batch;
  }

  #sequencesNow(): readonly PlacedRows[] {
    assert(this.#current !== null, 'an op that reads the batch ran before batch.begin');
    assert(this.#shape !== null, 'an op that reads caches ran before they were made');
    return this.#current.sequences;
  }

  #longestNow(): number {
    let longest = 0;
    for (const { tokens } of this.#sequencesNow()) longest = Math.max(longest, tokens);
    return longest;
  }

  #checkTokens({ tokens }: Batch): void {
    const end = this.#tokensEnd;
    assert(
      tokens.every((token) => token >= 0 && token < end),
      `a token is not among the ${end} of the embedding`,
    );
  }

  #checkPositions({ positions }: Batch): void {
    const end = this.#positionsEnd;
    const past = positions.find((position) => position >= end);
    assert(past === undefined, `position ${past} is behind the rope table's end`);
  }

  #sequencesOf(batch: Batch): PlacedRows[] {
    const starts = this.#tableStarts(batch.blockTables);
    const tableStarts = new BigInt64Array(this.#columns.buffer, 0, batch.tokens.length);
    return sequencesOf(batch).map((rows) => {
      const tableStart = at(starts, rows.sequence);
      tableStarts.fill(BigInt(tableStart), rows.rowStart, rows.rowStart + rows.rowCount);
      return { ...rows, tableStart, table: this.#tables + tableStart * 4 };
    });
  }

  #tableStarts(tables: readonly Int32Array[]): number[] {
    try {
      return this.#sendTables(tables);
    } catch (cause) {
      // Some entries are noted as sent and were not.
      this.#sentTables.fill(-1);
      throw cause;
    }
  }

  /** Sends the entries that differ from those that lie there; returns the start of each table. */
  #sendTables(tables: readonly Int32Array[]): number[] {
    const blocks = this.#shape?.blocks ?? 0;
    const sent = this.#sentTables;
    let entries = 0;
    let changedStart = -1;
    let changedEnd = 0;
    const starts = tables.map((table) => {
      const start = entries;
      // Places are kept while a table grows by a few blocks, so that the next ones need not move.
      entries += Math.ceil(table.length / tableStep) * tableStep;
      assert(entries <= tableEntriesMax, 'the block tables of a step do not fit');
      for (let i = 0; i < table.length; i++) {
        const block = table[i] ?? missing();
        if (block === sent[start + i]) continue;
        checkBlock(block, blocks);
        sent[start + i] = block;
        if (changedStart < 0) changedStart = start + i;
        changedEnd = start + i + 1;
      }
      return start;
    });
    if (changedStart >= 0) {
      const changed = sent.subarray(changedStart, changedEnd);
      this.#device.send(this.#tables + changedStart * 4, changed);
    }
    return starts;
  }
}

/** Columns begin at multiples of 16 bytes. */
function paddedRows(rows: number): number {
  return Math.ceil(rows / 4) * 4;
}
