/**
 * The CPU backend: exact, and the reference for the others. All of its arrays lie in one shared
 * WebAssembly memory; its kernels (kernels/) run on the calling thread and on helpers.
 *
 * A row's result never depends on what else is in the call: not on other rows, chunks, sequences or
 * the number of threads. Every sum has one fixed order, and nothing uses fused multiply-adds, so
 * all machines compute the same bits.
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import type {
  AbsorbedKv,
  AttendOptions,
  Backend,
  Batch,
  CacheShape,
  ExpandedAttendOptions,
  ExpertMatrices,
  Experts,
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
  Vector,
} from '../backend.ts';
import { storeIndexKeys, storeLatent } from '../fused-ops.ts';
import { createDrawScratch, type Draw, type DrawScratch, drawToken } from '../draw.ts';
import { Arena } from './arena.ts';
import { Attention } from './attention.ts';
import { blockBytes, makeCaches, writeIndexKeys, writeLatent } from './cache-memory.ts';
import { CpuRouting, CpuSelection, CpuTensor, CpuVector, asCpu, checkedTensor } from './handles.ts';
import { Gemm } from './gemm.ts';
import type { OpContext } from './op-context.ts';
import { Moe } from './moe.ts';
import { RowOps } from './row-ops.ts';
import { Indexer } from './indexer.ts';
import { Step } from './step.ts';
import { ThreadPool } from './thread-pool.ts';
import { packAbsorbed, packMatrix } from './weights.ts';

export interface CpuBackendOptions {
  readonly numerics: Numerics;
  /** Most rows that a step has. */
  readonly rowsMax: number;
  /** Threads that compute, the caller's included; one per core unless given. */
  readonly threads?: number;
  /** Bytes of weights, activations and caches together; the machine's memory, at most 4 GiB, unless given. */
  readonly memoryBytesMax?: number;
}

/** Rejects if the memory does not fit or a helper thread does not start. */
export async function openCpuBackend(options: CpuBackendOptions): Promise<Backend> {
  const { numerics, rowsMax, threads = availableParallelism() } = options;
  assert(Number.isInteger(rowsMax) && rowsMax > 0, 'rowsMax must be a positive integer');
  assert(Number.isInteger(threads) && threads > 0, 'threads must be a positive integer');
  const arena = new Arena(options.memoryBytesMax);
  const step = new Step(arena, rowsMax);
  const pool = await ThreadPool.open(arena, threads);
  return new CpuBackend({
    arena,
    pool,
    numerics,
    step,
    round: numerics.activations === 'bf16' ? 1 : 0,
    powerOfTwo: numerics.scaleFormat === 'ue8m0' ? 1 : 0,
  });
}

export class CpuBackend implements Backend {
  readonly name = 'cpu' as const;
  readonly hostMemory = null;
  readonly numerics: Numerics;
  readonly context: OpContext;
  readonly #gemm: Gemm;
  readonly #rowOps: RowOps;
  readonly #indexer: Indexer;
  readonly #attention: Attention;
  readonly #moe: Moe;
  #drawScratch: DrawScratch | null = null;

  constructor(context: OpContext) {
    this.context = context;
    this.numerics = context.numerics;
    this.#gemm = new Gemm(context);
    this.#rowOps = new RowOps(context);
    this.#indexer = new Indexer(context);
    this.#attention = new Attention(context, this.#gemm);
    this.#moe = new Moe(context, this.#gemm);
  }

  // ---- made at start -------------------------------------------------------------------------

  matrix(source: HostTensor): Matrix {
    const matrix = packMatrix(this.context.arena, source);
    this.#gemm.reserve(matrix);
    return matrix;
  }

  vector(name: string, values: Float32Array): Vector {
    const { arena } = this.context;
    const at = arena.allocate(values.byteLength, 'weight', name);
    arena.f32.set(values, at / 4);
    return new CpuVector(name, values.length, at);
  }

  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): AbsorbedKv {
    const roundDecoded = this.numerics.activations === 'bf16';
    this.#gemm.reserveProducts(shape.heads);
    return packAbsorbed(this.context.arena, source, { ...shape, roundDecoded });
  }

  wholeKv(source: HostTensor): Matrix {
    return this.matrix(source);
  }

  /** Never, so that a row's bits do not depend on how many others of its sequence come along. */
  expandsFaster(): boolean {
    return false;
  }

  experts(matrices: readonly ExpertMatrices[]): Experts {
    return this.#moe.experts(matrices);
  }

  ropeTable(table: RopeTable): void {
    this.#rowOps.ropeTable(table);
  }

  tensor(rows: number, columns: number): Tensor {
    assert(rows > 0 && columns > 0, 'a tensor needs rows and columns');
    const stride = Math.ceil(columns / 4) * 16;
    const what = `a tensor of ${rows} x ${columns}`;
    const at = this.context.arena.allocate(rows * stride, 'activation', what);
    return new CpuTensor({ rows, columns, at, stride });
  }

  columns(of: Tensor, start: number, count: number): Tensor {
    const { rows, columns, at, stride } = asCpu(CpuTensor, of);
    assert(
      start >= 0 && count > 0 && start + count <= columns,
      `columns ${start} to ${start + count} of a tensor that has ${columns}`,
    );
    return new CpuTensor({ rows, columns: count, at: at + start * 4, stride });
  }

  selection(rows: number, width: number): Selection {
    return this.#indexer.selection(rows, width);
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

  /** What is left to a first call is a few scratch arrays, for which the arena can grow. */
  freezeMemory(): void {}

  memory(): MemoryUse {
    return this.context.arena.use();
  }

  // ---- one step ------------------------------------------------------------------------------

  beginStep(batch: Batch): void {
    this.context.step.begin(batch);
  }

  captureOrReplay(_key: number, ops: () => void): void {
    ops();
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
    this.#gemm.linear(out, x, weight, rows);
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#gemm.linearF32(out, x, weight, rows);
  }

  rotate(x: Tensor, options: RotateOptions): void {
    this.#rowOps.rotate(x, options);
    if (options.transform === true) this.#rowOps.hadamard(x, options);
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
    writeLatent(this.context, cache, entries);
  }

  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    writeIndexKeys(this.context, cache, keys);
  }

  storeLatent(cache: LayerCache, entries: Tensor, norm: { weight: Vector; epsilon: number }): void {
    storeLatent(this, cache, entries, { ...norm, rows: this.context.step.rows });
  }

  storeIndexKeys(
    cache: LayerCache,
    keys: Tensor,
    norm: { weight: Vector; bias: Vector; epsilon: number },
    rotation: { layout: RopeLayout; transform: boolean },
  ): void {
    storeIndexKeys(this, cache, keys, { ...norm, rows: this.context.step.rows }, rotation);
  }

  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    this.#indexer.selectTopK(out, cache, queries, weights, options);
  }

  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void {
    this.#gemm.toLatent(out, q, kv, rows);
  }

  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void {
    this.#gemm.fromLatent(out, latent, kv, rows);
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void {
    this.#attention.attend(out, q, cache, selection, { ...options, lse: lse ?? null });
  }

  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    this.#attention.attendExpanded(out, q, cache, kvB, selection, options);
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
    const { at, stride, columns } = checkedTensor(logits, draws.length, logits.columns);
    const { f32 } = this.context.arena;
    const fits = this.#drawScratch?.weights.length === columns;
    const scratch =
      this.#drawScratch !== null && fits ? this.#drawScratch : createDrawScratch(columns);
    this.#drawScratch = scratch;
    return draws.map((draw, r) => {
      const start = (at + r * stride) / 4;
      return drawToken(f32.subarray(start, start + columns), draw, scratch);
    });
  }

  read(x: Tensor, rows: number): Float32Array {
    const { at, stride, columns } = checkedTensor(x, rows, x.columns);
    const { f32 } = this.context.arena;
    const out = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      const start = (at + r * stride) / 4;
      out.set(f32.subarray(start, start + columns), r * columns);
    }
    return out;
  }

  readSelection(selection: Selection, rows: number): Int32Array[] {
    const { at, counts, width, rows: capacity } = asCpu(CpuSelection, selection);
    assert(rows <= capacity, `${rows} rows of a selection of ${capacity}`);
    const { i32 } = this.context.arena;
    return Array.from({ length: rows }, (_, r) => {
      const start = at / 4 + r * width;
      return i32.slice(start, start + (i32[counts / 4 + r] ?? 0));
    });
  }

  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const from = asCpu(CpuRouting, routing);
    assert(rows <= from.rows, `${rows} rows of a routing of ${from.rows}`);
    const { i32, f32 } = this.context.arena;
    const count = rows * from.perToken;
    return {
      experts: i32.slice(from.experts / 4, from.experts / 4 + count),
      weights: f32.slice(from.weights / 4, from.weights / 4 + count),
    };
  }

  close(): Promise<void> {
    return this.context.pool.close();
  }
}
