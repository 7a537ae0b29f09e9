/**
 * The lightning indexer: scores of every visible token, then the exact top of each row (top-k.cu).
 */
import { strict as assert } from 'node:assert';
import { missing } from '../../../at.ts';
import { blockTokens } from '../../batch.ts';
import { checkIndexDim, checkSelectionRows, checkSelectionWidth } from '../../checks.ts';
import type { IndexerOps, SelectOptions } from '../../indexer.ts';
import type { LayerCache, Selection, Tensor } from '../../shapes.ts';
import {
  CudaLayerCache,
  CudaSelection,
  dtypeCode,
  asCuda,
  f32Tensor,
  inputTensor,
} from '../handles.ts';
import type { OpContext } from '../op-context.ts';

/** Bytes of scores, their maxima and quantised queries at a time, whatever the context. */
const scoreBytesMax = 256 * 2 ** 20;
/** Tokens of a row that one block of the plain kernel takes. */
const plainSpan = 128;
/** Adjacent tokens of which the greatest score is kept beside the scores. */
const groupTokens = 16;
/** The most rows that share a pass over keys; parts of a step are whole groups of them. */
const groupRows = 8;
/**
 * By the heads that sm90-index-scores.cu takes: how many rows of one sequence share a pass over its
 * keys, and the kernels for one row and for so many. `kStages` are pages on their way or being read
 * in a block; the same object at every launch is found at once.
 */
const scoreKernels = {
  32: kernelsOf({ kHeads: 32, sharedRows: 8 }),
  64: kernelsOf({ kHeads: 64, sharedRows: 4 }),
} as const;
const topDefines = { few: { kTopThreads: 1024 }, many: { kTopThreads: 512 } } as const;
/** Tokens whose bits the top-k holds at a time. */
const windowMax = 262_144;

/** Rows [first, first + count) of a step, whose scores lie `tokens` apart. */
export interface ScoredRows {
  readonly tokens: number;
  readonly first: number;
  readonly count: number;
}

/** Rows that are alone in their sequences, and those whose sequences have more. */
const rowKinds = ['single', 'shared'] as const;
type RowKind = (typeof rowKinds)[number];
type ScoreKernels = Readonly<
  Record<RowKind, { readonly kHeads: number; readonly kQueries: number; readonly kStages: number }>
>;

interface ScoreCall {
  readonly cache: CudaLayerCache;
  readonly q: { readonly at: number; readonly stride: number };
  readonly w: { readonly at: number; readonly stride: number };
  readonly heads: number;
  readonly dim: number;
  readonly width: number;
}

export class CudaIndexer implements IndexerOps {
  readonly #context: OpContext;
  /** [rows, tokens] scores, then [rows, tokens / 16] maxima, then the rows' queries and weights. */
  #scores = 0;
  #nanFlagAt = 0;

  constructor(context: OpContext) {
    this.#context = context;
  }

  /**
   * Takes the scratch for scoring, with the first selection: before the caches take what is left.
   */
  #reserve(): void {
    if (this.#scores > 0) return;
    const { device } = this.#context;
    this.#scores = device.allocate(scoreBytesMax, 'activation', 'index scores');
    this.#nanFlagAt = device.allocate(4, 'activation', 'the mark of bad scores');
    device.fill(this.#nanFlagAt, 4, 0);
  }

  selection(rows: number, width: number): CudaSelection {
    checkSelectionWidth(width);
    this.#reserve();
    const { device } = this.#context;
    const at = device.allocate(rows * width * 4, 'activation', 'a selection');
    const counts = device.allocate(rows * 4, 'activation', 'a selection');
    return new CudaSelection({ rows, width }, { at, counts });
  }

  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    const { step } = this.#context;
    const selection = asCuda(CudaSelection, out);
    const from = asCuda(CudaLayerCache, cache);
    const { heads, dim } = options;
    const { rows } = step;
    const { width } = selection;
    checkIndexDim(from.shape, dim);
    checkSelectionRows(selection, rows);
    const q = inputTensor(queries, rows, heads * dim);
    const w = f32Tensor(weights, rows, heads);
    const call = { cache: from, q, w, heads, dim, width };
    for (const chunk of this.chunks(width, heads * (dim + 4))) {
      if (step.seesMoreThan(width)) this.scores(call, chunk);
      this.topK(selection, chunk);
    }
  }

  /** The rows of the step in parts whose scores fit, `queryBytes` of a row's queries among them. */
  chunks(width: number, queryBytes: number): ScoredRows[] {
    const { step } = this.#context;
    const { rows, longestBucket: tokens } = step;
    if (!step.seesMoreThan(width)) return [{ tokens, first: 0, count: rows }];
    const rowBytes = tokens * 4 + (tokens / groupTokens) * 4 + queryBytes;
    const fit = Math.floor(scoreBytesMax / rowBytes / groupRows) * groupRows;
    assert(fit > 0, 'a row of scores does not fit');
    const parts = Math.ceil(rows / fit);
    const size = Math.ceil(rows / parts / groupRows) * groupRows;
    const chunks: ScoredRows[] = [];
    for (let first = 0; first < rows; first += size) {
      chunks.push({ tokens, first, count: Math.min(size, rows - first) });
    }
    return chunks;
  }

  /** Addresses of the scores of a chunk's rows. */
  places({ tokens, count }: ScoredRows): { scores: number; maxima: number; queries: number } {
    const scores = this.#scores;
    const maxima = scores + count * tokens * 4;
    return { scores, maxima, queries: maxima + count * (tokens / groupTokens) * 4 };
  }

  /** The exact top of rows that have scores and maxima. */
  topK(selection: CudaSelection, rows: ScoredRows): void {
    const { device, step } = this.#context;
    const { tokens, first, count } = rows;
    const { scores, maxima } = this.places(rows);
    const window = Math.min(tokens, windowMax);
    // Few rows leave most of the GPU idle: then one of them gets more threads.
    const specialised = count <= device.smCount ? topDefines.few : topDefines.many;
    const sharedBytes = 4 * (2048 + 3 * 4096) + window / 4;
    const shape = { grid: [count, 1, 1], threads: specialised.kTopThreads, sharedBytes } as const;
    device.launch(device.kernel('topK', 'top_k', specialised), shape, {
      scores,
      maxima,
      score_stride: tokens,
      first_row: first,
      width: selection.width,
      window,
      positions: step.positions,
      selected: selection.at,
      counts: selection.counts,
    });
  }

  /** The maxima of rows that have only scores. */
  maxima(width: number, rows: ScoredRows): void {
    const { device, step } = this.#context;
    const { tokens, first, count } = rows;
    const { scores, maxima } = this.places(rows);
    const groups = tokens / groupTokens;
    const shape = { grid: [Math.ceil(groups / 128), count, 1], threads: 128 } as const;
    device.launch(device.kernel('topK', 'group_maxima'), shape, {
      scores,
      score_stride: tokens,
      first_row: first,
      width,
      positions: step.positions,
      maxima,
    });
  }

  /** Scores and maxima of rows that see more than `width` tokens. */
  scores(call: ScoreCall, rows: ScoredRows): void {
    const kernels = this.#kernelsFor(call);
    this.#noteKernel(call, kernels !== null);
    if (kernels !== null) {
      this.#scoresSm90(call, rows, kernels);
      return;
    }
    const { device, step, defines } = this.#context;
    const { cache, q, w, heads, dim, width } = call;
    const { tokens, first, count } = rows;
    const grid = [Math.ceil(tokens / plainSpan), count, 1] as const;
    const shape = { grid, threads: 128, sharedBytes: heads * (dim + 1) * 4 };
    device.launch(device.kernel('indexScores', 'index_scores', defines), shape, {
      keys: cache.keys,
      page_bytes: cache.pageBytes,
      format: cache.keyFormat,
      dim,
      heads,
      queries: q.at,
      query_stride: q.stride,
      weights: w.at,
      weight_stride: w.stride,
      positions: step.positions,
      tables: step.tables,
      table_start: step.tableStarts,
      scores: this.#scores,
      score_stride: tokens,
      first_row: first,
      width,
      head_scale: heads ** -0.5,
      dim_scale: dim ** -0.5,
      not_a_number: this.#nanFlagAt,
    });
    this.maxima(width, rows);
  }

  #scoresSm90(call: ScoreCall, rows: ScoredRows, kernels: ScoreKernels): void {
    const { device, step, defines: activations } = this.#context;
    const { cache, q, w, heads, dim, width } = call;
    const { tokens, first, count } = rows;
    const { scores, maxima, queries: codes } = this.places(rows);
    const weights = codes + count * heads * dim;
    const perHead = { grid: [Math.ceil(heads / 4), count, 1], threads: 128 } as const;
    device.launch(device.kernel('indexScores', 'index_queries', activations), perHead, {
      codes,
      weights,
      queries: q.at,
      query_stride: q.stride,
      head_weights: w.at,
      weight_stride: w.stride,
      heads,
      head_scale: heads ** -0.5,
      dim_scale: dim ** -0.5,
      first_row: first,
    });
    for (const { start, end, kind } of this.#launches(first, count)) {
      const defines = kernels[kind];
      const kernel = device.kernel('sm90Scores', 'sm90_index_scores', defines);
      const span = kind === 'single' ? spanOfSingleRows(tokens, end - start) : 32;
      const groups = Math.ceil((end - start) / defines.kQueries);
      const grid = [Math.ceil(tokens / blockTokens / span), groups, 1] as const;
      const queryBytes = defines.kQueries * heads * (dim + 4);
      const sharedBytes = queryBytes + defines.kStages * cache.pageBytes;
      device.launch(
        kernel,
        { grid, threads: 128, sharedBytes },
        {
          keys: cache.keys,
          page_bytes: cache.pageBytes,
          queries: codes,
          weights,
          positions: step.positions,
          tables: step.tables,
          table_start: step.tableStarts,
          step_rows: step.rows,
          scores,
          maxima,
          score_stride: tokens,
          first_row: first,
          row_start: start,
          row_end: end,
          width,
          span,
          not_a_number: this.#nanFlagAt,
        },
      );
    }
  }

  /**
   * Sequences with one row have one kernel, those whose rows share keys another. Each is launched
   * for rows of the chunk, from the first to the last of its kind, and leaves out the others.
   */
  #launches(first: number, count: number): { start: number; end: number; kind: RowKind }[] {
    const { step } = this.#context;
    if (step.sequenceCount === step.rows) return [{ start: 0, end: count, kind: 'single' }];
    if (step.sequenceCount === 1) return [{ start: 0, end: count, kind: 'shared' }];
    return rowKinds.flatMap((kind) => {
      const mine = step.sequences.filter(
        ({ rowStart, rowCount }) =>
          rowCount > 1 === (kind === 'shared') &&
          rowStart < first + count &&
          rowStart + rowCount > first,
      );
      const [head, tail] = [mine[0], mine.at(-1)];
      if (head === undefined || tail === undefined) return [];
      const start = Math.max(head.rowStart - first, 0);
      return { start, end: Math.min(tail.rowStart + tail.rowCount - first, count), kind };
    });
  }

  /** The tensor core kernels for this shape; null if the plain one computes it. */
  #noteKernel({ heads, dim }: ScoreCall, onTensorCores: boolean): void {
    const shape = `${heads} heads of ${dim}`;
    this.#context.kernels.note(
      'index scores',
      onTensorCores
        ? { kernel: 'sm90_index_scores', unit: 'tensor cores' }
        : { kernel: 'index_scores', unit: 'plain', shape },
    );
  }

  #kernelsFor({ cache, heads, dim }: ScoreCall): ScoreKernels | null {
    const fits =
      this.#context.useTensorCores && cache.keyFormat === dtypeCode.F8_E4M3 && dim === 128;
    return fits && (heads === 32 || heads === 64) ? scoreKernels[heads] : null;
  }

  readSelection(selection: Selection, rows: number): Int32Array[] {
    const { at, counts, width } = asCuda(CudaSelection, selection);
    checkSelectionRows(selection, rows);
    const { device } = this.#context;
    const all = new Int32Array(device.download(at, rows * width * 4).buffer);
    const lengths = new Int32Array(device.download(counts, rows * 4).buffer);
    this.checkNan();
    return Array.from(lengths, (length, r) => all.slice(r * width, r * width + length));
  }

  /** Address of the word that is 0 until a score is NaN; null before any selection. */
  get nanFlag(): number | null {
    return this.#nanFlagAt === 0 ? null : this.#nanFlagAt;
  }

  /** Throws if a score since the last check was NaN. */
  checkNan(): void {
    if (this.nanFlag !== null)
      this.assertNoNan(this.#context.device.download(this.nanFlag, 4)[0] ?? missing());
  }

  /** Throws if `word`, read at `nanFlag`, says that a score was NaN. */
  assertNoNan(word: number): void {
    if (word === 0) return;
    this.#context.device.fill(this.#nanFlagAt, 4, 0);
    throw new Error('an index score is not a number');
  }
}

function kernelsOf({ kHeads, sharedRows }: { kHeads: number; sharedRows: number }): ScoreKernels {
  return {
    single: { kHeads, kQueries: 1, kStages: 4 },
    shared: { kHeads, kQueries: sharedRows, kStages: 2 },
  };
}

/** Pages of a block that scores one row: few enough to give every SM work. */
function spanOfSingleRows(tokens: number, rows: number): number {
  const share = (rows * tokens) / blockTokens / 512;
  return Math.min(Math.max(2 ** Math.floor(Math.log2(share)), 4), 16);
}
