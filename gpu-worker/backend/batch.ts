/** One step's ragged batch: the contract, and the checks that every backend makes of it. */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';

/** Tokens in a page of both caches, and in a block of the prefix cache. */
export const blockTokens = 64;

/**
 * One step's ragged batch. Rows of one sequence are adjacent and in order of position. Row r reads
 * the tokens 0..positions[r] of its sequence from the caches, itself included.
 */
export interface Batch {
  /** [rows] */
  readonly tokens: Int32Array;
  /** [rows] position of the row's token in its sequence. */
  readonly positions: Int32Array;
  /** [rows] cache slot that the row's token is written to: block * 64 + offset. */
  readonly slots: Int32Array;
  /** [rows] index of the row's sequence in `blockTables`. */
  readonly sequences: Int32Array;
  /** [sequences][blocks of the sequence] physical block numbers. */
  readonly blockTables: readonly Int32Array[];
}

export interface BatchOps {
  /** Makes `batch` the one that the following ops read positions, slots and block tables from. */
  begin(batch: Batch): void;
  /**
   * Runs `ops`, which call this backend's ops for the current batch and read nothing. What they
   * call may depend on the batch alone: a backend may capture the launches of `ops` and replay
   * them, without calling it, for a batch that is alike in all that the ops read of it.
   */
  captureOrReplay(ops: () => void): void;
}

/** Adjacent rows of one sequence. */
export interface SequenceRows {
  /** Index of the sequence in the batch's block tables. */
  readonly sequence: number;
  readonly rowStart: number;
  readonly rowCount: number;
  /** Tokens that its last row sees. */
  readonly tokens: number;
}

/** Every column has one element per row, and there are at most `rowsMax` rows. */
export function checkColumns(batch: Batch, rowsMax: number): void {
  const rows = batch.tokens.length;
  assert(rows > 0 && rows <= rowsMax, `a step of ${rows} rows; ${rowsMax} fit`);
  for (const column of [batch.positions, batch.slots, batch.sequences]) {
    assert(column.length === rows, 'the columns of a batch must be equally long');
  }
}

/** The batch's rows by sequence, each row checked against its block table. */
export function sequencesOf(batch: Batch): SequenceRows[] {
  const { positions, sequences, blockTables } = batch;
  const found: SequenceRows[] = [];
  const seen = new Set<number>();
  const rows = batch.tokens.length;
  for (let start = 0; start < rows;) {
    const sequence = at(sequences, start);
    const table = blockTables[sequence];
    assert(table !== undefined, `there is no sequence ${sequence}`);
    assert(!seen.has(sequence), 'rows of one sequence must be adjacent');
    seen.add(sequence);
    let end = start;
    while (end < rows && sequences[end] === sequence) {
      checkRow(batch, { row: end, isFirst: end === start, table });
      end++;
    }
    const tokens = at(positions, end - 1) + 1;
    found.push({ sequence, rowStart: start, rowCount: end - start, tokens });
    start = end;
  }
  return found;
}

function checkRow(
  { positions, slots }: Batch,
  { row, isFirst, table }: { row: number; isFirst: boolean; table: Int32Array },
): void {
  const position = at(positions, row);
  assert(
    position >= 0 && (isFirst || position > at(positions, row - 1)),
    'positions of a sequence must ascend from 0',
  );
  const block = table[Math.floor(position / blockTokens)];
  assert(block !== undefined, 'a block table is shorter than its sequence');
  assert(
    slots[row] === block * blockTokens + (position % blockTokens),
    'a slot does not lie where the block table puts its position',
  );
}
