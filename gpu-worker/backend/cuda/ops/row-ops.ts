/**
 * Ops that treat every row on its own: norms, sums, rotations, activations, copies, quantisation
 * (rows.cu, norms.cu, heads.cu).
 */
import { strict as assert } from 'node:assert';
import {
  checkGathered,
  checkHadamard,
  checkRotatedRows,
  ropeShape,
  rotatedWidth,
} from '../../checks.ts';
import type { NormOptions, RopeTable, RotateOptions, RowOps } from '../../row-ops.ts';
import type { Matrix, Tensor, Vector } from '../../shapes.ts';
import { asCuda, checkedVector, CudaMatrix, inputTensor, outputTensor } from '../handles.ts';
import type { Quantized } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import type { KernelArgs } from '../runtime/kernel-args.ts';
import { perLane, ropeArgs } from './head-rows.ts';
import type { RopePlace } from './head-rows.ts';

/** The address of rows, and the elements from one to the next. */
export interface RowPlace {
  readonly at: number;
  readonly stride: number;
}

/** norms.cu: most threads of a row. */
const normThreadsMax = 512;
/** Threads of a block; each takes 8 columns. */
const threads = 128;

/** Blocks for `pieces` threads of each of `rows` rows. */
function gridOf(rows: number, pieces: number): readonly [number, number, number] {
  return [rows, Math.ceil(pieces / threads), 1];
}

/** Threads for every 8 columns, or for whole groups of 128. */
function piecesOf(columns: number): number {
  return Math.ceil(columns / 8);
}
function groupPiecesOf(columns: number): number {
  return Math.ceil(columns / 128) * 16;
}

export class CudaRowOps implements RowOps {
  readonly #context: OpContext;
  readonly #rowIndices: number;
  #gatherQueued = false;
  #rope: RopePlace | null = null;

  constructor(context: OpContext) {
    this.#context = context;
    const bytes = context.step.rowsMax * 4;
    this.#rowIndices = context.device.allocate(bytes, 'activation', 'row numbers');
  }

  ropeTable(table: RopeTable): void {
    const { device, step } = this.#context;
    const { positions, half } = ropeShape(table);
    step.limitPositions(positions);
    const copy = (values: Float32Array) => {
      const at = device.allocate(values.byteLength, 'weight', 'the rope table');
      device.upload(at, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return at;
    };
    this.#rope = { positions, half, cos: copy(table.cos), sin: copy(table.sin) };
  }

  embed(out: Tensor, table: Matrix): void {
    const { device, step, defines } = this.#context;
    const matrix = asCuda(CudaMatrix, table);
    const { rows } = step;
    const into = outputTensor(out, rows, matrix.inputs);
    step.limitTokens(matrix.outputs);
    const { at, scales, dtype, inputs } = matrix;
    const scaleColumns = Math.ceil(inputs / 128);
    const grid = gridOf(rows, piecesOf(inputs));
    device.launch(
      device.kernel('rows', 'embed', defines),
      { grid, threads },
      {
        out: into.at,
        out_stride: into.stride,
        table: at,
        scales,
        dtype,
        columns: inputs,
        scale_columns: scaleColumns,
        tokens: step.tokens,
      },
    );
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
    const { device, step, defines } = this.#context;
    const { rows, epsilon } = options;
    const { columns } = call.x;
    const x = inputTensor(call.x, rows, columns);
    const out = outputTensor(call.out, rows, columns);
    const residual = call.residual === null ? null : outputTensor(call.residual, rows, columns);
    const bias = call.bias === null ? null : checkedVector(call.bias, columns);
    // By the width alone, so that a row's sums have one order.
    const pieces = groupPiecesOf(columns);
    const kPieces = Math.ceil(pieces / normThreadsMax);
    const block = Math.ceil(pieces / kPieces / 32) * 32;
    const kernel = device.kernel('norms', 'norm_rows', { ...defines, kPieces });
    device.launch(
      kernel,
      { grid: [rows, 1, 1], threads: block },
      {
        out: out.at,
        out_stride: out.stride,
        x: x.at,
        x_stride: x.stride,
        residual: residual?.at ?? null,
        residual_stride: residual?.stride ?? 0,
        weight: checkedVector(call.weight, columns).at,
        bias: bias?.at ?? null,
        columns,
        epsilon,
        quantized: this.quantizedRows(out.quantized),
      },
    );
    out.markQuantized(rows, step.serial);
  }

  add(residual: Tensor, x: Tensor, rows: number): void {
    const { device, defines } = this.#context;
    const { columns } = residual;
    const added = inputTensor(x, rows, columns);
    const out = outputTensor(residual, rows, columns);
    const grid = gridOf(rows, piecesOf(columns));
    device.launch(
      device.kernel('rows', 'add', defines),
      { grid, threads },
      {
        out: out.at,
        out_stride: out.stride,
        a: out.at,
        a_stride: out.stride,
        b: added.at,
        b_stride: added.stride,
        columns,
        quantized: this.quantizedRows(null),
      },
    );
  }

  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    const { columns } = gate;
    const a = inputTensor(gate, rows, columns);
    const b = inputTensor(up, rows, columns);
    const into = outputTensor(out, rows, columns);
    this.silu({ out: into, quantized: into.quantized }, a, b, { rows, columns });
    into.markQuantized(rows, this.#context.step.serial);
  }

  /** silu(a) * b to `out`, to its quantised form, or to both. */
  silu(
    to: { out: RowPlace | null; quantized: Quantized | null },
    a: RowPlace,
    b: RowPlace,
    shape: { rows: number; columns: number },
  ): void {
    const { device, defines } = this.#context;
    const { rows, columns } = shape;
    const { out, quantized } = to;
    const grid = gridOf(rows, groupPiecesOf(columns));
    device.launch(
      device.kernel('rows', 'silu_multiply', defines),
      { grid, threads },
      {
        out: out?.at ?? null,
        out_stride: out?.stride ?? 0,
        a: a.at,
        a_stride: a.stride,
        b: b.at,
        b_stride: b.stride,
        columns,
        quantized: this.quantizedRows(quantized),
      },
    );
  }

  /** The fields of a kernel's QuantizedRows. */
  quantizedRows(to: Quantized | null): KernelArgs {
    return {
      codes: to?.codes ?? null,
      code_stride: to?.codeStride ?? 0,
      scales: to?.scales ?? null,
      scale_row: to?.scaleRow ?? 0,
      scale_group: to?.scaleGroup ?? 0,
      power_of_two: to === null ? 0 : this.#context.powerOfTwo,
    };
  }

  /** Rows of activations, or with `rowIndices` those rows of them, to `to`. */
  quantize(
    to: Quantized,
    x: RowPlace,
    shape: { rows: number; columns: number; rowIndices: number },
  ): void {
    const { device, defines } = this.#context;
    const { rows, columns, rowIndices } = shape;
    const grid = gridOf(rows, groupPiecesOf(columns));
    device.launch(
      device.kernel('rows', 'quantize', defines),
      { grid, threads },
      {
        to: this.quantizedRows(to),
        x: x.at,
        x_stride: x.stride,
        columns,
        row_indices: rowIndices,
      },
    );
  }

  /** Copies the rows of these indices, which are quantised already. */
  gatherQuantized(
    to: Quantized,
    from: Quantized,
    shape: { rows: number; groups: number; rowIndices: number },
  ): void {
    const { device, defines } = this.#context;
    const { rows, groups, rowIndices } = shape;
    const grid = gridOf(rows, groups * 8);
    device.launch(
      device.kernel('rows', 'gather_quantized', defines),
      { grid, threads },
      {
        to: this.quantizedRows(to),
        from: this.quantizedRows(from),
        groups,
        row_indices: rowIndices,
      },
    );
  }

  /** The rope table, in which the step's rows have their places. */
  rope(rows: number): RopePlace {
    const { step } = this.#context;
    const rope = this.#rope;
    assert(rope !== null, 'rotate ran before ropeTable');
    checkRotatedRows(rows, step.rows);
    return rope;
  }

  rotate(x: Tensor, options: RotateOptions): void {
    const { device, step, defines } = this.#context;
    const { rows, heads, start, layout, transform = false } = options;
    const rope = this.rope(rows);
    const width = rotatedWidth(x, options, rope.half);
    const into = outputTensor(x, rows, heads * width);
    if (transform) {
      this.#transform(
        into,
        { rows, heads, dim: width },
        ropeArgs({ rope, layout }, start, step.positions),
      );
      return;
    }
    const pieces = heads * piecesOf(layout === 'half' ? rope.half : 2 * rope.half);
    const grid = gridOf(rows, pieces);
    device.launch(
      device.kernel('rows', 'rotate', defines),
      { grid, threads },
      {
        x: into.at,
        x_stride: into.stride,
        heads,
        head_stride: width,
        start,
        half: rope.half,
        half_split: layout === 'half',
        cos: rope.cos,
        sin: rope.sin,
        positions: step.positions,
      },
    );
  }

  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    const { rows, heads } = options;
    const dim = x.columns / heads;
    const into = outputTensor(x, rows, heads * dim);
    this.#transform(into, { rows, heads, dim }, ropeArgs(null, 0, 0));
  }

  /** Rotates each head if `rope` says so, and transforms it. */
  #transform(
    x: RowPlace,
    shape: { rows: number; heads: number; dim: number },
    rope: KernelArgs,
  ): void {
    const { device, defines } = this.#context;
    const { rows, heads, dim } = shape;
    checkHadamard(dim);
    const kernel = device.kernel('heads', 'transform_heads', {
      ...defines,
      kPerLane: perLane(dim),
    });
    const sharedBytes = (threads / 32) * dim * 4;
    device.launch(
      kernel,
      { grid: gridOf(rows, heads * 32), threads, sharedBytes },
      {
        x: x.at,
        x_stride: x.stride,
        heads,
        dim,
        rope,
        scale: 1 / Math.sqrt(dim),
      },
    );
  }

  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    const { device, step } = this.#context;
    const rows = rowIndices.length;
    const from = inputTensor(x, 0, x.columns);
    const into = outputTensor(out, rows, from.columns);
    checkGathered(from, rowIndices, step.rowsMax);
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
    out: RowPlace,
    x: RowPlace,
    part: { parts: number; columns: number; outPart: number; xPart: number; rowIndices: number },
  ): void {
    const { device, defines } = this.#context;
    const { parts, columns, outPart, xPart, rowIndices } = part;
    const grid = gridOf(rows, parts * piecesOf(columns));
    device.launch(
      device.kernel('rows', 'copy_rows', defines),
      { grid, threads },
      {
        out: out.at,
        out_stride: out.stride,
        out_part: outPart,
        x: x.at,
        x_stride: x.stride,
        x_part: xPart,
        parts,
        part_columns: columns,
        row_indices: rowIndices,
      },
    );
  }
}
