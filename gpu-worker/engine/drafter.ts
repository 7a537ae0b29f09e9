/**
 * Drafts tokens ahead of the sequences that decode, by the model's MTP module. The module runs over
 * the rows that a step has computed, so that its caches hold what those of the layers hold, and
 * then over one row a sequence for each further draft. A draft is only a guess: the next step
 * computes it as a row and keeps it if it is what would have been drawn.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Batch } from '../backend/batch.ts';
import type { Model } from '../model/model.ts';
import type { Generation } from './generation.ts';
import { uniform } from './random.ts';
import type { ScheduledRows } from './scheduled-rows.ts';
import type { Sequence } from './sequence.ts';

/** A position that the module computes: it reads the hidden state of a row of the last batch. */
interface DraftRow {
  readonly sequence: Sequence;
  readonly position: number;
  readonly hiddenRow: number;
}

export class Drafter {
  readonly #model: Model;
  readonly #rowsMax: number;
  readonly #draftsMax: number;

  constructor(model: Model, rowsMax: number, draftsMax: number) {
    assert(model.draft !== null, 'tokens are drafted by a model that was loaded with drafts');
    this.#model = model;
    this.#rowsMax = rowsMax;
    this.#draftsMax = draftsMax;
  }

  /** Gives drafts to the sequences of a step that has been accepted, right after its forward. */
  draft(step: readonly ScheduledRows[], generationOf: (sequence: Sequence) => Generation): void {
    let rows = step.flatMap((each) => rowsOf(each));
    for (let turn = 0; turn < this.#draftsMax && rows.length > 0; turn++) {
      assert(rows.length <= this.#rowsMax, 'the module computes no more rows than the step did');
      this.#run(rows);
      const last = rows.flatMap((row, index) => {
        const { sequence, position } = row;
        return position === sequence.length - 2 + turn ? [{ ...row, hiddenRow: index }] : [];
      });
      const wanted = last.filter(({ sequence }) => hasRoom(sequence, turn));
      const { logitRowsMax } = this.#model.limits;
      for (let start = 0; start < wanted.length; start += logitRowsMax) {
        this.#guess(wanted.slice(start, start + logitRowsMax), generationOf);
      }
      rows = wanted.map((row) => ({ ...row, position: row.position + 1 }));
    }
  }

  #run(rows: readonly DraftRow[]): void {
    const { draft } = this.#model;
    assert(draft !== null, 'the model has an MTP module');
    draft(
      batchOf(rows),
      Int32Array.from(rows, ({ hiddenRow }) => hiddenRow),
    );
  }

  /** Draws each draft as its token will be drawn, so that equal logits give equal tokens. */
  #guess(rows: readonly DraftRow[], generationOf: (sequence: Sequence) => Generation): void {
    const draws = rows.map(({ sequence }) => {
      const { seed, request } = generationOf(sequence);
      const position = sequence.outputTokens + sequence.drafts.length;
      const { sampling } = request;
      const unit =
        sampling.temperature === 0 ? 0 : uniform({ seed: seed + sequence.choice, position });
      return { ...sampling, unit };
    });
    const numbers = Int32Array.from(rows, ({ hiddenRow }) => hiddenRow);
    for (const [index, token] of this.#model.sample(numbers, draws).entries()) {
      const { sequence } = at(rows, index);
      if (token !== null) sequence.drafts = [...sequence.drafts, token];
    }
  }
}

/** The rows of a sequence that stand after a step, each of which has a token behind it. */
function rowsOf({ sequence, firstRow, count }: ScheduledRows): DraftRow[] {
  const start = sequence.stepStart;
  const end = Math.min(start + count, sequence.computed, sequence.length - 1);
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => ({
    sequence,
    position: start + index,
    hiddenRow: firstRow + index,
  }));
}

/** Tells whether a draft `turn` places behind the known tokens could be computed and has a slot. */
function hasRoom({ drafts, length, promptLength, outputTokensMax, table }: Sequence, turn: number) {
  const isUnbroken = drafts.length === turn;
  const isWithinLimit = length + turn < promptLength + outputTokensMax - 1;
  // The module's next row stands where this draft's own will, whose slot may not be there yet.
  return isUnbroken && isWithinLimit && length - 1 + turn < table.count * blockTokens;
}

function batchOf(rows: readonly DraftRow[]): Batch {
  const sequences = [...new Set(rows.map(({ sequence }) => sequence))];
  const numbers = new Map(sequences.map((sequence, index) => [sequence, index]));
  return {
    tokens: Int32Array.from(rows, ({ sequence, position }) => sequence.tokenAt(position + 1)),
    positions: Int32Array.from(rows, ({ position }) => position),
    slots: Int32Array.from(rows, ({ sequence, position }) => {
      const block = at(sequence.table.blocks, Math.floor(position / blockTokens));
      return block * blockTokens + (position % blockTokens);
    }),
    sequences: Int32Array.from(rows, ({ sequence }) => numbers.get(sequence) ?? 0),
    blockTables: sequences.map(({ table }) => table.blocks.subarray(0, table.count)),
  };
}
