/**
 * The lightning indexer: the exact top of each row, by scores of every visible token. Long runs of
 * a sequence's rows go through a filter first (index-filter.ts).
 */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { blockTokens } from '../batch.ts';
import { checkIndexDim, checkSelectionRows, checkSelectionWidth } from '../checks.ts';
import type { IndexerOps, SelectOptions } from '../indexer.ts';
import type { LayerCache, Selection, Tensor } from '../shapes.ts';
import { CpuLayerCache, CpuSelection, asCpu, checkedTensor } from './handles.ts';
import {
  notANumberAt,
  opIndexScores,
  opTopK,
  scoreRowsMax,
  scoreTaskBytes,
  threadScratchBytes,
} from './kernels/op-codes.ts';
import { CpuIndexFilter } from './index-filter.ts';
import type { SelectCall } from './index-filter.ts';
import type { OpContext } from './op-context.ts';
import { f32 } from './thread-pool.ts';

/** Scores that are kept at a time, several rows' of them; 16 MiB. */
const scoresMax = 4_194_304;
/** Pages that one task scores. */
const taskPages = 16;
/** Keys that a thread's scratch takes beside the histograms of the top-k. */
const contextMax = Math.floor(threadScratchBytes / 4) - 4096;

/** Rows [start, end) whose scores fit the buffer together. */
interface Chunk {
  readonly start: number;
  readonly end: number;
  /** Floats between the scores of two rows. */
  readonly stride: number;
}

export class CpuIndexer implements IndexerOps {
  readonly #context: OpContext;
  readonly #filter: CpuIndexFilter;
  #scores = { at: 0, count: 0 };
  #tasks = { at: 0, count: 0 };

  constructor(context: OpContext) {
    this.#context = context;
    this.#filter = new CpuIndexFilter(context);
  }

  /**
   * Takes the scratch for scoring, with the first selection: before the caches take what is left.
   */
  #reserve(): void {
    if (this.#scores.count > 0) return;
    const { arena, step } = this.#context;
    const scores = arena.allocate(scoresMax * 4, 'activation', 'index scores');
    this.#scores = { at: scores, count: scoresMax };
    const count = step.rowsMax + Math.ceil(scoresMax / (taskPages * blockTokens));
    const tasks = arena.allocate(count * scoreTaskBytes, 'activation', 'index score tasks');
    this.#tasks = { at: tasks, count };
    this.#filter.reserve();
  }

  selection(rows: number, width: number): CpuSelection {
    checkSelectionWidth(width);
    this.#reserve();
    const { arena } = this.#context;
    const positions = arena.allocate(rows * width * 4, 'activation', 'a selection');
    const counts = arena.allocate(rows * 4, 'activation', 'a selection');
    return new CpuSelection({ rows, width }, { at: positions, counts });
  }

  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    const { step, arena } = this.#context;
    const selection = asCpu(CpuSelection, out);
    const from = asCpu(CpuLayerCache, cache);
    const { heads, dim } = options;
    const { rows } = step;
    checkIndexDim(from.shape, dim);
    checkSelectionRows(selection, rows);
    const groups = Math.ceil(heads / 4);
    const scratch = dim * 260 + scoreRowsMax * groups * 16 * (dim + 1);
    assert(scratch <= threadScratchBytes, `${heads} index heads of ${dim} are too many`);

    const q = checkedTensor(queries, rows, heads * dim);
    const w = checkedTensor(weights, rows, heads);
    const call: SelectCall = { cache: from, q, w, heads, dim, selection };
    let start = 0;
    for (const sequence of step.sequences) {
      if (!this.#filter.select(sequence, call)) continue;
      this.#selectExactly({ start, end: sequence.rowStart }, call);
      start = sequence.rowStart + sequence.rowCount;
    }
    this.#selectExactly({ start, end: rows }, call);
    const bad = arena.i32[notANumberAt / 4] !== 0;
    arena.i32[notANumberAt / 4] = 0;
    assert(!bad, `layer ${from.layer}: an index score is not a number`);
  }

  /** By the exact scores of all visible tokens: rows [start, end) of any sequences. */
  #selectExactly(rows: { start: number; end: number }, call: SelectCall): void {
    for (const chunk of this.#chunks(rows, call.selection.width)) {
      this.#score(chunk, call);
      this.#topK(chunk, call.selection);
    }
  }

  #chunks({ start, end }: { start: number; end: number }, width: number): Chunk[] {
    if (start === end) return [];
    const longest = this.#context.step.sequences
      .filter(({ rowStart, rowCount }) => rowStart < end && rowStart + rowCount > start)
      .reduce((most, sequence) => Math.max(most, sequence.tokens), 0);
    if (longest <= width) return [{ start, end, stride: 0 }];
    const stride = Math.ceil(longest / blockTokens) * blockTokens;
    assert(longest <= contextMax, `a sequence of ${longest} tokens; the top-k takes ${contextMax}`);
    const rowsPerChunk = Math.floor(this.#scores.count / stride);
    assert(rowsPerChunk > 0, 'a row of scores does not fit');
    const chunks: Chunk[] = [];
    for (let first = start; first < end; first += rowsPerChunk) {
      chunks.push({ start: first, end: Math.min(first + rowsPerChunk, end), stride });
    }
    return chunks;
  }

  #score(chunk: Chunk, { cache, q, w, heads, dim, selection }: SelectCall): void {
    const { pool, step } = this.#context;
    const { tasks, pages } = this.#writeTasks(chunk, selection.width);
    pool.run({
      op: opIndexScores,
      tasks,
      work: pages * blockTokens * heads * dim,
      arguments: [
        [this.#tasks.at, cache.view, q.at, q.stride, w.at, w.stride, heads, step.blockTables],
        [this.#scores.at, chunk.stride * 4, chunk.start],
        [f32(heads ** -0.5), f32(dim ** -0.5)],
      ],
    });
  }

  /**
   * Cuts the chunk's rows that see more than `width` tokens into groups, and their pages into runs.
   */
  #writeTasks(chunk: Chunk, width: number): { tasks: number; pages: number } {
    const { arena, step } = this.#context;
    const { positions } = step.batch;
    let tasks = 0;
    let pages = 0;
    for (const { rowStart, rowCount } of step.sequences) {
      const end = Math.min(rowStart + rowCount, chunk.end);
      let row = Math.max(rowStart, chunk.start);
      while (row < end && at(positions, row) < width) row++;
      for (; row < end; row += scoreRowsMax) {
        const rows = Math.min(scoreRowsMax, end - row);
        const lastPage = Math.floor(at(positions, row + rows - 1) / blockTokens);
        for (let page = 0; page <= lastPage; page += taskPages) {
          const pageEnd = Math.min(page + taskPages, lastPage + 1);
          const task = this.#tasks.at + tasks * scoreTaskBytes;
          arena.u32.set([row, rows, page, pageEnd], task / 4);
          tasks++;
          pages += rows * (pageEnd - page);
        }
      }
    }
    assert(tasks <= this.#tasks.count, 'there are more score tasks than planned');
    return { tasks, pages };
  }

  #topK(chunk: Chunk, selection: CpuSelection): void {
    const { pool, step } = this.#context;
    const rows = chunk.end - chunk.start;
    pool.run({
      op: opTopK,
      tasks: rows,
      work: rows * Math.max(chunk.stride * 4, selection.width),
      arguments: [
        [chunk.start, this.#scores.at, chunk.stride * 4, step.positions],
        [selection.width, selection.at, selection.counts],
      ],
    });
  }

  readSelection(selection: Selection, rows: number): Int32Array[] {
    const { at: positions, counts, width } = asCpu(CpuSelection, selection);
    checkSelectionRows(selection, rows);
    const { i32 } = this.#context.arena;
    return Array.from({ length: rows }, (_, r) => {
      const start = positions / 4 + r * width;
      return i32.slice(start, start + at(i32, counts / 4 + r));
    });
  }
}
