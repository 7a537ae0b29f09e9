/** Matrix products: one weight over all rows, one per head, or one per expert over its own rows. */
import assert from 'node:assert/strict';
import type { AbsorbedKv, HostTensor, Matrix, Tensor } from '../backend.ts';
import { Scratch } from './device.ts';
import {
  CudaAbsorbedKv,
  CudaMatrix,
  dtypeCode,
  type DtypeCode,
  own,
  ownFloats,
  ownTensor,
} from './handles.ts';
import type { Machine } from './machine.ts';
import type { RowOps } from './row-ops.ts';

const scaleGroup = 128;
/** Rows of a tile of the experts' products, whatever the kernel. */
export const groupedTileRows = 64;

/** Rows of activations, or with `rowIndices` those rows of them. */
export interface Rows {
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  readonly columns: number;
  /** [rows] i32, or 0. */
  readonly rowIndices: number;
}

/** Rows in the form that a product reads. */
export interface Input {
  readonly format: DtypeCode;
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  /** [rows, ceil(columns / 128)] f32, or 0. */
  readonly scales: number;
}

/** Where a product goes: activations, or float32. */
export interface Output {
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  readonly format: DtypeCode;
}

/** A weight, or one per blockIdx.z, or one per expert. */
export interface Weight {
  readonly dtype: DtypeCode;
  readonly outputs: number;
  readonly inputs: number;
  readonly at: number;
  readonly scales: number;
  readonly scaled: boolean;
}

export interface Batching {
  readonly count: number;
  /** Elements from one product to the next. */
  readonly x: number;
  readonly w: number;
  readonly out: number;
}

export interface Grouping {
  /** [experts] addresses. */
  readonly weights: number;
  readonly scales: number;
  readonly tiles: number;
  readonly tilesMax: number;
  readonly starts: number;
}

const alone: Batching = { count: 1, x: 0, w: 0, out: 0 };

export class Linear {
  readonly #machine: Machine;
  readonly #rowOps: RowOps;
  readonly #inputs: Scratch;
  readonly #scales: Scratch;

  constructor(machine: Machine, rowOps: RowOps) {
    this.#machine = machine;
    this.#rowOps = rowOps;
    this.#inputs = new Scratch(machine.device, 'inputs of products');
    this.#scales = new Scratch(machine.device, 'scales of the inputs of products');
  }

  matrix(source: HostTensor): CudaMatrix {
    const { outputs, inputs } = checkedShape(source);
    const { device, step, numerics } = this.#machine;
    const at = device.allocate(source.bytes.byteLength, 'weight', source.name);
    device.upload(at, source.bytes);
    const scales = this.#uploadScales(source);
    if (scales !== 0 && numerics.quantizedLinear) this.reserve(step.rowsMax, inputs);
    return new CudaMatrix(
      { name: source.name, outputs, inputs },
      {
        at,
        dtype: dtypeCode[source.dtype],
        scales,
      },
    );
  }

  #uploadScales({ name, scales }: HostTensor): number {
    if (scales === null) return 0;
    const { device } = this.#machine;
    const at = device.allocate(scales.byteLength, 'weight', `${name}'s scales`);
    device.upload(at, new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength));
    return at;
  }

  /** Takes at start the scratch for `rows` inputs of `inputs` elements, gathered or quantised. */
  reserve(rows: number, inputs: number): void {
    const { activationBytes } = this.#machine;
    const groups = Math.ceil(inputs / scaleGroup);
    this.#inputs.at(rows * groups * scaleGroup * activationBytes);
    this.#scales.at(rows * groups * 4);
  }

  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): CudaAbsorbedKv {
    const { device, numerics, defines } = this.#machine;
    const { heads, nopeDim: nope, valueDim: value } = shape;
    const { outputs, inputs: latent } = checkedShape(source);
    assert(
      outputs === heads * (nope + value),
      `${source.name} has ${outputs} outputs where ${heads} heads of ${nope} + ${value} are needed`,
    );
    const asBf16 =
      source.dtype === 'BF16' || (source.dtype === 'F8_E4M3' && numerics.activations === 'bf16');
    const width = asBf16 ? 2 : 4;
    const toLatent = device.allocate(heads * nope * latent * width, 'weight', source.name);
    const fromLatent = device.allocate(heads * value * latent * width, 'weight', source.name);
    // The checkpoint's form is needed no longer than this; it waits where inputs of products do.
    const at = this.#inputs.at(source.bytes.byteLength);
    device.upload(at, source.bytes);
    const scales = source.scales === null ? 0 : this.#scales.at(source.scales.byteLength);
    if (source.scales !== null) {
      const { buffer, byteOffset, byteLength } = source.scales;
      device.upload(scales, new Uint8Array(buffer, byteOffset, byteLength));
    }
    device.launch(
      device.kernel('rows', 'absorb', defines),
      { grid: [outputs, 1, 1], threads: 128 },
      [
        [at, scales, dtypeCode[source.dtype], Math.ceil(latent / scaleGroup), heads, nope, value],
        [latent, toLatent, fromLatent, asBf16 ? 1 : 0],
      ],
    );
    device.synchronize();
    const dtype = asBf16 ? dtypeCode.BF16 : dtypeCode.F32;
    return new CudaAbsorbedKv(
      source.name,
      { heads, nope, value, latent },
      { dtype, toLatent, fromLatent },
    );
  }

  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#product({ out, x, weight, rows, exact: false });
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#product({ out, x, weight, rows, exact: true });
  }

  #product(call: { out: Tensor; x: Tensor; weight: Matrix; rows: number; exact: boolean }): void {
    const { rows, exact } = call;
    const matrix = own(CudaMatrix, call.weight);
    const x = ownTensor(call.x, rows, matrix.inputs);
    const ownOut = exact ? ownFloats : ownTensor;
    const out = ownOut(call.out, rows, matrix.outputs);
    const weight: Weight = { ...pick(matrix), scaled: matrix.scales !== 0 };
    const plain = { at: x.at, stride: x.stride, columns: matrix.inputs, rowIndices: 0 };
    const input = this.input(plain, weight, { rows, exact });
    this.multiply(input, weight, out, { rows });
  }

  /**
   * The rows as the product with this weight reads them: e4m3 where the numerics quantise, else the
   * activations as they lie, or their copy where rows are gathered.
   */
  input(x: Rows, weight: Weight, options: { rows: number; exact: boolean }): Input {
    const { device, numerics, powerOfTwo, activation, activationBytes, defines } = this.#machine;
    const { rows, exact } = options;
    const groups = Math.ceil(x.columns / scaleGroup);
    const stride = groups * scaleGroup;
    if (weight.scaled && numerics.quantizedLinear && !exact) {
      const at = this.#inputs.at(rows * stride);
      const scales = this.#scales.at(rows * groups * 4);
      const grid = [Math.ceil(groups / 4), rows, 1] as const;
      device.launch(device.kernel('rows', 'quantize', defines), { grid, threads: 128 }, [
        [at, stride, scales, groups, x.at, x.stride, x.columns, x.rowIndices, powerOfTwo],
      ]);
      return { format: dtypeCode.F8_E4M3, at, stride, scales };
    }
    if (x.rowIndices === 0) return { format: activation, at: x.at, stride: x.stride, scales: 0 };
    const at = this.#inputs.at(rows * stride * activationBytes);
    const part = { parts: 1, columns: x.columns, outPart: 0, xPart: 0, rowIndices: x.rowIndices };
    this.#rowOps.copy(rows, { at, stride }, x, part);
    return { format: activation, at, stride, scales: 0 };
  }

  /** Whether the product runs on the matrix unit: pieces of 16 bytes must be whole. */
  #onMatrixUnit(x: Input, weight: Weight, batching: Batching): boolean {
    if (!this.#machine.matrixUnit) return false;
    if (x.format === dtypeCode.F8_E4M3) return weight.inputs % 16 === 0;
    const whole = weight.inputs % 8 === 0 && batching.x % 8 === 0 && x.stride % 8 === 0;
    const bf16 = x.format === dtypeCode.BF16 && weight.dtype === dtypeCode.BF16;
    return bf16 && whole && x.at % 16 === 0;
  }

  multiply(
    x: Input,
    weight: Weight,
    out: Output,
    options: { rows: number; batching?: Batching; grouping?: Grouping },
  ): void {
    const { device, defines: activations } = this.#machine;
    const { rows, batching = alone, grouping } = options;
    const { outputs, inputs } = weight;
    const slots = [
      [x.at, x.stride, x.scales, Math.ceil(inputs / scaleGroup), weight.at, weight.scales],
      [weight.dtype, outputs, inputs, out.at, out.stride, rows, out.format],
      [batching.x, batching.w, batching.out, grouping?.weights ?? 0],
      [weight.scaled ? (grouping?.scales ?? 0) : 0, grouping?.tiles ?? 0, grouping?.starts ?? 0],
    ];
    if (!this.#onMatrixUnit(x, weight, batching)) {
      const rowTiles = grouping?.tilesMax ?? Math.ceil(rows / 64);
      const grid = [Math.ceil(outputs / 64), rowTiles, batching.count] as const;
      device.launch(
        device.kernel('gemmF32', 'gemm_f32', activations),
        { grid, threads: 256 },
        slots,
      );
      return;
    }
    const large = grouping === undefined && rows > 64 && outputs > 64;
    const [tileRows, tileColumns] = large ? [128, 128] : [64, rows > 64 ? 128 : 64];
    const rowTiles = grouping?.tilesMax ?? Math.ceil(rows / tileRows);
    const kFp8 = x.format === dtypeCode.F8_E4M3 ? 1 : 0;
    const defines = { kFp8, kRows: tileRows, kColumns: tileColumns };
    device.launch(
      device.kernel('sm90Gemm', 'sm90_gemm', defines),
      {
        grid: [Math.ceil(outputs / tileColumns), rowTiles, batching.count],
        threads: tileRows * 2,
        sharedBytes: (tileRows + tileColumns) * 128 * 4,
      },
      slots,
    );
  }

  toLatent(out: Tensor, q: Tensor, handle: AbsorbedKv, rows: number): void {
    const { activationBytes } = this.#machine;
    const kv = own(CudaAbsorbedKv, handle);
    const { heads, nope, latent } = kv.shape;
    const rope = q.columns / heads - nope;
    assert(Number.isInteger(rope) && rope >= 0, 'the queries do not fit the heads');
    const from = ownTensor(q, rows, heads * (nope + rope));
    const into = ownTensor(out, rows, heads * (latent + rope));
    const weight = perHead(kv.toLatent, kv.dtype, { outputs: latent, inputs: nope });
    const batching = { count: heads, x: nope + rope, w: latent * nope, out: latent + rope };
    this.multiply({ ...from, scales: 0 }, weight, into, { rows, batching });
    this.#rowOps.copy(
      rows,
      { at: into.at + latent * activationBytes, stride: into.stride },
      { at: from.at + nope * activationBytes, stride: from.stride },
      { parts: heads, columns: rope, outPart: latent + rope, xPart: nope + rope, rowIndices: 0 },
    );
  }

  fromLatent(out: Tensor, latent: Tensor, handle: AbsorbedKv, rows: number): void {
    const kv = own(CudaAbsorbedKv, handle);
    const { heads, value, latent: width } = kv.shape;
    const from = ownTensor(latent, rows, heads * width);
    const into = ownTensor(out, rows, heads * value);
    const weight = perHead(kv.fromLatent, kv.dtype, { outputs: value, inputs: width });
    const batching = { count: heads, x: width, w: value * width, out: value };
    this.multiply({ ...from, scales: 0 }, weight, into, { rows, batching });
  }
}

function perHead(at: number, dtype: DtypeCode, shape: { outputs: number; inputs: number }): Weight {
  return { at, dtype, ...shape, scales: 0, scaled: false };
}

/** Elements from a row to the next, so that every row begins at a multiple of 16 bytes. */
export function padded(columns: number): number {
  return Math.ceil(columns / 8) * 8;
}

function pick({ at, dtype, outputs, inputs, scales }: CudaMatrix): Omit<Weight, 'scaled'> {
  return { at, dtype, outputs, inputs, scales };
}

export function checkedShape(source: HostTensor): { outputs: number; inputs: number } {
  const [outputs = 0, inputs = 0] = source.shape;
  assert(source.shape.length === 2 && outputs > 0 && inputs > 0, `${source.name} is no matrix`);
  const elementBytes = { F32: 4, BF16: 2, F8_E4M3: 1 }[source.dtype];
  assert(
    source.bytes.byteLength === outputs * inputs * elementBytes,
    `${source.name} has ${source.bytes.byteLength} bytes, not those of its shape`,
  );
  const blocks = Math.ceil(outputs / scaleGroup) * Math.ceil(inputs / scaleGroup);
  const scales = source.dtype === 'F8_E4M3' ? blocks : undefined;
  assert(source.scales?.length === scales, `${source.name} has the wrong number of scales`);
  return { outputs, inputs };
}
