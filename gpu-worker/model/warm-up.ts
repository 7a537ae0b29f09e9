/**
 * Steps of every kind that serving has, at their largest, over caches that hold nothing yet: what a
 * backend compiles or sizes at the first call of an op is then there before the first request.
 */
import { at } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Batch } from '../backend/batch.ts';
import type { Draw } from '../backend/draw.ts';
import { expandedRowsMin } from '../backend/attention-plan.ts';
import type { Model } from './model.ts';

const draw: Draw = { temperature: 1, topK: 2, topP: 0.9, minP: 0, unit: 0 };

export function warmUp(model: Model): void {
  const { contextLength, limits, blocks } = model;
  const rowsMax = Math.min(limits.rowsMax, contextLength);
  for (const rows of new Set([rowsMax, Math.min(rowsMax, expandedRowsMin), 1])) {
    for (const end of new Set([rows, contextLength])) {
      model.forward(chunk({ start: end - rows, rows, blocks }));
      const count = Math.min(rows, limits.logitRowsMax);
      const last = Int32Array.from({ length: count }, (_, i) => rows - count + i);
      model.logits(last);
      model.sample(
        last,
        Array.from(last, () => draw),
      );
    }
  }
  const decoding = { sequences: Math.min(rowsMax, limits.logitRowsMax), rows: 1 };
  const prefilling = { sequences: Math.floor(rowsMax / expandedRowsMin), rows: expandedRowsMin };
  for (const { sequences, rows } of [decoding, prefilling]) {
    if (sequences === 0 || rows > contextLength) continue;
    model.forward(together(sequences, chunk({ start: contextLength - rows, rows, blocks })));
  }
}

/**
 * Rows of one sequence. Where the caches are shorter than its context, blocks stand in several
 * places.
 */
function chunk({ start, rows, blocks }: { start: number; rows: number; blocks: number }): Batch {
  const positions = Int32Array.from({ length: rows }, (_, i) => start + i);
  const table = Int32Array.from(
    { length: Math.ceil((start + rows) / blockTokens) },
    (_, i) => i % blocks,
  );
  return {
    tokens: new Int32Array(rows),
    positions,
    slots: positions.map((position) => slotOf(table, position)),
    sequences: new Int32Array(rows),
    blockTables: [table],
  };
}

/** The same rows for each of some sequences, all over the same blocks. */
function together(sequences: number, batch: Batch): Batch {
  const rows = batch.tokens.length;
  const repeated = (column: Int32Array): Int32Array =>
    Int32Array.from({ length: sequences * rows }, (_, i) => at(column, i % rows));
  return {
    tokens: repeated(batch.tokens),
    positions: repeated(batch.positions),
    slots: repeated(batch.slots),
    sequences: Int32Array.from({ length: sequences * rows }, (_, i) => Math.floor(i / rows)),
    blockTables: Array.from({ length: sequences }, () => at(batch.blockTables, 0)),
  };
}

function slotOf(table: Int32Array, position: number): number {
  return at(table, Math.floor(position / blockTokens)) * blockTokens + (position % blockTokens);
}
