/** Scores one token sequence position by position: what the `score` command prints. */
import { strict as assert } from 'node:assert';
import { at, missing } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Batch } from '../backend/batch.ts';
import type { ForwardObserver, Model } from './model.ts';

export interface ScoreOptions {
  /** Positions whose logits and selected tokens are reported. */
  readonly positions: readonly number[];
  /** Tokens of greedy continuation. */
  readonly greedyTokens: number;
  onProgress?(done: number, total: number): void;
}

export interface Scores {
  /** The most likely next token at every position; the lower id on ties. */
  readonly argmax: number[];
  /** Mean of -ln p(token) over the tokens after the first; null for a single token. */
  readonly meanNll: number | null;
  /** position -> logits [vocab] */
  readonly logits: Record<string, number[]>;
  /** layer -> position -> positions selected by the indexer, ascending. */
  readonly selected: Record<string, Record<string, number[]>>;
  readonly greedy: number[];
}

/** Blocks of cache that scoring needs. */
export function scoreBlocks(tokens: number, greedyTokens: number): number {
  return Math.ceil((tokens + greedyTokens) / blockTokens);
}

/** Runs the sequence alone, in chunks of the model's row limit, then continues it greedily. */
export function score(model: Model, ids: readonly number[], options: ScoreOptions): Scores {
  assert(ids.length > 0, 'there is nothing to score');
  const wanted = new Set(options.positions);
  const argmax: number[] = [];
  const logits: Scores['logits'] = {};
  const selected: Scores['selected'] = {};
  let nllSum = 0;

  for (let start = 0; start < ids.length; start += model.limits.rowsMax) {
    const chunk = ids.slice(start, start + model.limits.rowsMax);
    model.forward(sequenceBatch(chunk, start), selectionRecorder(selected, wanted, start));
    for (let from = 0; from < chunk.length; from += model.limits.logitRowsMax) {
      const count = Math.min(model.limits.logitRowsMax, chunk.length - from);
      const rows = Int32Array.from({ length: count }, (_, i) => from + i);
      const values = model.logits(rows);
      for (let i = 0; i < count; i++) {
        const position = start + from + i;
        const row = values.subarray(i * model.vocabSize, (i + 1) * model.vocabSize);
        argmax.push(indexOfMax(row));
        if (wanted.has(position)) logits[position] = [...row];
        if (position + 1 < ids.length) nllSum += negativeLogLikelihood(row, at(ids, position + 1));
      }
    }
    options.onProgress?.(start + chunk.length, ids.length);
  }
  return {
    argmax,
    meanNll: ids.length > 1 ? nllSum / (ids.length - 1) : null,
    logits,
    selected,
    greedy: continueGreedily(model, ids.length, at(argmax, ids.length - 1), options.greedyTokens),
  };
}

function continueGreedily(model: Model, length: number, first: number, count: number): number[] {
  const greedy: number[] = [];
  for (let token = first; greedy.length < count;) {
    greedy.push(token);
    if (greedy.length === count) break;
    model.forward(sequenceBatch([token], length + greedy.length - 1));
    token = indexOfMax(model.logits(Int32Array.of(0)));
  }
  return greedy;
}

/** Rows start..start+n of one sequence whose block i is physical block i. */
function sequenceBatch(tokens: readonly number[], start: number): Batch {
  const positions = Int32Array.from({ length: tokens.length }, (_, i) => start + i);
  const blocks = Math.ceil((start + tokens.length) / blockTokens);
  return {
    tokens: Int32Array.from(tokens),
    positions,
    slots: positions,
    sequences: new Int32Array(tokens.length),
    blockTables: [Int32Array.from({ length: blocks }, (_, i) => i)],
  };
}

function selectionRecorder(
  selected: Scores['selected'],
  wanted: ReadonlySet<number>,
  start: number,
): ForwardObserver {
  if (wanted.size === 0) return {};
  return {
    selection(layer, rows) {
      const ofLayer = (selected[layer] ??= {});
      rows.forEach((positions, row) => {
        if (wanted.has(start + row)) ofLayer[start + row] = [...positions];
      });
    },
  };
}

function indexOfMax(values: Float32Array): number {
  let best = 0;
  let max = at(values, 0);
  for (let i = 1; i < values.length; i++) {
    const value = values[i] ?? missing();
    if (value > max) {
      best = i;
      max = value;
    }
  }
  return best;
}

/** -ln softmax(logits)[token], in float64. */
function negativeLogLikelihood(logits: Float32Array, token: number): number {
  const max = at(logits, indexOfMax(logits));
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  return Math.log(sum) + max - at(logits, token);
}
