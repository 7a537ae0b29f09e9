/** Attention over the cached latents: absorbed, and with expanded keys and values. */
import assert from 'node:assert/strict';
import {
  type AttendOptions,
  blockTokens,
  type ExpandedAttendOptions,
  type LayerCache,
  type Matrix,
  type Selection,
  type Tensor,
} from '../backend.ts';
import { DensePrefill } from './dense-prefill.ts';
import { Scratch } from './device.ts';
import {
  CudaLayerCache,
  CudaMatrix,
  CudaSelection,
  type CudaTensor,
  dtypeCode,
  own,
  ownFloats,
  ownOutput,
  ownTensor,
} from './handles.ts';
import { real } from './launch-queue.ts';
import { type Linear, padded } from './linear.ts';
import type { Machine } from './machine.ts';
import type { SequenceRows } from './step.ts';

/** Pages whose keys and values are expanded at a time. */
const expandedPages = 4;
/** attend.cu: heads of a block, keys of a round, widest latent. */
const plainHeads = 8;
const plainHeadsFew = 2;
const plainKeys = 32;
const plainLatentMax = 640;
/** sm90-sparse-mla.cu: queries, two buffers of 64 entries, outputs, barriers, maxima and sums. */
const sm90SharedBytes = 3 * 73_728 + 8192 + 128 + 512 + 1024;
const sm90Threads = 512;
/** The kernel takes 64 heads in a block, or 128 in a cluster of two. */
const sm90Heads = 64;

/**
 * Over how many works a row's tokens are spread, where few rows would leave most of the GPU idle.
 * It depends on nothing but the number of rows, in four steps, so that a schedule's results can be
 * had again: rows of one step have the bits that they have in any step of the same range.
 */
const splitsOfRows = [
  { rowsMax: 4, splits: 16 },
  { rowsMax: 8, splits: 8 },
  { rowsMax: 16, splits: 4 },
  { rowsMax: 32, splits: 2 },
] as const;

/** A row that attends to all its tokens has work for the whole GPU. */
const denseSplitsOfRows = [
  { rowsMax: 1, splits: 64 },
  { rowsMax: 2, splits: 32 },
  ...splitsOfRows,
] as const;

/** What a step of so many rows splits each of them into; 1 for many rows. */
export function splitsFor(rows: number, isDense = false): number {
  const table = isDense ? denseSplitsOfRows : splitsOfRows;
  return table.find(({ rowsMax }) => rows <= rowsMax)?.splits ?? 1;
}

/** Partial results are kept for so many rows times splits. */
const partsMax = Math.max(...denseSplitsOfRows.map(({ rowsMax, splits }) => rowsMax * splits));

/** Where the kernels find a selection: positions, width, counts; zeros for all tokens. */
function selectionSlots(selection: CudaSelection | null): readonly [number, number, number] {
  return selection === null ? [0, 0, 0] : [selection.at, selection.width, selection.counts];
}

export class Attention {
  readonly #machine: Machine;
  readonly #linear: Linear;
  /** Its halves can be measured apart. */
  readonly prefill: DensePrefill;
  readonly #entries: Scratch;
  readonly #expanded: Scratch;
  readonly #states: Scratch;
  readonly #parts: Scratch;

  /** `expandedTokens`: how many have keys and values expanded at a time; by memory unless given. */
  constructor(machine: Machine, linear: Linear, expandedTokens: number | null) {
    this.#machine = machine;
    this.#linear = linear;
    this.prefill = new DensePrefill(machine, linear, expandedTokens);
    this.#entries = new Scratch(machine.device, 'cache entries to expand');
    this.#expanded = new Scratch(machine.device, 'expanded keys and values');
    this.#states = new Scratch(machine.device, 'running softmax states');
    this.#parts = new Scratch(machine.device, 'attention over parts of a row');
  }

  #ownSelection(handle: Selection | null): CudaSelection | null {
    if (handle === null) return null;
    const selection = own(CudaSelection, handle);
    const { rows } = this.#machine.step;
    assert(rows <= selection.rows, `${rows} rows do not fit a selection of ${selection.rows}`);
    return selection;
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions & { lse: Tensor | null },
  ): void {
    const { device, step, defines } = this.#machine;
    const from = own(CudaLayerCache, cache);
    const { latentDim, ropeDim } = from.shape;
    const { heads, scale, rows = step.rows } = options;
    assert(heads > 0 && rows > 0 && rows <= step.rows, 'attention needs a head and a row');
    const width = latentDim + ropeDim;
    const query = ownTensor(q, rows, heads * width);
    const into = ownOutput(out, rows, heads * latentDim);
    const chosen = this.#ownSelection(selection);
    const lse = options.lse === null ? null : ownFloats(options.lse, rows, heads);
    if (this.#isSm90(from, heads)) {
      this.#attendSm90({ out: into, q: query, cache: from, selection: chosen, lse }, rows, options);
      return;
    }
    const slots = [
      [into.at, into.stride, query.at, query.stride, from.latents, from.entryBytes],
      [from.latentFormat, latentDim, ropeDim, heads],
      [step.positions, step.tables, step.tableStarts, ...selectionSlots(chosen)],
      [lse?.at ?? 0, lse?.stride ?? 0, real(scale)],
    ];
    assert(latentDim <= plainLatentMax, `latents of ${latentDim} are too wide`);
    // Fewer heads a block where that makes more blocks than multiprocessors; a head's sums are the same.
    const isSmall = rows * Math.ceil(heads / plainHeads) < device.multiprocessors;
    const kHeads = isSmall ? plainHeadsFew : plainHeads;
    const sharedBytes = ((kHeads + plainKeys) * (width + 1) + kHeads * (plainKeys + 3)) * 4;
    const grid = [Math.ceil(heads / kHeads), rows, 1] as const;
    const kernel = device.kernel('attend', 'attend', { ...defines, kHeads });
    device.launch(kernel, { grid, threads: 128, sharedBytes }, slots);
  }

  /** On the matrix unit; few rows are split, and their parts added up by a second kernel. */
  #attendSm90(call: AttendCall, rows: number, { heads, scale }: AttendOptions): void {
    const { device, step } = this.#machine;
    const { out, q, cache, selection, lse } = call;
    assert(
      [out.at, out.stride * 2, q.at, q.stride * 2].every((bytes) => bytes % 16 === 0),
      'queries and outputs of attention must be aligned to 16 bytes',
    );
    assert(
      (cache.shape.blocks * blockTokens * cache.entryBytes) / 16 < 2 ** 31,
      'the kernel counts 16 bytes of a cache in 31 bits',
    );
    const splits = splitsFor(rows, selection === null);
    const [kFp8, kCtas, kSplit] = [
      cache.latentFormat === dtypeCode.F8_E4M3 ? 1 : 0,
      heads % (2 * sm90Heads) === 0 ? 2 : 1,
      splits > 1 ? 1 : 0,
    ];
    const partBytes = heads * cache.shape.latentDim * 4;
    const parts = splits > 1 ? this.#parts.at(partsMax * (partBytes + heads * 4)) : 0;
    const slots = [
      [out.at, out.stride, q.at, q.stride, cache.latents, rows, heads, splits],
      [step.positions, step.tables, step.tableStarts, ...selectionSlots(selection)],
      [lse?.at ?? 0, lse?.stride ?? 0, real(scale), parts, parts + partsMax * partBytes],
    ];
    const works = (rows * splits * heads) / (sm90Heads * kCtas);
    const clusters = Math.min(works, Math.floor(device.multiprocessors / kCtas));
    const shape = {
      grid: [clusters * kCtas, 1, 1],
      threads: sm90Threads,
      sharedBytes: sm90SharedBytes,
    } as const;
    const defines = { kFp8, kCtas, kSplit };
    device.launch(device.kernel('sm90Mla', 'sm90_sparse_mla', defines), shape, slots);
    if (splits === 1) return;
    const perHead = { grid: [heads, rows, 1], threads: 128 } as const;
    device.launch(device.kernel('sm90Mla', 'combine_splits', defines), perHead, slots);
  }

  /** Whether the tensor core kernel has this shape and this rounding. */
  #isSm90(cache: CudaLayerCache, heads: number): boolean {
    const { matrixUnit, numerics } = this.#machine;
    const { latentDim, ropeDim } = cache.shape;
    const fits = latentDim === 512 && ropeDim === 64 && heads % 64 === 0;
    const narrow = cache.latentFormat !== dtypeCode.F32;
    return matrixUnit && fits && narrow && numerics.activations === 'bf16';
  }

  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    const { rows, sequences } = this.#machine.step;
    const { heads, nopeDim, ropeDim, valueDim, firstRow = 0 } = options;
    const from = own(CudaLayerCache, cache);
    const matrix = own(CudaMatrix, kvB);
    assert(
      matrix.inputs === from.shape.latentDim && matrix.outputs === heads * (nopeDim + valueDim),
      `${matrix.name} does not expand the cached latents to ${heads} heads`,
    );
    assert(ropeDim === from.shape.ropeDim, 'the rope part is not as wide as in the caches');
    const call: ExpandedCall = {
      out: ownOutput(out, rows, heads * valueDim),
      q: ownTensor(q, rows, heads * (nopeDim + ropeDim)),
      cache: from,
      matrix,
      selection: this.#ownSelection(selection),
      options,
    };
    if (
      call.selection === null &&
      this.prefill.fits({ ...options, latentDim: from.shape.latentDim })
    ) {
      this.prefill.attend({ ...call, firstRow });
      return;
    }
    for (const sequence of sequences) {
      if (sequence.rowStart >= firstRow) this.#attendSequence(call, sequence);
    }
  }

  #attendSequence(call: ExpandedCall, sequence: SequenceRows): void {
    const passTokens = expandedPages * blockTokens;
    for (let start = 0; start < sequence.tokens; start += passTokens) {
      const tokens = Math.min(passTokens, sequence.tokens - start);
      const last = start + tokens === sequence.tokens;
      this.#attendPass(call, sequence, { start, tokens, last });
    }
  }

  /** Expands some tokens' keys and values, and folds them into the state of every row and head. */
  #attendPass(
    call: ExpandedCall,
    sequence: SequenceRows,
    pass: { start: number; tokens: number; last: boolean },
  ): void {
    const { device, step, activation, activationBytes, defines } = this.#machine;
    const { cache, matrix, q, out, selection } = call;
    const { heads, nopeDim, ropeDim, valueDim, scale } = call.options;
    const { latentDim } = cache.shape;
    const { start, tokens, last } = pass;
    const { rowStart, rowCount, table } = sequence;
    const entryStride = padded(latentDim + ropeDim);
    const expandedStride = padded(heads * (nopeDim + valueDim));
    const passTokens = expandedPages * blockTokens;
    const entries = this.#entries.at(passTokens * entryStride * activationBytes);
    const expanded = this.#expanded.at(passTokens * expandedStride * activationBytes);
    const states = this.#states.at(step.rowsMax * heads * (2 + valueDim) * 4);

    const perToken = { grid: [tokens, 1, 1], threads: 32 } as const;
    device.launch(device.kernel('attend', 'read_entries', defines), perToken, [
      [entries, entryStride, cache.latents, cache.entryBytes, cache.latentFormat],
      [latentDim, ropeDim, table, start],
    ]);
    const weight = { ...matrix, scaled: matrix.scales !== 0 };
    const plain = { at: entries, stride: entryStride, columns: latentDim, rowIndices: 0 };
    const input = this.#linear.input(plain, weight, { rows: tokens, exact: false });
    const into = { at: expanded, stride: expandedStride, format: activation };
    this.#linear.multiply(input, weight, into, { rows: tokens });
    const perRow = { grid: [heads, rowCount, 1], threads: 32 } as const;
    device.launch(device.kernel('attend', 'attend_expanded', defines), perRow, [
      [q.at, q.stride, expanded, expandedStride, entries, entryStride, latentDim],
      [nopeDim, ropeDim, valueDim, heads, step.positions, ...selectionSlots(selection)],
      [rowStart, start, tokens, states, out.at, out.stride, last ? 1 : 0, real(scale)],
    ]);
  }
}

interface AttendCall {
  readonly out: CudaTensor;
  readonly q: CudaTensor;
  readonly cache: CudaLayerCache;
  readonly selection: CudaSelection | null;
  readonly lse: CudaTensor | null;
}

interface ExpandedCall {
  readonly out: CudaTensor;
  readonly q: CudaTensor;
  readonly cache: CudaLayerCache;
  readonly matrix: CudaMatrix;
  readonly selection: CudaSelection | null;
  readonly options: ExpandedAttendOptions;
}
