/** Ops that treat every row on its own: norms, sums, rotations, activations, copies. */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import {
  checkGathered,
  checkHadamard,
  checkRotatedRows,
  ropeShape,
  rotatedWidth,
} from '../checks.ts';
import type { NormOptions, RopeTable, RotateOptions, RowOps } from '../row-ops.ts';
import type { Matrix, Tensor, Vector } from '../shapes.ts';
import { CpuMatrix, asCpu, checkedTensor, checkedVector } from './handles.ts';
import {
  opAdd,
  opCopyRows,
  opEmbed,
  opHadamard,
  opLayerNorm,
  opRmsNorm,
  opRotate,
  opSiluMultiply,
  threadScratchBytes,
} from './kernels/op-codes.ts';
import type { OpContext } from './op-context.ts';
import { f32 } from './thread-pool.ts';
import type { Arguments } from './thread-pool.ts';

/** The addresses of the cosines and sines, [positions][half] f32. */
interface RopePlace {
  readonly positions: number;
  readonly half: number;
  readonly cos: number;
  readonly sin: number;
}

export class CpuRowOps implements RowOps {
  readonly #context: OpContext;
  readonly #rowIndices: number;
  #rope: RopePlace | null = null;

  constructor(context: OpContext) {
    this.#context = context;
    const bytes = context.step.rowsMax * 4;
    this.#rowIndices = context.arena.allocate(bytes, 'activation', 'row numbers');
  }

  ropeTable(table: RopeTable): void {
    const { arena } = this.#context;
    const { positions, half } = ropeShape(table);
    const cos = arena.allocate(table.cos.byteLength, 'weight', 'the rope table');
    const sin = arena.allocate(table.sin.byteLength, 'weight', 'the rope table');
    arena.f32.set(table.cos, cos / 4);
    arena.f32.set(table.sin, sin / 4);
    this.#rope = { positions, half, cos, sin };
  }

  /** Runs a kernel whose first arguments are the rows and the rows per task. */
  #run(op: number, rows: number, rowWork: number, rest: Arguments): void {
    const { pool } = this.#context;
    const { rowsPerTask, tasks } = pool.share(rows, rowWork);
    pool.run({ op, tasks, work: rows * rowWork, arguments: [rows, rowsPerTask, ...rest] });
  }

  embed(out: Tensor, table: Matrix, firstToken?: number): void {
    const { step, round } = this.#context;
    const matrix = asCpu(CpuMatrix, table);
    const { rows } = step;
    const into = checkedTensor(out, rows, matrix.inputs);
    const has = (token: number): boolean => token >= 0 && token < matrix.outputs;
    const tokens = firstToken === undefined ? step.tokens : this.#tokensFrom(firstToken, has);
    assert(
      firstToken !== undefined || step.batch.tokens.every(has),
      `a token is not among the ${matrix.outputs} of the embedding`,
    );
    const rest = [into.at, into.stride, matrix.view, tokens, round];
    this.#run(opEmbed, rows, matrix.inputs * 4, rest);
    if (firstToken === undefined) return;
    for (let r = 0; r < rows; r++) {
      const start = (into.at + r * into.stride) / 4;
      if (!has(at(step.batch.tokens, r) - firstToken)) {
        this.#context.arena.f32.fill(0, start, start + matrix.inputs);
      }
    }
  }

  /** The address of the step's tokens as a part of the table numbers them, 0 for the others'. */
  #tokensFrom(firstToken: number, has: (token: number) => boolean): number {
    const { arena, step } = this.#context;
    const own = step.batch.tokens.map((token) =>
      has(token - firstToken) ? token - firstToken : 0,
    );
    arena.i32.set(own, this.#rowIndices / 4);
    return this.#rowIndices;
  }

  rmsNorm(out: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    this.#norm(opRmsNorm, { out, x, weight, residual: null, bias: null }, options);
  }

  addRmsNorm(out: Tensor, residual: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    assert(x.columns * 4 <= threadScratchBytes, 'the residual is too wide');
    this.#norm(opRmsNorm, { out, x, weight, residual, bias: null }, options);
  }

  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: NormOptions,
  ): void {
    this.#norm(opLayerNorm, { out, x, residual: null, ...norm }, options);
  }

  #norm(
    op: number,
    call: {
      out: Tensor;
      x: Tensor;
      weight: Vector;
      residual: Tensor | null;
      bias: Vector | null;
    },
    options: NormOptions,
  ): void {
    const { rows, epsilon } = options;
    const { columns } = call.x;
    const x = checkedTensor(call.x, rows, columns);
    const out = checkedTensor(call.out, rows, columns);
    const residual = call.residual === null ? null : checkedTensor(call.residual, rows, columns);
    const bias = call.bias === null ? null : checkedVector(call.bias, columns);
    this.#run(op, rows, columns * 3, [
      [columns, out.at, out.stride, x.at, x.stride],
      [residual?.at ?? 0, residual?.stride ?? 0],
      [checkedVector(call.weight, columns).at, bias?.at ?? 0, f32(epsilon), this.#context.round],
    ]);
  }

  add(residual: Tensor, x: Tensor, rows: number): void {
    this.#pair(opAdd, { out: residual, a: residual, b: x, rows, work: 1 });
  }

  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    this.#pair(opSiluMultiply, { out, a: gate, b: up, rows, work: 4 });
  }

  #pair(op: number, call: { out: Tensor; a: Tensor; b: Tensor; rows: number; work: number }): void {
    const { rows } = call;
    const { columns } = call.a;
    const out = checkedTensor(call.out, rows, columns);
    const a = checkedTensor(call.a, rows, columns);
    const b = checkedTensor(call.b, rows, columns);
    const places = [out.at, out.stride, a.at, a.stride, b.at, b.stride];
    this.#run(op, rows, columns * call.work, [columns, ...places, this.#context.round]);
  }

  rotate(x: Tensor, options: RotateOptions): void {
    const { step, round } = this.#context;
    const { rows, heads, start, layout } = options;
    const rope = this.#rope;
    assert(rope !== null, 'rotate ran before ropeTable');
    const width = rotatedWidth(x, options, rope.half);
    const into = checkedTensor(x, rows, heads * width);
    checkRotatedRows(rows, step.rows);
    for (let r = 0; r < rows; r++) {
      const position = at(step.batch.positions, r);
      assert(position < rope.positions, `position ${position} is behind the rope table's end`);
    }
    this.#run(opRotate, rows, heads * rope.half * 2, [
      [into.at, into.stride, heads, width * 4, start * 4],
      [rope.half, layout === 'half' ? 1 : 0, rope.cos, rope.sin, step.positions, round],
    ]);
    if (options.transform === true) this.hadamard(x, options);
  }

  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    const { rows, heads } = options;
    const dim = x.columns / heads;
    checkHadamard(dim);
    const into = checkedTensor(x, rows, heads * dim);
    const rest = [into.at, into.stride, heads, dim, f32(1 / Math.sqrt(dim)), this.#context.round];
    this.#run(opHadamard, rows, x.columns * (1 + Math.log2(dim)), rest);
  }

  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    const { arena, step } = this.#context;
    const rows = rowIndices.length;
    const from = checkedTensor(x, 0, x.columns);
    const into = checkedTensor(out, rows, x.columns);
    checkGathered(from, rowIndices, step.rowsMax);
    arena.i32.set(rowIndices, this.#rowIndices / 4);
    this.#run(opCopyRows, rows, x.columns, [
      [x.columns * 4, 1, into.at, into.stride, 0],
      [from.at, from.stride, 0, this.#rowIndices],
    ]);
  }
}
