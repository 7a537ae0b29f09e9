/**
 * A deterministic stand-in for the model whose logits depend on every token it finds in its own
 * paged cache. Each slot stores a hash of what the row saw through its block table when it was
 * written, so a wrong block, a wrong slot, a stale entry or a token that was never recomputed
 * changes every later logit. It also refuses a batch that breaks the contract of `Batch`.
 */
import { strict as assert } from 'node:assert';
import { at, missing } from '../../../gpu-worker/at.ts';
import { blockTokens } from '../../../gpu-worker/backend/batch.ts';
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import { createDrawScratch, drawToken } from '../../../gpu-worker/backend/draw.ts';
import type { Draw } from '../../../gpu-worker/backend/draw.ts';
import type { Model } from '../../../gpu-worker/model/model.ts';

export interface HashModelOptions {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly blocks: number;
  readonly rowsMax: number;
  readonly logitRowsMax: number;
  /** Logits are NaN wherever this token was just read. */
  readonly poisonToken?: number;
}

export interface HashModel extends Model {
  /** Rows of every forward pass so far. */
  readonly stepRows: readonly number[];
  /** Rows whose logits were asked for so far. */
  logitRows: number;
}

export function createHashModel(options: HashModelOptions): HashModel {
  const { vocabSize, contextLength, blocks, rowsMax, logitRowsMax } = options;
  const entries = new Uint32Array(blocks * blockTokens).fill(0xdeadbeef);
  let states = new Uint32Array();
  let tokens = new Int32Array();
  const stepRows: number[] = [];

  return {
    vocabSize,
    contextLength,
    limits: { rowsMax, logitRowsMax },
    blocks,
    stepRows,
    logitRows: 0,
    draft: null,
    forward(batch: Batch): void {
      checkBatch(batch, { rowsMax, blocks, vocabSize, contextLength });
      const rows = batch.tokens.length;
      states = new Uint32Array(rows);
      tokens = batch.tokens.slice();
      stepRows.push(rows);
      for (let row = 0; row < rows; row++) {
        const table = at(batch.blockTables, at(batch.sequences, row));
        const position = at(batch.positions, row);
        const slot = at(batch.slots, row);
        let seen = 0x9e3779b9;
        for (let earlier = 0; earlier < position; earlier++)
          seen = mix(seen, entries[slotOf(table, earlier)] ?? missing());
        assert.equal(slot, slotOf(table, position), 'a slot is where its reader looks');
        const entry = mix(mix(seen, at(batch.tokens, row)), position);
        entries[slot] = entry;
        states[row] = mix(seen, entry);
      }
    },
    sample(rows: Int32Array, draws: readonly Draw[]): (number | null)[] {
      const logits = this.logits(rows);
      return draws.map((draw, row) => {
        const scores = logits.subarray(row * vocabSize, (row + 1) * vocabSize);
        return drawToken(scores, draw, createDrawScratch(vocabSize));
      });
    },
    logits(rows: Int32Array): Float32Array {
      assert(rows.length > 0 && rows.length <= logitRowsMax, 'logits are asked in bounded slices');
      this.logitRows += rows.length;
      const logits = new Float32Array(rows.length * vocabSize);
      for (const [index, row] of rows.entries()) {
        assert(row >= 0 && row < states.length, 'logits are asked of rows of the last batch');
        const isPoisoned = tokens[row] === options.poisonToken;
        for (let token = 0; token < vocabSize; token++) {
          const unit = mix(states[row] ?? missing(), token) / 2 ** 32;
          logits[index * vocabSize + token] = isPoisoned ? Number.NaN : unit * 8 - 4;
        }
      }
      return logits;
    },
  };
}

function slotOf(table: Int32Array, position: number): number {
  const block = table[Math.floor(position / blockTokens)] ?? missing();
  return block * blockTokens + (position % blockTokens);
}

function checkBatch(
  batch: Batch,
  bounds: { rowsMax: number; blocks: number; vocabSize: number; contextLength: number },
): void {
  const rows = batch.tokens.length;
  assert(rows > 0 && rows <= bounds.rowsMax, 'a batch has 1..rowsMax rows');
  assert.deepEqual(
    [batch.positions.length, batch.slots.length, batch.sequences.length],
    [rows, rows, rows],
  );
  assert.equal(new Set(batch.slots).size, rows, 'no two rows write one slot');
  for (let row = 0; row < rows; row++) {
    const token = at(batch.tokens, row);
    assert(token >= 0 && token < bounds.vocabSize, 'tokens are in range');
    assert(at(batch.positions, row) < bounds.contextLength, 'positions are within the context');
    if (row === 0) continue;
    const isSame = batch.sequences[row] === batch.sequences[row - 1];
    const step = isSame ? at(batch.positions, row) - at(batch.positions, row - 1) : 1;
    assert.equal(step, 1, 'rows of a sequence are in order of position');
    const jump = at(batch.sequences, row) - at(batch.sequences, row - 1);
    assert(jump <= 1, 'rows of a sequence are adjacent');
  }
  for (const table of batch.blockTables) {
    assert.equal(new Set(table).size, table.length, 'a table names a block once');
    assert(
      table.every((block) => block >= 0 && block < bounds.blocks),
      'blocks are in range',
    );
  }
}

/** A 32-bit mixing step (the finaliser of MurmurHash3 over a running value). */
function mix(state: number, value: number): number {
  let h = Math.imul(state ^ value, 0x85ebca6b) + 0x165667b1;
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return h >>> 0;
}
