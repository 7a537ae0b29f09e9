/**
 * The CUDA backend for GPUs of compute capability 9.0: the same ops as the CPU backend, with the same
 * roundings, from kernels that NVRTC compiles at their first use (kernels/). Ops queue launches;
 * reading a result runs them. A row's result never depends on what else is in the call.
 */
import assert from 'node:assert/strict';
import type {
  AbsorbedKv,
  AttendOptions,
  Backend,
  Batch,
  CacheShape,
  ExpandedAttendOptions,
  ExpertMatrices,
  Experts,
  HeadShape,
  HostMemory,
  HostTensor,
  LayerCache,
  Matrix,
  MemoryUse,
  Numerics,
  RopeLayout,
  RopeTable,
  RotateOptions,
  RouteOptions,
  Routing,
  Selection,
  SelectOptions,
  Tensor,
  TensorPrecision,
  Vector,
} from '../backend.ts';
import type { Draw } from '../draw.ts';
import { bf16ToF32 } from '../bfloat16.ts';
import { Attention } from './ops/attention.ts';
import { blockBytes, makeCaches, writeIndexKeys, writeLatent } from './ops/cache-memory.ts';
import { CublasLt } from './runtime/cublaslt.ts';
import { Device } from './runtime/device.ts';
import {
  CudaRouting,
  CudaSelection,
  CudaTensor,
  CudaVector,
  dtypeCode,
  elementBytes,
  asCuda,
} from './handles.ts';
import { readCudaSettings } from './cuda-settings.ts';
import { CudaMissing } from './runtime/libraries.ts';
import { Gemm } from './ops/gemm.ts';
import type { OpContext } from './op-context.ts';
import { Moe } from './ops/moe.ts';
import { StepGraphs } from './step-graphs.ts';
import { RowOps } from './ops/row-ops.ts';
import { Sampler } from './ops/sampling.ts';
import { Indexer } from './ops/indexer.ts';
import { Step } from './step.ts';

export interface CudaBackendOptions {
  readonly numerics: Numerics;
  /** Most rows that a step has. */
  readonly rowsMax: number;
  /** Bytes of weights, activations and caches together; what the GPU has free unless given. */
  readonly memoryBytesMax?: number;
  /** Whether repeated steps run as CUDA graphs; yes unless told otherwise. */
  readonly graphs?: boolean;
  /** Whether kernels are made for racecheck (see DeviceOptions); no unless told. */
  readonly traced?: boolean;
  /** Whether tensor core kernels are used where they fit; yes unless told otherwise. */
  readonly useTensorCores?: boolean;
  /**
   * Whether cuBLASLt computes products of many rows, if it is installed; SIFT_CUBLASLT=1 if not told.
   * No is the default: its sums have another order than those of few rows, so that a row's bits would
   * depend on what else is in the step.
   */
  readonly cublasLt?: boolean;
  /** Tokens whose keys and values are expanded at a time, whole 128; by memory unless given. */
  readonly expandedTokens?: number;
}

/** Rejects with CudaMissing, in one line, if there is no driver, NVRTC or fitting GPU. */
export async function openCudaBackend(options: CudaBackendOptions): Promise<Backend> {
  const { numerics, rowsMax, memoryBytesMax, graphs, traced } = options;
  assert(Number.isInteger(rowsMax) && rowsMax > 0, 'rowsMax must be a positive integer');
  const device = new Device({
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    ...(graphs === undefined ? {} : { graphs }),
    ...(traced === undefined ? {} : { traced }),
  });
  const bf16 = numerics.activations === 'bf16';
  const defines = { kBf16: bf16 ? 1 : 0 } as const;
  // A missing compiler is told now, not at the first op.
  device.kernel('rows', 'embed', defines);
  const context: OpContext = {
    device,
    numerics,
    step: new Step(device, rowsMax),
    activation: bf16 ? dtypeCode.BF16 : dtypeCode.F32,
    activationBytes: bf16 ? 2 : 4,
    defines,
    powerOfTwo: numerics.scaleFormat === 'ue8m0' ? 1 : 0,
    library: (options.cublasLt ?? readCudaSettings().cublasLt) ? openLibrary(device) : null,
    useTensorCores: options.useTensorCores ?? true,
  };
  return new CudaBackend(context, options.expandedTokens ?? null);
}

/** Our own kernels stand in for a library that is not there. */
function openLibrary(device: Device): CublasLt | null {
  try {
    return new CublasLt(device);
  } catch (cause) {
    if (!(cause instanceof CudaMissing)) throw cause;
    process.emitWarning(`${cause.message}; products use the kernels of this project instead`);
    return null;
  }
}

export class CudaBackend implements Backend {
  readonly name = 'cuda' as const;
  readonly hostMemory: HostMemory;
  readonly numerics: Numerics;
  readonly context: OpContext;
  readonly #rowOps: RowOps;
  /** For measuring their parts apart. */
  readonly gemm: Gemm;
  readonly indexer: Indexer;
  readonly attention: Attention;
  readonly #moe: Moe;
  readonly #sampler: Sampler;
  readonly #stepGraphs: StepGraphs;

  constructor(context: OpContext, expandedTokens: number | null) {
    this.context = context;
    this.numerics = context.numerics;
    this.hostMemory = context.device.hostMemory;
    this.#rowOps = new RowOps(context);
    this.gemm = new Gemm(context, this.#rowOps);
    this.indexer = new Indexer(context);
    this.attention = new Attention(context, this.gemm, expandedTokens);
    this.#moe = new Moe(context, this.gemm);
    this.#sampler = new Sampler(context);
    this.#stepGraphs = new StepGraphs(context.device, context.step);
  }

  // ---- made at start -------------------------------------------------------------------------

  matrix(source: HostTensor): Matrix {
    return this.gemm.matrix(source);
  }

  vector(name: string, values: Float32Array): Vector {
    const { device } = this.context;
    const at = device.allocate(values.byteLength, 'weight', name);
    device.upload(at, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return new CudaVector(name, values.length, at);
  }

  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): AbsorbedKv {
    this.attention.sparse.reserveFor(shape.heads, source.shape[1] ?? 0);
    return this.gemm.absorb(source, shape);
  }

  wholeKv(source: HostTensor, shape: HeadShape): Matrix {
    if (this.attention.prefill.fits(shape)) this.attention.prefill.reserve(shape.heads);
    return this.matrix(source);
  }

  expandsFaster(shape: HeadShape): boolean {
    return this.attention.prefill.fits(shape);
  }

  experts(matrices: readonly ExpertMatrices[]): Experts {
    return this.#moe.experts(matrices);
  }

  ropeTable(table: RopeTable): void {
    this.#rowOps.ropeTable(table);
  }

  tensor(rows: number, columns: number, precision: TensorPrecision = 'activation'): Tensor {
    assert(rows > 0 && columns > 0, 'a tensor needs rows and columns');
    const { device, activation } = this.context;
    const format = precision === 'f32' ? dtypeCode.F32 : activation;
    // Every row begins at a multiple of 16 bytes.
    const stride = Math.ceil(columns / 8) * 8;
    const what = `a tensor of ${rows} x ${columns}`;
    const at = device.allocate(rows * stride * elementBytes[format], 'activation', what);
    const quantized = precision === 'input' ? this.gemm.quantizedForm(rows, columns) : null;
    return new CudaTensor({
      rows,
      columns,
      at,
      stride,
      precision: precision === 'f32' ? 'f32' : 'activation',
      format,
      writes: { count: 0 },
      quantized,
    });
  }

  columns(of: Tensor, start: number, count: number): Tensor {
    const { columns, at, format, ...place } = asCuda(CudaTensor, of);
    assert(
      start >= 0 && count > 0 && start + count <= columns,
      `columns ${start} to ${start + count} of a tensor that has ${columns}`,
    );
    const from = at + start * elementBytes[format];
    return new CudaTensor({ ...place, columns: count, at: from, format, quantized: null });
  }

  selection(rows: number, width: number): Selection {
    return this.indexer.selection(rows, width);
  }

  routing(rows: number, perToken: number): Routing {
    return this.#moe.routing(rows, perToken);
  }

  blockBytes(shape: Omit<CacheShape, 'blocks'>): number {
    return blockBytes(shape, this.numerics);
  }

  caches(shape: CacheShape): readonly LayerCache[] {
    const caches = makeCaches(this.context, shape);
    this.context.step.useCaches(shape);
    return caches;
  }

  freezeMemory(warmUp: () => void): void {
    warmUp();
    this.context.device.freezeMemory();
  }

  memory(): MemoryUse {
    return this.context.device.memory();
  }

  // ---- one step ------------------------------------------------------------------------------

  beginStep(batch: Batch): void {
    this.context.step.begin(batch);
  }

  captureOrReplay(key: number, ops: () => void): void {
    this.#stepGraphs.captureOrReplay(key, ops);
  }

  embed(out: Tensor, table: Matrix): void {
    this.#rowOps.embed(out, table);
  }

  rmsNorm(
    out: Tensor,
    x: Tensor,
    weight: Vector,
    options: { rows: number; epsilon: number },
  ): void {
    this.#rowOps.rmsNorm(out, x, weight, options);
  }

  addRmsNorm(
    out: Tensor,
    residual: Tensor,
    x: Tensor,
    weight: Vector,
    options: { rows: number; epsilon: number },
  ): void {
    this.#rowOps.addRmsNorm(out, residual, x, weight, options);
  }

  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: { rows: number; epsilon: number },
  ): void {
    this.#rowOps.layerNorm(out, x, norm, options);
  }

  add(residual: Tensor, x: Tensor, rows: number): void {
    this.#rowOps.add(residual, x, rows);
  }

  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.gemm.linear(out, x, weight, rows);
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.gemm.linearF32(out, x, weight, rows);
  }

  rotate(x: Tensor, options: RotateOptions): void {
    this.#rowOps.rotate(x, options);
  }

  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    this.#rowOps.hadamard(x, options);
  }

  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    this.#rowOps.siluMultiply(out, gate, up, rows);
  }

  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    this.#rowOps.gatherRows(out, x, rowIndices);
  }

  writeLatent(cache: LayerCache, entries: Tensor): void {
    writeLatent(this.context, cache, entries, null);
  }

  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    writeIndexKeys(this.context, cache, keys, null);
  }

  storeLatent(cache: LayerCache, entries: Tensor, norm: { weight: Vector; epsilon: number }): void {
    const rope = this.#rowOps.rope(this.context.step.rows);
    const weight = asCuda(CudaVector, norm.weight);
    writeLatent(this.context, cache, entries, { weight, epsilon: norm.epsilon, rope });
  }

  storeIndexKeys(
    cache: LayerCache,
    keys: Tensor,
    norm: { weight: Vector; bias: Vector; epsilon: number },
    rotation: { layout: RopeLayout; transform: boolean },
  ): void {
    const rope = this.#rowOps.rope(this.context.step.rows);
    const [weight, bias] = [asCuda(CudaVector, norm.weight), asCuda(CudaVector, norm.bias)];
    const { epsilon } = norm;
    writeIndexKeys(this.context, cache, keys, { weight, bias, epsilon, rope, ...rotation });
  }

  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    this.indexer.selectTopK(out, cache, queries, weights, options);
  }

  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void {
    this.gemm.toLatent(out, q, kv, rows);
  }

  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void {
    this.gemm.fromLatent(out, latent, kv, rows);
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void {
    this.attention.attend(out, q, cache, selection, { ...options, lse: lse ?? null });
  }

  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    this.attention.attendExpanded(out, q, cache, kvB, selection, options);
  }

  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void {
    this.#moe.route(out, logits, bias, rows, options);
  }

  moeForward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routing: Routing,
    experts: Experts,
    rows: number,
  ): void {
    this.#moe.mix(out, x, shared, { routing, experts }, rows);
  }

  // ---- results -------------------------------------------------------------------------------

  sample(logits: Tensor, draws: readonly Draw[]): (number | null)[] {
    const { tokens, word } = this.#sampler.sample(logits, draws, this.indexer.nanFlag);
    this.indexer.assertNoNan(word);
    return tokens;
  }

  read(x: Tensor, rows: number): Float32Array {
    const { at, stride, columns, format, rows: capacity } = asCuda(CudaTensor, x);
    assert(rows <= capacity, `${rows} rows of a tensor of ${capacity}`);
    const count = (rows - 1) * stride + columns;
    const bytes = this.#bytes(at, count * elementBytes[format]);
    const all =
      format === dtypeCode.F32 ? new Float32Array(bytes) : bf16ToF32(new Uint16Array(bytes));
    this.indexer.checkNan();
    if (stride === columns) return all;
    const out = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      out.set(all.subarray(r * stride, r * stride + columns), r * columns);
    }
    return out;
  }

  readSelection(selection: Selection, rows: number): Int32Array[] {
    const { at, counts, width, rows: capacity } = asCuda(CudaSelection, selection);
    assert(rows <= capacity, `${rows} rows of a selection of ${capacity}`);
    const all = new Int32Array(this.#bytes(at, rows * width * 4));
    const lengths = new Int32Array(this.#bytes(counts, rows * 4));
    this.indexer.checkNan();
    return Array.from({ length: rows }, (_, r) =>
      all.slice(r * width, r * width + (lengths[r] ?? 0)),
    );
  }

  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const from = asCuda(CudaRouting, routing);
    assert(rows <= from.rows, `${rows} rows of a routing of ${from.rows}`);
    const bytes = rows * from.perToken * 4;
    return {
      experts: new Int32Array(this.#bytes(from.experts, bytes)),
      weights: new Float32Array(this.#bytes(from.weights, bytes)),
    };
  }

  #bytes(at: number, count: number): ArrayBuffer {
    const { buffer } = this.context.device.download(at, count);
    assert(buffer instanceof ArrayBuffer, 'a download has memory of its own');
    return buffer;
  }

  close(): Promise<void> {
    this.context.library?.close();
    this.context.device.close();
    return Promise.resolve();
  }
}
