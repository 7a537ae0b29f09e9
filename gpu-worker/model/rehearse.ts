/**
 * Steps of every kind that serving has, at their largest, over caches that hold nothing yet: what a
 * backend compiles or sizes at the first call of an op is then there before the first request.
 */
import { blockTokens } from '../backend/backend.ts';
import type { Draw } from '../backend/draw.ts';
import { expandedRowsMin } from './forward.ts';
import type { Model } from './model.ts';

const draw: Draw = { temperature: 1, topK: 2, topP: 0.9, minP: 0, unit: 0 };

export function rehearse(model: Model): void {
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
  const sequences = Math.min(rowsMax, limits.logitRowsMax);
  model.forward(together({ sequences, position: contextLength - 1, blocks }));
}

/** Rows of one sequence. Where the caches are shorter than its context, blocks stand in several places. */
function chunk({ start, rows, blocks }: { start: number; rows: number; blocks: number }) {
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

/** A row of each of some sequences, all at the same position of the same blocks. */
function together(size: { sequences: number; position: number; blocks: number }) {
  const { sequences, position, blocks } = size;
  const [table = new Int32Array()] = chunk({ start: position, rows: 1, blocks }).blockTables;
  return {
    tokens: new Int32Array(sequences),
    positions: new Int32Array(sequences).fill(position),
    slots: new Int32Array(sequences).fill(slotOf(table, position)),
    sequences: Int32Array.from({ length: sequences }, (_, i) => i),
    blockTables: Array.from({ length: sequences }, () => table),
  };
}

function slotOf(table: Int32Array, position: number): number {
  return (table[Math.floor(position / blockTokens)] ?? 0) * blockTokens + (position % blockTokens);
}
