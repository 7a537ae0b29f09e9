/** The lightning indexer: scores of every visible token, then the exact top of each row (select.cu). */
import assert from 'node:assert/strict';
import { type LayerCache, type Selection, type SelectOptions, type Tensor } from '../backend.ts';
import { Scratch } from './device.ts';
import { CudaLayerCache, CudaSelection, dtypeCode, own, ownFloats, ownTensor } from './handles.ts';
import { real } from './launch-queue.ts';
import type { Machine } from './machine.ts';

/** Bytes of scores that are kept at a time, whatever the context: rows go in chunks that fit. */
const scoreBytesMax = 256 * 2 ** 20;
/** Tokens of a row that one block of the sm90 kernel takes, and of the plain one. */
const blockSpan = 1024;
const plainSpan = 128;

export class Selector {
  readonly #machine: Machine;
  #scores = { at: 0, floats: 0 };
  readonly #queries: Scratch;
  #notANumber = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#queries = new Scratch(machine.device, 'quantised index queries');
  }

  /** Takes the scratch for scoring, with the first selection: before the caches take what is left. */
  #reserve(): void {
    if (this.#scores.floats > 0) return;
    const { device } = this.#machine;
    const floats = scoreBytesMax / 4;
    this.#scores = { at: device.allocate(scoreBytesMax, 'activation', 'index scores'), floats };
    this.#notANumber = device.allocate(4, 'activation', 'the mark of bad scores');
    device.fill(this.#notANumber, 4, 0);
  }

  selection(rows: number, width: number): CudaSelection {
    assert(width > 0, 'a selection needs a width');
    this.#reserve();
    const { device } = this.#machine;
    const at = device.allocate(rows * width * 4, 'activation', 'a selection');
    const counts = device.allocate(rows * 4, 'activation', 'a selection');
    return new CudaSelection({ rows, width }, { at, counts });
  }

  select(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    const { step } = this.#machine;
    const selection = own(CudaSelection, out);
    const from = own(CudaLayerCache, cache);
    const { heads, dim } = options;
    const { rows } = step;
    const { width } = selection;
    assert(dim === from.shape.indexDim, 'the queries do not have the width of the index keys');
    assert(rows <= selection.rows, `${rows} rows do not fit a selection of ${selection.rows}`);
    const q = ownTensor(queries, rows, heads * dim);
    const w = ownFloats(weights, rows, heads);
    const tokens = step.longestBucket;
    const chunk = Math.min(rows, Math.floor(this.#scores.floats / tokens));
    assert(chunk > 0, 'a row of scores does not fit');
    for (let first = 0; first < rows; first += chunk) {
      const count = Math.min(chunk, rows - first);
      if (step.seesMoreThan(width))
        this.#score(from, { q, w, heads, dim, width, tokens, first, count });
      this.top(selection, { tokens, first, count });
    }
  }

  /** The top of rows [first, first + count) by the scores that lie `tokens` apart in the buffer. */
  top(selection: CudaSelection, rows: { tokens: number; first: number; count: number }): void {
    const { device, step, defines } = this.#machine;
    const { tokens, first, count } = rows;
    const shape = { grid: [count, 1, 1], threads: 1024 } as const;
    device.launch(device.kernel('select', 'top_k', defines), shape, [
      [this.#scores.at, tokens, first, selection.width, step.positions],
      [selection.at, selection.counts, this.#notANumber],
    ]);
  }

  #score(
    cache: CudaLayerCache,
    call: {
      q: { at: number; stride: number };
      w: { at: number; stride: number };
      heads: number;
      dim: number;
      width: number;
      tokens: number;
      first: number;
      count: number;
    },
  ): void {
    const { device, step, defines } = this.#machine;
    const { q, w, heads, dim, width, tokens, first, count } = call;
    const constants = [real(heads ** -0.5), real(dim ** -0.5)];
    if (this.#isSm90(cache, heads, dim)) {
      const codes = this.#queries.at(step.rowsMax * heads * (dim + 4));
      const weights = codes + step.rowsMax * heads * dim;
      const perHead = { grid: [Math.ceil(heads / 4), count, 1], threads: 128 } as const;
      device.launch(device.kernel('select', 'index_queries', defines), perHead, [
        [codes, weights, q.at, q.stride, w.at, w.stride, heads, ...constants, first],
      ]);
      // Rows of one sequence share a pass over its keys.
      const kQueries = step.sequenceCount === 1 && count > 1 ? 4 : 1;
      const grid = [Math.ceil(tokens / blockSpan), Math.ceil(count / kQueries), 1] as const;
      const sharedBytes = (kQueries + 6) * 8192 + 1024;
      const kernel = device.kernel('sm90Scores', 'sm90_index_scores', { kQueries });
      device.launch(kernel, { grid, threads: 256, sharedBytes }, [
        [cache.keys, cache.pageBytes, codes, weights, step.positions, step.tables],
        [step.tableStarts, this.#scores.at, tokens, first, width, count],
      ]);
      return;
    }
    const grid = [Math.ceil(tokens / plainSpan), count, 1] as const;
    const sharedBytes = heads * (dim + 1) * 4;
    device.launch(
      device.kernel('select', 'index_scores', defines),
      { grid, threads: 128, sharedBytes },
      [
        [cache.keys, cache.pageBytes, cache.keyFormat, dim, heads, q.at, q.stride, w.at, w.stride],
        [step.positions, step.tables, step.tableStarts, this.#scores.at, tokens, first, width],
        constants,
      ],
    );
  }

  /** Whether the tensor core kernel has this shape. */
  #isSm90(cache: CudaLayerCache, heads: number, dim: number): boolean {
    const { matrixUnit } = this.#machine;
    return matrixUnit && cache.keyFormat === dtypeCode.F8_E4M3 && heads === 64 && dim === 128;
  }

  /** The address of a word that is 0 until a score is not a number; null before any selection. */
  get mark(): number | null {
    return this.#notANumber === 0 ? null : this.#notANumber;
  }

  /** Throws if a score since the last look was not a number. */
  check(): void {
    if (this.mark !== null) this.judge(this.#machine.device.download(this.mark, 4)[0] ?? 0);
  }

  /** Throws if the word at `mark`, looked at already, says that a score was not a number. */
  judge(word: number): void {
    if (word === 0) return;
    this.#machine.device.fill(this.#notANumber, 4, 0);
    throw new Error('an index score is not a number');
  }
}
