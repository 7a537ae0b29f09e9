/**
 * Attention of prefill rows with expanded keys and values on the tensor cores (sm90-dense-mha.cu).
 * The tokens of the batch's sequences go through a bounded buffer in passes; rows that have more
 * tokens than a pass holds take their softmax state from pass to pass. With a selection the kernel
 * masks all other tokens, by a bit for each that is made once a layer.
 */
import { strict as assert } from 'node:assert';
import type { ExpandedAttendOptions } from '../../attention.ts';
import { maskedTokensMax } from '../../attention-plan.ts';
import type { HeadShape } from '../../shapes.ts';
import { Scratch } from '../runtime/device.ts';
import { dtypeCode } from '../handles.ts';
import type { CudaLayerCache, CudaMatrix, CudaSelection, CudaTensor } from '../handles.ts';
import type { CudaGemm } from './gemm.ts';
import type { OpContext } from '../op-context.ts';
import type { OpDevice } from '../op-device.ts';
import { encodeTensorMap } from '../runtime/tensor-maps.ts';
import { planPasses } from './prefill-passes.ts';
import type { Pass } from './prefill-passes.ts';

/** The latents that sm90-dense-mha.cu attends to, and the dimensions of heads that it has. */
const dims = { latent: 512, rope: 64 } as const;
type HeadDims = ReturnType<typeof headDimsOf>;
/** Expanded keys and values take this much, whatever the number of heads. */
const expandedBytesMax = 1024 * 2 ** 20;
const expandedTokensMax = 16_384;
const tileRows = 128;
const tileTokens = 128;
/** Bytes of a row's bits for a tile's tokens. */
const tileBitsBytes = tileTokens / 8;
/** Rows of a block of the kernel that makes them. */
const bitsRows = 8;
const headDims = [headDimsOf({ nope: 128, value: 128 }), headDimsOf({ nope: 192, value: 256 })];
/** Grows by doubling from here; 4,096 rows at 128K tokens take 30 KB. */
const planBytesMin = 2 ** 20;

interface ExpandedHeads {
  readonly heads: number;
  readonly nopeDim: number;
  readonly valueDim: number;
}

export interface PrefillCall {
  readonly out: CudaTensor;
  readonly q: CudaTensor;
  readonly cache: CudaLayerCache;
  readonly matrix: CudaMatrix;
  readonly selection: CudaSelection | null;
  readonly firstRow: number;
  readonly options: ExpandedAttendOptions;
}

/** The buffers that a pass goes through, made for one shape of heads. */
interface Buffers {
  readonly tokens: number;
  readonly heads: number;
  readonly dims: HeadDims;
  readonly latents: number;
  readonly rope: number;
  readonly ropeMap: number;
  readonly expanded: number;
  readonly expandedMap: number;
  readonly sums: number;
  readonly stats: number;
  /** Bits of the selected tokens, [blocks of 128 tokens, rows of the step, 4] u32. */
  readonly selected: number;
}

export class DensePrefill {
  readonly #context: OpContext;
  readonly #gemm: CudaGemm;
  /** The passes of a step, for the kernels. */
  readonly #plan: Scratch;
  readonly #tokens: number | null;
  #buffers: Buffers | null = null;
  #planned: { batch: object; firstRow: number; passes: readonly Pass[] } | null = null;

  /** `tokens`: how many the buffer holds, a multiple of 128; by its bytes unless given. */
  constructor(context: OpContext, gemm: CudaGemm, tokens: number | null) {
    assert(tokens === null || (tokens > 0 && tokens % tileRows === 0), 'passes hold whole tiles');
    this.#context = context;
    this.#gemm = gemm;
    this.#tokens = tokens;
    this.#plan = new Scratch(context.device, 'plans of passes');
  }

  /** True if the kernel has this shape and this rounding. */
  fits(shape: HeadShape): boolean {
    const { useTensorCores, numerics } = this.#context;
    const wide = shape.latentDim === dims.latent && shape.ropeDim === dims.rope;
    const narrow = numerics.latentCache !== 'f32' && numerics.activations === 'bf16';
    return useTensorCores && wide && narrow && knownDims(shape) !== undefined;
  }

  /** Takes the buffers at start; one shape of heads for a backend. */
  reserve(shape: ExpandedHeads): Buffers {
    const { heads } = shape;
    const head = knownDims(shape);
    if (this.#buffers !== null) {
      const same = this.#buffers.heads === heads && this.#buffers.dims === head;
      assert(same, 'all layers must have the same heads');
      return this.#buffers;
    }
    assert(head !== undefined, 'attention of these heads is for the plain kernel');
    const { device, step } = this.#context;
    const columns = heads * (head.nope + head.value);
    const affordable = Math.floor(expandedBytesMax / (columns * 2) / tileRows) * tileRows;
    const tokens = this.#tokens ?? Math.min(expandedTokensMax, Math.max(affordable, tileRows));
    const take = (bytes: number, what: string) => device.allocate(bytes, 'activation', what);
    const expanded = take(tokens * columns * 2, 'expanded keys and values');
    const rope = take(tokens * dims.rope * 2, 'rope keys');
    this.#gemm.inputs.reserve(tokens, dims.latent);
    // Compiled now, because there may be no masked step among those that warm up.
    device.kernel('sm90DenseMha', 'sm90_dense_mha', head.masked);
    // The kernel reads bits of 128 rows for a tile of fewer.
    const bitsRowsMax = (maskedTokensMax / tileTokens) * step.rowsMax + tileRows;
    this.#buffers = {
      tokens,
      heads,
      dims: head,
      latents: take(tokens * dims.latent * 2, 'latents to expand'),
      rope,
      ropeMap: mapOf(device, {
        at: rope,
        rows: tokens,
        columns: dims.rope,
        boxRows: head.tileKeys,
      }),
      expanded,
      expandedMap: mapOf(device, { at: expanded, rows: tokens, columns, boxRows: head.tileKeys }),
      sums: take(step.rowsMax * heads * head.value * 4, 'values summed so far'),
      stats: take(step.rowsMax * heads * 8, 'softmax states'),
      selected: take(bitsRowsMax * tileBitsBytes, 'bits of selected tokens'),
    };
    return this.#buffers;
  }

  /** True if every sequence from `firstRow` on is short enough for bits of its selected tokens. */
  masks(firstRow: number): boolean {
    return this.#longestFrom(firstRow) <= maskedTokensMax;
  }

  attend(call: PrefillCall): void {
    const passes = this.passes(call);
    if (call.selection !== null) this.markSelected(call, call.selection);
    for (const pass of passes) {
      this.expand(call, pass);
      this.attendPass(call, pass);
    }
  }

  /** The step's passes, planned and sent once for all layers. */
  passes({ firstRow, options }: PrefillCall): readonly Pass[] {
    const { device, step } = this.#context;
    const { tokens: capacity } = this.reserve(options);
    const { batch } = step;
    if (this.#planned?.batch === batch && this.#planned.firstRow === firstRow) {
      return this.#planned.passes;
    }
    const sequences = step.sequences.filter(({ rowStart }) => rowStart >= firstRow);
    const plan = planPasses(sequences, batch.positions, capacity);
    // Launches that are queued may still read the plan before.
    device.queue.flush();
    const at = this.#plan.at(
      2 ** Math.ceil(Math.log2(Math.max(plan.words.byteLength, planBytesMin))),
    );
    device.send(at, plan.words);
    const passes = plan.passes.map((pass) => ({
      ...pass,
      blocks: at + pass.blocks * 4,
      tiles: at + pass.tiles * 4,
    }));
    this.#planned = { batch, firstRow, passes };
    return passes;
  }

  /** Bits of the tokens that rows select, for all passes of a layer. */
  markSelected({ firstRow, options }: PrefillCall, selection: CudaSelection): void {
    const { device, step } = this.#context;
    const { selected, dims: head } = this.reserve(options);
    const blocks = Math.ceil(this.#longestFrom(firstRow) / tileTokens);
    assert(blocks * tileTokens <= maskedTokensMax, 'a sequence is too long for bits of its tokens');
    const grid = [Math.ceil((step.rows - firstRow) / bitsRows), 1, 1] as const;
    const shape = { grid, threads: 32 * bitsRows, sharedBytes: bitsRows * blocks * tileBitsBytes };
    device.launch(device.kernel('sm90DenseMha', 'selection_bits', head.plain), shape, {
      bits: selected,
      blocks,
      rows: step.rows,
      selected: selection.at,
      width: selection.width,
      counts: selection.counts,
      first_row: firstRow,
    });
  }

  #longestFrom(firstRow: number): number {
    let longest = 0;
    for (const { rowStart, tokens } of this.#context.step.sequences) {
      if (rowStart >= firstRow) longest = Math.max(longest, tokens);
    }
    return longest;
  }

  /** Keys and values of the pass's tokens from their cache entries. */
  expand(call: PrefillCall, pass: Pass): void {
    const { device, step } = this.#context;
    const { cache, matrix, options } = call;
    const { latents, rope, expanded, dims: head } = this.reserve(options);
    const read = device.kernel('sm90DenseMha', 'sm90_pass_entries', head.plain);
    device.launch(
      read,
      { grid: [pass.tokens / 8, 1, 1], threads: 256 },
      {
        latents,
        rope,
        cache: cache.latents,
        entry_bytes: cache.entryBytes,
        format: cache.latentFormat,
        tables: step.tables,
        blocks: pass.blocks,
      },
    );
    const rows = pass.tokens;
    const weight = { ...matrix, scaled: matrix.scales !== 0 };
    const plain = { at: latents, stride: dims.latent, columns: dims.latent, rowIndices: 0 };
    const input = this.#gemm.inputs.prepare(plain, weight, { rows, exact: false });
    const into = { at: expanded, stride: matrix.outputs, format: dtypeCode.BF16 };
    this.#gemm.multiply(input, weight, into, { rows });
  }

  attendPass(call: PrefillCall, pass: Pass): void {
    const { device, step } = this.#context;
    const { out, q, selection, options } = call;
    const { expandedMap, ropeMap, sums, stats, selected, dims: head } = this.reserve(options);
    assert(out.stride % 8 === 0 && q.stride % 8 === 0, 'rows begin at multiples of 16 bytes');
    const defines = selection === null ? head.plain : head.masked;
    const attend = device.kernel('sm90DenseMha', 'sm90_dense_mha', defines);
    const grid = [pass.tileCount, options.heads, 1] as const;
    device.launch(
      attend,
      { grid, threads: 384, sharedBytes: head.sharedBytes },
      {
        out: out.at,
        out_stride: out.stride,
        q: q.at,
        q_stride: q.stride,
        expanded_map: expandedMap,
        rope_map: ropeMap,
        tiles: pass.tiles,
        positions: step.positions,
        sums,
        stats,
        scale: options.scale,
        selected,
        selected_rows: step.rows,
      },
    );
  }
}

/** Dimensions of a head, with the kernels' definitions; the same objects at every launch. */
function headDimsOf({ nope, value }: { nope: number; value: number }) {
  const tileKeys = value === 128 ? 128 : 64;
  // Queries, two stages of keys and of values, barriers.
  const stageBytes = (nope + dims.rope + value) * tileKeys * 2;
  const sharedBytes = (nope + dims.rope) * tileRows * 2 + 2 * stageBytes + 64;
  const defines = { kNope: nope, kValue: value, kSharedBytes: sharedBytes };
  const [plain, masked] = [
    { kMasked: 0, ...defines },
    { kMasked: 1, ...defines },
  ] as const;
  return { nope, value, tileKeys, sharedBytes, plain, masked } as const;
}

function knownDims({ nopeDim, valueDim }: { nopeDim: number; valueDim: number }) {
  return headDims.find(({ nope, value }) => nope === nopeDim && value === valueDim);
}

/** Address of the map of a bf16 matrix whose rows follow one another; made at start. */
function mapOf(
  device: OpDevice,
  matrix: { at: number; rows: number; columns: number; boxRows: number },
): number {
  const { at, rows, columns, boxRows } = matrix;
  const what = 'expanded keys and values';
  const boxed = {
    at,
    format: dtypeCode.BF16,
    sizes: [columns, rows],
    strideBytes: [columns * 2],
    boxRows,
  };
  const map = encodeTensorMap(device.driver, boxed, what);
  const place = device.allocate(map.byteLength, 'activation', `a map of ${what}`);
  device.upload(place, map);
  return place;
}
