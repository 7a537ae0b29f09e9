/** Writes the scheduled rows of a step as the ragged batch that the model takes. */
import { strict as assert } from 'node:assert';
import { missing } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Batch } from '../backend/batch.ts';
import type { ScheduledRows } from './scheduled-rows.ts';

/** Reuses one set of arrays: a batch is valid until the next one is built. */
export class BatchBuilder {
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #slots: Int32Array;
  readonly #sequences: Int32Array;

  constructor(options: { rowsMax: number }) {
    this.#tokens = new Int32Array(options.rowsMax);
    this.#positions = new Int32Array(options.rowsMax);
    this.#slots = new Int32Array(options.rowsMax);
    this.#sequences = new Int32Array(options.rowsMax);
  }

  /** Writes the rows of each sequence, which start at its `computed`, in the order given. */
  build(step: readonly ScheduledRows[]): Batch {
    let rows = 0;
    for (const [index, { sequence, firstRow, count }] of step.entries()) {
      assert(firstRow === rows, 'rows of a batch follow one another');
      const end = sequence.computed + count;
      const { blocks } = sequence.table;
      assert(end <= sequence.table.count * blockTokens, 'every row has a slot');
      for (let position = sequence.computed; position < end; position++) {
        const block = blocks[Math.floor(position / blockTokens)] ?? missing();
        this.#tokens[rows] = sequence.tokenAt(position);
        this.#positions[rows] = position;
        this.#slots[rows] = block * blockTokens + (position % blockTokens);
        this.#sequences[rows] = index;
        rows++;
      }
    }
    return {
      tokens: this.#tokens.subarray(0, rows),
      positions: this.#positions.subarray(0, rows),
      slots: this.#slots.subarray(0, rows),
      sequences: this.#sequences.subarray(0, rows),
      blockTables: step.map(({ sequence: { table } }) => table.blocks.subarray(0, table.count)),
    };
  }
}
