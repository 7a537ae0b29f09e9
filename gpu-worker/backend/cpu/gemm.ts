/** Matrix products: one weight over all rows, or many weights over their own rows in one job. */
import { at } from '../../at.ts';
import { ropeDimOf } from '../checks.ts';
import type { GemmOps } from '../gemm.ts';
import { scaleGroup } from '../numerics.ts';
import type { AbsorbedKv, Matrix, Tensor } from '../shapes.ts';
import { Scratch } from './arena.ts';
import { CpuAbsorbedKv, CpuMatrix, CpuTensor, asCpu, checkedTensor } from './handles.ts';
import { opCopyRows, opGemm, opQuantize, tileBytes, tileRowsMax } from './kernels/op-codes.ts';
import type { OpContext } from './op-context.ts';

/** Multiply-adds of a task at least; smaller ones are not worth their bookkeeping. */
const taskWorkMin = 25_000;
/** Tasks per thread, so that a thread that starts late does not hold up the job. */
const tasksPerThread = 6;

/** Rows in the arena, as a product reads them: plain, or quantised with their scales. */
export interface Rows {
  readonly at: number;
  /** Bytes from a row to the next. */
  readonly stride: number;
  /** [rows][ceil(columns / 128)] f32, or 0. */
  readonly scales: number;
  readonly scaleStride: number;
}

/** One product of a job: some rows through one weight, by the addresses of their first elements. */
export interface GemmPart {
  readonly matrix: CpuMatrix;
  readonly rows: number;
  readonly x: number;
  readonly xScales: number;
  readonly out: number;
}

export class CpuGemm implements GemmOps {
  readonly #context: OpContext;
  readonly #quantized: Scratch;
  readonly #tiles: Scratch;
  readonly #gathered: Scratch;
  readonly #ownOutputs: Scratch;
  #tileTable = new Uint32Array(0);

  constructor(context: OpContext) {
    this.#context = context;
    this.#quantized = new Scratch(context.arena, 'quantised activations');
    this.#tiles = new Scratch(context.arena, 'descriptions of GEMMs');
    this.#gathered = new Scratch(context.arena, 'rows of all ranks');
    this.#ownOutputs = new Scratch(context.arena, 'outputs of this rank');
  }

  /** Takes at start the scratch that `linear` with this weight needs. */
  reserve(matrix: CpuMatrix): void {
    if (matrix.scaled) this.reserveQuantized(this.#context.step.rowsMax, matrix.inputs);
    this.reserveGemms(1);
    const { ranks, step } = this.#context;
    if (ranks === null || ranks.heads.size === 1) return;
    this.#tensorOf(this.#gathered, step.rowsMax, matrix.inputs);
    this.#tensorOf(this.#ownOutputs, step.rowsMax, matrix.outputs);
  }

  reserveQuantized(rows: number, inputs: number): void {
    if (this.#context.numerics.quantizedLinear) this.#quantizedPlace(rows, inputs);
  }

  /** Takes at start the scratch of jobs with `count` products over `rowsMax` rows each. */
  reserveGemms(count: number): void {
    this.#tiles.at(count * Math.ceil(this.#context.step.rowsMax / tileRowsMax) * tileBytes);
  }

  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#linear({ out, x, weight, rows, exact: false });
  }

  /**
   * Each rank has some of the weight's outputs and all inputs: it multiplies whole rows, which are
   * gathered before, and the outputs are gathered after. So every sum is the one of a rank that has
   * the whole weight, to the bit.
   */
  linearOfParts(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    const { ranks } = this.#context;
    if (ranks === null || ranks.heads.size === 1) return this.linear(out, x, weight, rows);
    const { inputs, outputs } = asCpu(CpuMatrix, weight);
    const whole = this.#tensorOf(this.#gathered, rows, inputs);
    ranks.allGather(whole, x, rows);
    const own = this.#tensorOf(this.#ownOutputs, rows, outputs);
    this.linear(own, whole, weight, rows);
    ranks.allGather(out, own, rows);
  }

  #tensorOf(scratch: Scratch, rows: number, columns: number): CpuTensor {
    const stride = Math.ceil(columns / 4) * 16;
    return new CpuTensor({ rows, columns, at: scratch.at(rows * stride), stride });
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#linear({ out, x, weight, rows, exact: true });
  }

  #linear(call: { out: Tensor; x: Tensor; weight: Matrix; rows: number; exact: boolean }): void {
    const { rows } = call;
    const matrix = asCpu(CpuMatrix, call.weight);
    const x = checkedTensor(call.x, rows, matrix.inputs);
    const out = checkedTensor(call.out, rows, matrix.outputs);
    const plain: Rows = { at: x.at, stride: x.stride, scales: 0, scaleStride: 0 };
    const input = call.exact ? plain : this.input(plain, matrix, rows);
    const product = { matrix, rows, x: input.at, xScales: input.scales, out: out.at };
    this.runAll([product], input, { stride: out.stride, rounded: !call.exact });
  }

  /** True if `linear` quantises the input of this weight. */
  quantizes(matrix: CpuMatrix): boolean {
    return matrix.scaled && this.#context.numerics.quantizedLinear;
  }

  /** The rows as `linear` with this weight reads them; optionally rows `rowIndices` [rows] i32. */
  input(x: Rows, matrix: CpuMatrix, rows: number, rowIndices = 0): Rows {
    if (!this.quantizes(matrix)) return x;
    const { pool, powerOfTwo } = this.#context;
    const { inputs } = matrix;
    const place = this.#quantizedPlace(rows, inputs);
    const { rowsPerTask, tasks } = pool.share(rows, inputs);
    pool.run({
      op: opQuantize,
      tasks,
      work: rows * inputs,
      arguments: [
        [rows, rowsPerTask, inputs],
        [place.at, place.stride, place.scales, place.scaleStride],
        [x.at, x.stride, rowIndices, powerOfTwo],
      ],
    });
    return place;
  }

  #quantizedPlace(rows: number, inputs: number): Rows {
    const stride = Math.ceil(inputs / 4) * 16;
    const scaleStride = Math.ceil(inputs / scaleGroup) * 4;
    const place = this.#quantized.at(rows * (stride + scaleStride));
    return { at: place, stride, scales: place + rows * stride, scaleStride };
  }

  /** Runs all products as one job. */
  runAll(
    products: readonly GemmPart[],
    input: { stride: number; scaleStride: number },
    out: { stride: number; rounded: boolean },
  ): void {
    const { pool, round } = this.#context;
    let work = 0;
    let panels = Infinity;
    for (const { matrix, rows } of products) {
      work += rows * matrix.inputs * matrix.outputs;
      panels = Math.min(panels, Math.ceil(matrix.outputs / 8));
    }
    const { tiles, count } = this.#writeTiles(products, input, out.stride);
    if (count === 0) return;
    const wanted = Math.min((pool.threads * tasksPerThread) / count, work / count / taskWorkMin);
    const chunks = pool.threads === 1 ? 1 : Math.max(1, Math.min(panels, Math.ceil(wanted)));
    pool.run({
      op: opGemm,
      tasks: count * chunks,
      work,
      arguments: [
        [tiles, count, chunks, input.stride, input.scaleStride, out.stride],
        out.rounded ? round : 0,
      ],
    });
  }

  /** Cuts the products into tiles of at most 64 rows and describes them to the kernel. */
  #writeTiles(
    products: readonly GemmPart[],
    input: { stride: number; scaleStride: number },
    outStride: number,
  ): { tiles: number; count: number } {
    let count = 0;
    for (const { rows } of products) count += Math.ceil(rows / tileRowsMax);
    if (this.#tileTable.length < (count * tileBytes) / 4) {
      this.#tileTable = new Uint32Array((count * tileBytes) / 4);
    }
    const table = this.#tileTable;
    let next = 0;
    for (const { matrix, rows, x, xScales, out } of products) {
      for (let row = 0; row < rows; row += tileRowsMax) {
        table[next++] = matrix.view;
        table[next++] = x + row * input.stride;
        table[next++] = xScales === 0 ? 0 : xScales + row * input.scaleStride;
        table[next++] = out + row * outStride;
        table[next++] = Math.min(tileRowsMax, rows - row);
      }
    }
    const tiles = this.#tiles.at(count * tileBytes);
    this.#context.arena.u32.set(table.subarray(0, next), tiles / 4);
    return { tiles, count };
  }

  toLatent(out: Tensor, q: Tensor, handle: AbsorbedKv, rows: number): void {
    const kv = asCpu(CpuAbsorbedKv, handle);
    const first = at(kv.toLatent, 0);
    const ropeDim = ropeDimOf(q, kv.heads, first.inputs);
    const from = checkedTensor(q, rows, kv.heads * (first.inputs + ropeDim));
    const into = checkedTensor(out, rows, kv.heads * (first.outputs + ropeDim));
    const xHead = (first.inputs + ropeDim) * 4;
    const outHead = (first.outputs + ropeDim) * 4;
    this.#perHead(kv.toLatent, { rows, from, into, xHead, outHead });
    const { pool } = this.#context;
    const { rowsPerTask, tasks } = pool.share(rows, kv.heads * ropeDim);
    pool.run({
      op: opCopyRows,
      tasks,
      work: rows * kv.heads * ropeDim,
      arguments: [
        [rows, rowsPerTask, ropeDim * 4, kv.heads],
        [into.at + first.outputs * 4, into.stride, outHead],
        [from.at + first.inputs * 4, from.stride, xHead, 0],
      ],
    });
  }

  fromLatent(out: Tensor, latent: Tensor, handle: AbsorbedKv, rows: number): void {
    const kv = asCpu(CpuAbsorbedKv, handle);
    const first = at(kv.fromLatent, 0);
    const from = checkedTensor(latent, rows, kv.heads * first.inputs);
    const into = checkedTensor(out, rows, kv.heads * first.outputs);
    const strides = { xHead: first.inputs * 4, outHead: first.outputs * 4 };
    this.#perHead(kv.fromLatent, { rows, from, into, ...strides });
  }

  /** One product per head, between equal parts of the rows of two tensors. */
  #perHead(
    matrices: readonly CpuMatrix[],
    call: {
      rows: number;
      from: { at: number; stride: number };
      into: { at: number; stride: number };
      xHead: number;
      outHead: number;
    },
  ): void {
    const products = matrices.map((matrix, head) => ({
      matrix,
      rows: call.rows,
      x: call.from.at + head * call.xHead,
      xScales: 0,
      out: call.into.at + head * call.outHead,
    }));
    const input = { stride: call.from.stride, scaleStride: 0 };
    this.runAll(products, input, { stride: call.into.stride, rounded: true });
  }
}
