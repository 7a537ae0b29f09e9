/**
 * The top-k of many rows of one sequence by approximate scores, and by exact ones where those don't
 * tell: the same selection as by exact scores of all tokens (kernels/index-filter.ts proves it).
 */
import { at } from '../../at.ts';
import { blockTokens } from '../batch.ts';
import type { CpuLayerCache, CpuSelection } from './handles.ts';
import {
  opIndexFilter,
  opPackIndexKeys,
  scoreRowsMax,
  scoreTaskBytes,
  threadScratchBytes,
} from './kernels/op-codes.ts';
import type { OpContext } from './op-context.ts';
import type { PlacedRows } from './step.ts';
import { f32 } from './thread-pool.ts';

/** Packed keys of one sequence: 196,608 tokens of 64 dimensions. */
const packedBytes = 25_165_824;
/** Pages of the narrowest keys that fit; each has a scale. */
const pagesMax = 65_536;
/** With fewer rows, packing the keys costs more than it saves. */
const filterRowsMin = scoreRowsMax;
/** A row's list holds this many times the tokens that it selects; what may be selected stays. */
const listWidths = 4;
const listTokensMin = 1024;

/** The index queries and weights of a step, and where its selection goes. */
export interface SelectCall {
  readonly cache: CpuLayerCache;
  readonly q: { readonly at: number; readonly stride: number };
  readonly w: { readonly at: number; readonly stride: number };
  readonly heads: number;
  readonly dim: number;
  readonly selection: CpuSelection;
}

export class CpuIndexFilter {
  readonly #context: OpContext;
  #packed = 0;
  #scales = 0;
  #flags = 0;
  #tasks = 0;

  constructor(context: OpContext) {
    this.#context = context;
  }

  /** Takes its memory, before the caches take what is left. */
  reserve(): void {
    const { arena, step } = this.#context;
    this.#packed = arena.allocate(packedBytes, 'activation', 'packed index keys');
    this.#scales = arena.allocate(pagesMax * 4, 'activation', 'scales of packed index keys');
    this.#flags = arena.allocate(step.rowsMax * 4, 'activation', 'flags of index rows');
    const tasks = Math.ceil(step.rowsMax / scoreRowsMax) * scoreTaskBytes;
    this.#tasks = arena.allocate(tasks, 'activation', 'index filter tasks');
  }

  /** False if exact scores have to select: few rows, or scores too close to each other. */
  select(rows: PlacedRows, call: SelectCall): boolean {
    const { selection, dim } = call;
    const pages = Math.ceil(rows.tokens / blockTokens);
    const capacity = Math.max(listTokensMin, listWidths * selection.width);
    const isFit =
      rows.rowCount >= filterRowsMin &&
      rows.tokens > selection.width &&
      dim % 2 === 0 &&
      pages <= pagesMax &&
      pages * blockTokens * dim * 2 <= packedBytes &&
      scratchBytes(call, capacity) <= threadScratchBytes;
    if (!isFit) return false;
    this.#packKeys(rows, pages, call);
    this.#filter(rows, capacity, call);
    const first = this.#flags / 4 + rows.rowStart;
    return !this.#context.arena.u32.subarray(first, first + rows.rowCount).includes(1);
  }

  #packKeys(rows: PlacedRows, pages: number, { cache, dim }: SelectCall): void {
    this.#context.pool.run({
      op: opPackIndexKeys,
      tasks: pages,
      work: pages * blockTokens * dim,
      arguments: [cache.view, rows.blockTable, this.#packed, this.#scales],
    });
  }

  #filter(rows: PlacedRows, capacity: number, call: SelectCall): void {
    const { pool, step } = this.#context;
    const { cache, q, w, heads, dim, selection } = call;
    pool.run({
      op: opIndexFilter,
      tasks: this.#writeTasks(rows),
      work: rows.rowCount * rows.tokens * heads * dim,
      arguments: [
        [this.#tasks, cache.view, q.at, q.stride, w.at, w.stride, heads, step.blockTables],
        [0, 0, 0, f32(heads ** -0.5), f32(dim ** -0.5)],
        [this.#packed, this.#scales, step.positions],
        [selection.width, selection.at, selection.counts, this.#flags, capacity],
      ],
    });
  }

  /** The last rows, which see most, come first, so that the threads end together. */
  #writeTasks({ rowStart, rowCount }: PlacedRows): number {
    const { arena, step } = this.#context;
    let task = this.#tasks / 4;
    for (let end = rowStart + rowCount; end > rowStart; end -= scoreRowsMax) {
      const first = Math.max(rowStart, end - scoreRowsMax);
      const pages = Math.floor(at(step.batch.positions, end - 1) / blockTokens) + 1;
      arena.u32.set([first, end - first, 0, pages], task);
      task += scoreTaskBytes / 4;
    }
    return (task - this.#tasks / 4) / (scoreTaskBytes / 4);
  }
}

/** Scratch of a task, as the kernel's `placesOf` lays it out. */
function scratchBytes({ heads, dim }: SelectCall, capacity: number): number {
  const groups = Math.ceil(heads / 4);
  const queries = scoreRowsMax * groups * (dim * 8 + 16);
  const exact = groups * (dim * 16 + 16) + dim * 260;
  const lists = capacity * (8 + scoreRowsMax * 8);
  return 64 + queries + exact + 256 + scoreRowsMax * 16 + 16_384 + lists;
}
