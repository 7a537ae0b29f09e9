/** Attention over the cached latents: absorbed, and with expanded keys and values. */
import { strict as assert } from 'node:assert';
import { selectionOf } from '../../attention.ts';
import type {
  AttendOptions,
  AttentionOps,
  ExpandedAttendOptions,
  ExpandedCall,
} from '../../attention.ts';
import { blockTokens } from '../../batch.ts';
import { checkExpanded } from '../../checks.ts';
import type { HeadShape, LayerCache, Matrix, Selection, Tensor } from '../../shapes.ts';
import {
  asCuda,
  CudaLayerCache,
  CudaMatrix,
  CudaSelection,
  f32Tensor,
  inputTensor,
  outputTensor,
} from '../handles.ts';
import type { CudaTensor } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { Scratch } from '../runtime/device.ts';
import type { PlacedRows } from '../step.ts';
import { DensePrefill } from './dense-prefill.ts';
import type { CudaGemm } from './gemm.ts';
import { padded } from './gemm-inputs.ts';
import { SparseMla } from './sparse-mla.ts';

/** Pages whose keys and values are expanded at a time. */
const expandedPages = 4;
/** attend.cu: heads of a block, keys of a round, widest latent. */
const plainHeads = 8;
const plainHeadsFew = 2;
const plainKeys = 32;
const plainLatentMax = 640;

/** The ops by which kernels are told. */
const absorbedOp = 'absorbed attention';
const expandedOp = 'expanded attention';

/** The arguments that name a selection; without one a row attends to all tokens. */
function selectionArgs(selection: CudaSelection | null) {
  return {
    selected: selection?.at ?? null,
    width: selection?.width ?? 0,
    counts: selection?.counts ?? null,
  };
}

type OwnExpandedCall = ExpandedCall<CudaTensor, CudaLayerCache, CudaMatrix, CudaSelection>;

export class CudaAttention implements AttentionOps {
  readonly #context: OpContext;
  readonly #gemm: CudaGemm;
  /** Its halves can be measured apart. */
  readonly prefill: DensePrefill;
  readonly sparse: SparseMla;
  readonly #entries: Scratch;
  readonly #expanded: Scratch;
  readonly #states: Scratch;

  /** `expandedTokens`: how many have keys and values expanded at a time; by memory unless given. */
  constructor(context: OpContext, gemm: CudaGemm, expandedTokens: number | null) {
    this.#context = context;
    this.#gemm = gemm;
    this.prefill = new DensePrefill(context, gemm, expandedTokens);
    this.#entries = new Scratch(context.device, 'cache entries to expand');
    this.#expanded = new Scratch(context.device, 'expanded keys and values');
    this.#states = new Scratch(context.device, 'running softmax states');
    this.sparse = new SparseMla(context);
  }

  #selection(handle: Selection | null): CudaSelection | null {
    return selectionOf(handle, (each) => asCuda(CudaSelection, each), this.#context.step.rows);
  }

  expandsFaster(shape: HeadShape): boolean {
    const fits = this.prefill.fits(shape);
    const none = { kernel: 'none, so that long chunks attend absorbed', unit: 'plain' } as const;
    if (!fits) this.#context.kernels.note(expandedOp, { ...none, shape: headsText(shape) });
    return fits;
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lseOut?: Tensor,
  ): void {
    const { device, step, defines } = this.#context;
    const from = asCuda(CudaLayerCache, cache);
    const { latentDim, ropeDim } = from.shape;
    const { heads, scale, rows = step.rows } = options;
    assert(heads > 0 && rows > 0 && rows <= step.rows, 'attention needs a head and a row');
    const width = latentDim + ropeDim;
    const query = inputTensor(q, rows, heads * width);
    const into = outputTensor(out, rows, heads * latentDim);
    const chosen = this.#selection(selection);
    const lse = lseOut === undefined ? null : f32Tensor(lseOut, rows, heads);
    const { kernels } = this.#context;
    if (this.sparse.fits(from, heads)) {
      kernels.note(absorbedOp, { kernel: 'sm90_sparse_mla', unit: 'tensor cores' });
      const call = { out: into, q: query, cache: from, selection: chosen, lse, rows, heads, scale };
      this.sparse.attend(call);
      return;
    }
    const shape = `${heads} heads over ${latentDim} + ${ropeDim}`;
    kernels.note(absorbedOp, { kernel: 'attend', unit: 'plain', shape });
    assert(latentDim <= plainLatentMax, `latents of ${latentDim} are too wide`);
    // Fewer heads a block where that makes more blocks than SMs; a head's sums are the same.
    const isSmall = rows * Math.ceil(heads / plainHeads) < device.smCount;
    const kHeads = isSmall ? plainHeadsFew : plainHeads;
    const sharedBytes = ((kHeads + plainKeys) * (width + 1) + kHeads * (plainKeys + 3)) * 4;
    const grid = [Math.ceil(heads / kHeads), rows, 1] as const;
    const kernel = device.kernel('attend', 'attend', { ...defines, kHeads });
    device.launch(
      kernel,
      { grid, threads: 128, sharedBytes },
      {
        out: into.at,
        out_stride: into.stride,
        q: query.at,
        q_stride: query.stride,
        cache: from.latents,
        entry_bytes: from.entryBytes,
        format: from.latentFormat,
        latent: latentDim,
        rope: ropeDim,
        heads,
        positions: step.positions,
        tables: step.tables,
        table_start: step.tableStarts,
        ...selectionArgs(chosen),
        lse: lse?.at ?? null,
        lse_stride: lse?.stride ?? 0,
        scale,
      },
    );
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
    const from = asCuda(CudaLayerCache, cache);
    const matrix = asCuda(CudaMatrix, kvB);
    checkExpanded(matrix, from.shape, options);
    const call: OwnExpandedCall = {
      out: outputTensor(out, rows, heads * valueDim),
      q: inputTensor(q, rows, heads * (nopeDim + ropeDim)),
      cache: from,
      matrix,
      selection: this.#selection(selection),
      options,
    };
    const { prefill } = this;
    const fits = prefill.fits({ ...options, latentDim: from.shape.latentDim });
    const { kernels } = this.#context;
    if (fits && (call.selection === null || prefill.masks(firstRow))) {
      kernels.note(expandedOp, { kernel: 'sm90_dense_mha', unit: 'tensor cores' });
      prefill.attend({ ...call, firstRow });
      return;
    }
    kernels.note(expandedOp, {
      kernel: 'attend_expanded',
      unit: 'plain',
      shape: headsText(options),
    });
    for (const sequence of sequences) {
      if (sequence.rowStart >= firstRow) this.#attendSequence(call, sequence);
    }
  }

  #attendSequence(call: OwnExpandedCall, sequence: PlacedRows): void {
    const passTokens = expandedPages * blockTokens;
    for (let start = 0; start < sequence.tokens; start += passTokens) {
      const tokens = Math.min(passTokens, sequence.tokens - start);
      const last = start + tokens === sequence.tokens;
      this.#attendPass(call, sequence, { start, tokens, last });
    }
  }

  /** Expands some tokens' keys and values, and folds them into the state of every row and head. */
  #attendPass(
    call: OwnExpandedCall,
    sequence: PlacedRows,
    pass: { start: number; tokens: number; last: boolean },
  ): void {
    const { device, step, activation, activationBytes, defines } = this.#context;
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
    device.launch(device.kernel('attend', 'read_entries', defines), perToken, {
      out: entries,
      out_stride: entryStride,
      cache: cache.latents,
      entry_bytes: cache.entryBytes,
      format: cache.latentFormat,
      latent: latentDim,
      rope: ropeDim,
      table,
      first: start,
    });
    const weight = { ...matrix, scaled: matrix.scales !== 0 };
    const plain = { at: entries, stride: entryStride, columns: latentDim, rowIndices: 0 };
    const input = this.#gemm.inputs.prepare(plain, weight, { rows: tokens, exact: false });
    const into = { at: expanded, stride: expandedStride, format: activation };
    this.#gemm.multiply(input, weight, into, { rows: tokens });
    const perRow = { grid: [heads, rowCount, 1], threads: 32 } as const;
    device.launch(device.kernel('attend', 'attend_expanded', defines), perRow, {
      q: q.at,
      q_stride: q.stride,
      expanded,
      expanded_stride: expandedStride,
      entries,
      entry_stride: entryStride,
      latent: latentDim,
      nope: nopeDim,
      rope: ropeDim,
      value: valueDim,
      heads,
      positions: step.positions,
      ...selectionArgs(selection),
      first_row: rowStart,
      first: start,
      tokens,
      state: states,
      out: out.at,
      out_stride: out.stride,
      last,
      scale,
    });
  }
}

function headsText(shape: Omit<HeadShape, 'latentDim'>): string {
  const { heads, nopeDim, ropeDim, valueDim } = shape;
  return `${heads} heads of ${nopeDim} + ${ropeDim}, values of ${valueDim}`;
}
