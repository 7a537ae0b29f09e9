/** Attention over the cached latents: absorbed, and with expanded keys and values. */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { selectionOf } from '../attention.ts';
import type {
  AttendOptions,
  AttentionOps,
  ExpandedAttendOptions,
  ExpandedCall,
} from '../attention.ts';
import { blockTokens } from '../batch.ts';
import { checkExpanded } from '../checks.ts';
import type { LayerCache, Matrix, Selection, Tensor } from '../shapes.ts';
import { Scratch } from './arena.ts';
import { CpuLayerCache, CpuMatrix, CpuSelection, asCpu, checkedTensor } from './handles.ts';
import type { CpuTensor } from './handles.ts';
import {
  keyBlock,
  opAttend,
  opAttendPages,
  opExpandEntries,
  opFinishPages,
  opPackKeys,
  pageRowsMax,
  threadScratchBytes,
} from './kernels/op-codes.ts';
import type { CpuGemm } from './gemm.ts';
import type { OpContext } from './op-context.ts';
import type { PlacedRows } from './step.ts';
import { f32 } from './thread-pool.ts';
import type { Arguments } from './thread-pool.ts';

/** Pages whose keys and values are expanded at a time. */
const expandedPages = 4;
const panelHeads = 8;

/** The arguments that name a selection: positions, width, counts; zeros for all tokens. */
function selectionArguments(selection: CpuSelection | null): number[] {
  return selection === null ? [0, 0, 0] : [selection.at, selection.width, selection.counts];
}

type OwnExpandedCall = ExpandedCall<CpuTensor, CpuLayerCache, CpuMatrix, CpuSelection>;

export class CpuAttention implements AttentionOps {
  readonly #context: OpContext;
  readonly #gemm: CpuGemm;
  readonly #softmax: Scratch;
  readonly #entries: Scratch;
  readonly #expanded: Scratch;
  readonly #keys: Scratch;
  readonly #states: Scratch;

  constructor(context: OpContext, gemm: CpuGemm) {
    this.#context = context;
    this.#gemm = gemm;
    const scratch = (what: string) => new Scratch(context.arena, what);
    this.#softmax = scratch('softmax maxima and sums');
    this.#entries = scratch('cache entries to expand');
    this.#expanded = scratch('expanded keys and values');
    this.#keys = scratch('expanded keys in panels');
    this.#states = scratch('running softmax states');
  }

  #selection(handle: Selection | null): CpuSelection | null {
    return selectionOf(handle, (each) => asCpu(CpuSelection, each), this.#context.step.rows);
  }

  /** Never, so that a row's bits do not depend on how many others of its sequence come along. */
  expandsFaster(): boolean {
    return false;
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void {
    const { pool, step, round } = this.#context;
    const from = asCpu(CpuLayerCache, cache);
    const { latentDim, ropeDim } = from.shape;
    const { heads, rows = step.rows } = options;
    const sequences = step.sequences.filter(({ rowStart }) => rowStart < rows);
    assert(heads > 0 && sequences.length > 0, 'attention needs a head and a row');
    const query = checkedTensor(q, rows, heads * (latentDim + ropeDim));
    const into = checkedTensor(out, rows, heads * latentDim);
    const chosen = this.#selection(selection);
    const lseInto = lse === undefined ? null : checkedTensor(lse, rows, heads);
    const states = lseInto === null ? 0 : this.#softmax.at(rows * heads * 8);
    const sums = lseInto === null ? 0 : states + rows * heads * 4;

    const longest = Math.max(...sequences.map((sequence) => sequence.tokens));
    const keys = Math.min(longest, chosen?.width ?? longest);
    const parts = this.#headParts(heads, latentDim, latentDim + ropeDim);
    pool.run({
      op: opAttend,
      tasks: rows * parts,
      work: rows * keys * heads * (2 * latentDim + ropeDim),
      arguments: [
        [parts, from.view, query.at, query.stride, into.at, into.stride, states, sums],
        [heads, step.positions, step.blockTables],
        [...selectionArguments(chosen), f32(options.scale), round],
      ],
    });
    if (lseInto !== null) this.#writeLse(lseInto, rows, states, sums);
  }

  /** Parts of a row's heads: enough for all threads if there are few rows, and for the scratch. */
  #headParts(heads: number, latentDim: number, width: number): number {
    const { pool, step } = this.#context;
    const panels = Math.ceil(heads / panelHeads);
    const padded = Math.ceil(width / 4) * 4;
    const columns = Math.ceil(latentDim / 8) * 8;
    const panelBytes = panelHeads * 4 * (padded + keyBlock + columns) + 96;
    const left = threadScratchBytes - keyBlock * 4 * (padded + 1);
    assert(left >= panelBytes, `cache entries of ${width} are too wide`);
    const panelsPerPart = Math.floor(left / panelBytes);
    const wanted = step.rows >= 4 * pool.threads ? 1 : Math.ceil((2 * pool.threads) / step.rows);
    return Math.min(panels, Math.max(Math.ceil(panels / panelsPerPart), wanted));
  }

  #writeLse(lse: CpuTensor, rows: number, maxima: number, sums: number): void {
    const { f32: values } = this.#context.arena;
    for (let r = 0; r < rows; r++) {
      for (let h = 0; h < lse.columns; h++) {
        const index = r * lse.columns + h;
        const sum = at(values, sums / 4 + index);
        const maximum = at(values, maxima / 4 + index);
        values[(lse.at + r * lse.stride) / 4 + h] = maximum + Math.log(sum);
      }
    }
  }

  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    const { rows, sequences } = this.#context.step;
    const { heads, nopeDim, ropeDim, valueDim, firstRow = 0 } = options;
    const from = asCpu(CpuLayerCache, cache);
    const matrix = asCpu(CpuMatrix, kvB);
    checkExpanded(matrix, from.shape, options);
    const call: OwnExpandedCall = {
      out: checkedTensor(out, rows, heads * valueDim),
      q: checkedTensor(q, rows, heads * (nopeDim + ropeDim)),
      cache: from,
      matrix,
      selection: this.#selection(selection),
      options,
    };
    for (const sequence of sequences) {
      if (sequence.rowStart >= firstRow) this.#attendSequence(call, sequence);
    }
  }

  #attendSequence(call: OwnExpandedCall, sequence: PlacedRows): void {
    const { pool } = this.#context;
    const { heads, nopeDim, ropeDim, valueDim } = call.options;
    const groups = Math.ceil(sequence.rowCount / pageRowsMax);
    const perKey = sequence.rowCount * heads * (nopeDim + ropeDim + valueDim);
    const passTokens = expandedPages * blockTokens;
    let rest: Arguments = [];
    for (let start = 0; start < sequence.tokens; start += passTokens) {
      const end = Math.min(start + passTokens, sequence.tokens);
      const tokens = end - start;
      const pages = Math.ceil(tokens / blockTokens);
      const places = this.#places(call, groups);
      rest = this.#pagesArguments(call, sequence, { start, end, places });
      const entryFloats = places.entryStride / 4;
      pool.run({ op: opExpandEntries, tasks: tokens, work: tokens * entryFloats, arguments: rest });
      this.#expand(call.matrix, tokens, places);
      const packed = pages * blockTokens * heads * (nopeDim + ropeDim);
      pool.run({ op: opPackKeys, tasks: pages * heads, work: packed, arguments: rest });
      pool.run({
        op: opAttendPages,
        tasks: groups * heads,
        work: perKey * tokens,
        arguments: rest,
      });
    }
    const results = sequence.rowCount * heads * valueDim;
    pool.run({ op: opFinishPages, tasks: groups * heads, work: results, arguments: rest });
  }

  #places(call: OwnExpandedCall, groups: number): ExpandedPlaces {
    const { heads, nopeDim, ropeDim, valueDim } = call.options;
    const tokens = expandedPages * blockTokens;
    const { latentDim } = call.cache.shape;
    const entryStride = Math.ceil((latentDim + ropeDim) / 4) * 16;
    const expandedStride = heads * (nopeDim + valueDim) * 4;
    const stateBytes = 32 + Math.ceil(valueDim / 8) * 128;
    return {
      entries: this.#entries.at(tokens * entryStride),
      entryStride,
      expanded: this.#expanded.at(tokens * expandedStride),
      expandedStride,
      keys: this.#keys.at(expandedPages * heads * (nopeDim + ropeDim) * 256),
      states: this.#states.at(groups * heads * stateBytes),
      stateBytes,
    };
  }

  /** The latents of the entries through kv_b, as any linear. */
  #expand(matrix: CpuMatrix, tokens: number, places: ExpandedPlaces): void {
    const plain = { at: places.entries, stride: places.entryStride, scales: 0, scaleStride: 0 };
    const input = this.#gemm.input(plain, matrix, tokens);
    const out = places.expanded;
    const product = { matrix, rows: tokens, x: input.at, xScales: input.scales, out };
    this.#gemm.runAll([product], input, { stride: places.expandedStride, rounded: true });
  }

  #pagesArguments(
    call: OwnExpandedCall,
    sequence: PlacedRows,
    pass: { start: number; end: number; places: ExpandedPlaces },
  ): Arguments {
    const { step, round } = this.#context;
    const { heads, nopeDim, ropeDim, valueDim, scale } = call.options;
    const { places } = pass;
    return [
      [call.cache.view, sequence.blockTable, pass.start, pass.end],
      [places.entries, places.entryStride, places.expanded, places.expandedStride, places.keys],
      [heads, nopeDim, ropeDim, valueDim],
      [call.q.at, call.q.stride, call.out.at, call.out.stride],
      [sequence.rowStart, sequence.rowCount, step.positions],
      selectionArguments(call.selection),
      [places.states, places.stateBytes, f32(scale), round],
    ];
  }
}

/** Addresses and strides in bytes; the shapes are in kernels/attend-pages.ts. */
interface ExpandedPlaces {
  readonly entries: number;
  readonly entryStride: number;
  readonly expanded: number;
  readonly expandedStride: number;
  readonly keys: number;
  readonly states: number;
  readonly stateBytes: number;
}
