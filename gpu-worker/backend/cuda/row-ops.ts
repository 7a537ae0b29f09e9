/** Ops that treat every row on its own: norms, sums, rotations, activations, copies (rows.cu). */
import assert from 'node:assert/strict';
import type { Matrix, RopeLayout, RopeTable, Tensor, Vector } from '../backend.ts';
import { CudaMatrix, own, ownTensor, ownVector } from './handles.ts';
import { real } from './launch-queue.ts';
import type { Machine } from './machine.ts';

interface NormOptions {
  readonly rows: number;
  readonly epsilon: number;
}

/** Where the cosines and sines lie, [positions, half] f32. */
interface RopePlace {
  readonly positions: number;
  readonly half: number;
  readonly cos: number;
  readonly sin: number;
}

const threads = 256;

export class RowOps {
  readonly #machine: Machine;
  readonly #rowIndices: number;
  #gatherQueued = false;
  #rope: RopePlace | null = null;

  constructor(machine: Machine) {
    this.#machine = machine;
    const bytes = machine.step.rowsMax * 4;
    this.#rowIndices = machine.device.allocate(bytes, 'activation', 'row numbers');
  }

  ropeTable(table: RopeTable): void {
    const { device, step } = this.#machine;
    const half = table.dim / 2;
    assert(Number.isInteger(half) && half > 0, 'the rotated part must have an even width');
    const positions = table.cos.length / half;
    assert(
      Number.isInteger(positions) && table.sin.length === table.cos.length,
      'the rope table does not have the width that it names',
    );
    step.limitPositions(positions);
    const copy = (values: Float32Array) => {
      const at = device.allocate(values.byteLength, 'weight', 'the rope table');
      device.upload(at, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return at;
    };
    this.#rope = { positions, half, cos: copy(table.cos), sin: copy(table.sin) };
  }

  embed(out: Tensor, table: Matrix): void {
    const { device, step, defines } = this.#machine;
    const matrix = own(CudaMatrix, table);
    const { rows } = step;
    const into = ownTensor(out, rows, matrix.inputs);
    step.limitTokens(matrix.outputs);
    const { at, scales, dtype, inputs } = matrix;
    const scaleColumns = Math.ceil(inputs / 128);
    device.launch(device.kernel('rows', 'embed', defines), { grid: [rows, 1, 1], threads }, [
      [into.at, into.stride, at, scales, dtype, inputs, scaleColumns, step.tokens],
    ]);
  }

  rmsNorm(out: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    this.#norm({ out, x, weight, residual: null, bias: null }, options);
  }

  addRmsNorm(out: Tensor, residual: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    this.#norm({ out, x, weight, residual, bias: null }, options);
  }

  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: NormOptions,
  ): void {
    this.#norm({ out, x, residual: null, ...norm }, options);
  }

  #norm(
    call: { out: Tensor; x: Tensor; weight: Vector; residual: Tensor | null; bias: Vector | null },
    options: NormOptions,
  ): void {
    const { device, defines } = this.#machine;
    const { rows, epsilon } = options;
    const { columns } = call.x;
    const x = ownTensor(call.x, rows, columns);
    const out = ownTensor(call.out, rows, columns);
    const residual = call.residual === null ? null : ownTensor(call.residual, rows, columns);
    const bias = call.bias === null ? null : ownVector(call.bias, columns);
    const block = columns >= 2048 ? 512 : columns >= 512 ? 256 : 64;
    device.launch(
      device.kernel('rows', 'norm_rows', defines),
      { grid: [rows, 1, 1], threads: block },
      [
        [out.at, out.stride, x.at, x.stride, residual?.at ?? 0, residual?.stride ?? 0],
        [ownVector(call.weight, columns).at, bias?.at ?? 0, columns, real(epsilon)],
      ],
    );
  }

  add(residual: Tensor, x: Tensor, rows: number): void {
    this.#pair('add', { out: residual, a: residual, b: x, rows });
  }

  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    this.#pair('silu_multiply', { out, a: gate, b: up, rows });
  }

  #pair(
    name: 'add' | 'silu_multiply',
    call: { out: Tensor; a: Tensor; b: Tensor; rows: number },
  ): void {
    const { device, defines } = this.#machine;
    const { rows } = call;
    const { columns } = call.a;
    const out = ownTensor(call.out, rows, columns);
    const a = ownTensor(call.a, rows, columns);
    const b = ownTensor(call.b, rows, columns);
    const grid = [Math.ceil(columns / threads), rows, 1] as const;
    device.launch(device.kernel('rows', name, defines), { grid, threads }, [
      [out.at, out.stride, a.at, a.stride, b.at, b.stride, columns],
    ]);
  }

  rotate(
    x: Tensor,
    options: { rows: number; heads: number; start: number; layout: RopeLayout },
  ): void {
    const { device, step, defines } = this.#machine;
    const { rows, heads, start, layout } = options;
    const rope = this.#rope;
    assert(rope !== null, 'rotate ran before ropeTable');
    const width = x.columns / heads;
    const into = ownTensor(x, rows, heads * width);
    assert(
      Number.isInteger(width) && start >= 0 && start + 2 * rope.half <= width,
      'the rotated part lies outside the heads',
    );
    assert(rows <= step.rows, 'rotate has more rows than the batch has positions');
    const grid = [Math.ceil((heads * rope.half) / threads), rows, 1] as const;
    device.launch(device.kernel('rows', 'rotate', defines), { grid, threads }, [
      [into.at, into.stride, heads, width, start, rope.half, layout === 'half' ? 1 : 0],
      [rope.cos, rope.sin, step.positions],
    ]);
  }

  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    const { device, defines } = this.#machine;
    const { rows, heads } = options;
    const dim = x.columns / heads;
    assert(
      Number.isInteger(dim) && Number.isInteger(Math.log2(dim)),
      `the Hadamard transform needs a power of two, not ${dim}`,
    );
    const into = ownTensor(x, rows, heads * dim);
    const shape = { grid: [heads, rows, 1], threads: 64, sharedBytes: dim * 4 } as const;
    device.launch(device.kernel('rows', 'hadamard', defines), shape, [
      [into.at, into.stride, heads, dim, real(1 / Math.sqrt(dim))],
    ]);
  }

  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    const { device, step } = this.#machine;
    const rows = rowIndices.length;
    assert(rows <= step.rowsMax, `${rows} rows to gather; ${step.rowsMax} fit`);
    const from = ownTensor(x, 0, x.columns);
    const into = ownTensor(out, rows, from.columns);
    assert(
      rowIndices.every((row) => row >= 0 && row < from.rows),
      'a row to gather is not in the tensor',
    );
    // The row numbers go ahead of the queue, so only one gather may wait in it.
    if (this.#gatherQueued && !device.queue.empty) device.queue.flush();
    device.send(this.#rowIndices, rowIndices);
    this.#gatherQueued = true;
    const part = { parts: 1, columns: from.columns, outPart: 0, xPart: 0 };
    this.copy(rows, into, from, { ...part, rowIndices: this.#rowIndices });
  }

  /** Copies `parts` parts of each row of activations; strides in elements. */
  copy(
    rows: number,
    out: { at: number; stride: number },
    x: { at: number; stride: number },
    part: { parts: number; columns: number; outPart: number; xPart: number; rowIndices: number },
  ): void {
    const { device, defines } = this.#machine;
    const { parts, columns, outPart, xPart, rowIndices } = part;
    const grid = [Math.ceil((parts * columns) / threads), rows, 1] as const;
    device.launch(device.kernel('rows', 'copy_rows', defines), { grid, threads }, [
      [out.at, out.stride, outPart, x.at, x.stride, xPart, parts, columns, rowIndices],
    ]);
  }
}
