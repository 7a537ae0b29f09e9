/** The numerics, the rope table and the current batch, which the groups of the twin share. */
import { strict as assert } from 'node:assert';
import { blockTokens } from '../../../../gpu-worker/backend/batch.ts';
import type { Batch, BatchOps } from '../../../../gpu-worker/backend/batch.ts';
import { roundBf16 } from '../../../../gpu-worker/backend/cpu/codecs.ts';
import type { Numerics } from '../../../../gpu-worker/backend/numerics.ts';
import type { RopeTable } from '../../../../gpu-worker/backend/row-ops.ts';

export class PlainContext implements BatchOps {
  readonly numerics: Numerics;
  /** Rows of the batch that a test makes at most. */
  readonly rowsMax = 256;
  rope: RopeTable | null = null;
  #batch: Batch | null = null;

  constructor(numerics: Numerics) {
    this.numerics = numerics;
  }

  begin(batch: Batch): void {
    this.#batch = batch;
  }

  guarded(_property: string, read: (batch: Batch) => number): number {
    return read(this.batch);
  }

  captureOrReplay(ops: () => void): void {
    ops();
  }

  get rows(): number {
    return this.batch.tokens.length;
  }

  get batch(): Batch {
    assert(this.#batch !== null, 'an op that reads the batch ran before the batch began');
    return this.#batch;
  }

  round(value: number): number {
    return this.numerics.activations === 'bf16' ? roundBf16(value) : value;
  }

  /** Slot of each position of the row's sequence up to the row's own. */
  slots(row: number): number[] {
    const { positions, sequences, blockTables } = this.batch;
    const table = blockTables[sequences[row] ?? -1] ?? new Int32Array(0);
    return Array.from({ length: (positions[row] ?? 0) + 1 }, (_, position) => {
      const block = table[Math.floor(position / blockTokens)];
      assert(block !== undefined, 'the block table is shorter than the sequence');
      return block * blockTokens + (position % blockTokens);
    });
  }
}
