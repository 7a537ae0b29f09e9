/** Matrix products: one weight over all rows, one per head, or one per expert over its own rows. */
import assert from 'node:assert/strict';
import type { AbsorbedKv, HostTensor, Matrix, Tensor } from '../../backend.ts';
import { Scratch } from '../runtime/device.ts';
import {
  CudaAbsorbedKv,
  type CudaExperts,
  CudaMatrix,
  type CudaTensor,
  dtypeCode,
  type DtypeCode,
  elementBytes,
  type ExpertTable,
  asCuda,
  f32Tensor,
  outputTensor,
  inputTensor,
  type Quantized,
} from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { fewTileRows, manyTileRows, planGemm, plainTileRows } from './gemm-plan.ts';
import type { RowOps, RowPlace } from './row-ops.ts';
import { type MappedTensor, TensorMaps, weightBoxRows } from '../runtime/tensor-maps.ts';

const scaleGroup = 128;
/** Rows of a plain product, of all its tiles together, up to which the kernel for few of them runs. */
const fewRows = 64;

/** Rows of activations, or with `rowIndices` those rows of them. */
export interface Rows {
  readonly at: number;
  /** Rows that lie there, if more than the product has. */
  readonly rows?: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  readonly columns: number;
  /** [rows] i32, or 0. */
  readonly rowIndices: number;
  /** The tensor that they are, if its quantised form may be used, and its rows in use. */
  readonly tensor?: { readonly of: CudaTensor; readonly rows: number };
}

/** Rows in the form that a product reads. */
export interface Input {
  readonly format: DtypeCode;
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  /** Rows that lie at `at`, those behind the product's own included. */
  readonly rows: number;
  /** [ceil(columns / 128), scaleStride] f32, or 0. */
  readonly scales: number;
  readonly scaleStride: number;
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
  readonly map: ExpertTable['map'];
  /** Most rows of a tile. */
  readonly tileRows: number;
  readonly tiles: number;
  readonly tilesMax: number;
  readonly starts: number;
}

const alone: Batching = { count: 1, x: 0, w: 0, out: 0 };

export class Gemm {
  readonly #context: OpContext;
  readonly #rowOps: RowOps;
  readonly #inputs: Scratch;
  readonly #scales: Scratch;
  readonly #maps: TensorMaps;
  #quantizes = false;

  constructor(context: OpContext, rowOps: RowOps) {
    this.#context = context;
    this.#rowOps = rowOps;
    this.#inputs = new Scratch(context.device, 'inputs of products');
    this.#scales = new Scratch(context.device, 'scales of the inputs of products');
    this.#maps = new TensorMaps(context.device.driver);
  }

  matrix(source: HostTensor): CudaMatrix {
    const { outputs, inputs } = checkedShape(source);
    const { device, step, numerics } = this.#context;
    const at = device.allocate(source.bytes.byteLength, 'weight', source.name);
    device.upload(at, source.bytes);
    const scales = this.#uploadScales(source);
    if (scales !== 0 && numerics.quantizedLinear) {
      this.#quantizes = true;
      this.reserve(step.rowsMax, inputs);
    }
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
    const { device } = this.#context;
    const at = device.allocate(scales.byteLength, 'weight', `${name}'s scales`);
    device.upload(at, new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength));
    return at;
  }

  /** Memory for a tensor's quantised form, if a weight so far wants its inputs quantised. */
  quantizedForm(rows: number, columns: number): Quantized | null {
    if (!this.#quantizes) return null;
    const { device } = this.#context;
    const groups = Math.ceil(columns / scaleGroup);
    const what = `the quantised form of a tensor of ${rows} x ${columns}`;
    const codes = device.allocate(rows * groups * scaleGroup, 'activation', what);
    const scales = device.allocate(scaleBytes(rows, groups), 'activation', what);
    return quantizedAt(rows, groups, { codes, scales, rows });
  }

  /** Scratch for rows in quantised form, until the next product's input. */
  #quantizedScratch(rows: number, columns: number): Quantized {
    const groups = Math.ceil(columns / scaleGroup);
    const codes = this.#inputs.at(rows * groups * scaleGroup);
    const scales = this.#scales.at(scaleBytes(rows, groups));
    const capacity = Math.floor(this.#inputs.bytes / (groups * scaleGroup));
    return quantizedAt(rows, groups, { codes, scales, rows: capacity });
  }

  /** Takes at start the scratch for `rows` inputs of `inputs` elements, gathered or quantised. */
  reserve(rows: number, inputs: number): void {
    const { activationBytes } = this.#context;
    const groups = Math.ceil(inputs / scaleGroup);
    this.#inputs.at(rows * groups * scaleGroup * activationBytes);
    this.#scales.at(scaleBytes(rows, groups));
  }

  absorb(
    source: HostTensor,
    shape: { heads: number; nopeDim: number; valueDim: number },
  ): CudaAbsorbedKv {
    const { device, numerics, defines } = this.#context;
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
    const matrix = asCuda(CudaMatrix, call.weight);
    const x = inputTensor(call.x, rows, matrix.inputs);
    const outputOf = exact ? f32Tensor : outputTensor;
    const out = outputOf(call.out, rows, matrix.outputs);
    const weight: Weight = { ...pick(matrix), scaled: matrix.scales !== 0 };
    const { at, stride } = x;
    const plain = {
      at,
      stride,
      rows: x.rows,
      columns: matrix.inputs,
      rowIndices: 0,
      tensor: { of: x, rows },
    };
    const input = this.input(plain, weight, { rows, exact });
    this.multiply(input, weight, out, { rows });
  }

  /**
   * The rows as the product with this weight reads them: e4m3 where the numerics quantise, else the
   * activations as they lie, or their copy where rows are gathered.
   */
  input(x: Rows, weight: Weight, options: { rows: number; exact: boolean }): Input {
    const { activation, activationBytes } = this.#context;
    const { rows, exact } = options;
    if (!exact && this.#quantizesFor(weight)) return quantizedInput(this.#quantized(x, rows));
    if (x.rowIndices === 0) return unscaled({ ...x, format: activation, rows: x.rows ?? rows });
    const stride = padded(x.columns);
    const at = this.#inputs.at(rows * stride * activationBytes);
    const part = { parts: 1, columns: x.columns, outPart: 0, xPart: 0, rowIndices: x.rowIndices };
    this.#rowOps.copy(rows, { at, stride }, x, part);
    const capacity = Math.floor(this.#inputs.bytes / (stride * activationBytes));
    return unscaled({ format: activation, at, stride, rows: capacity });
  }

  #quantizesFor(weight: Weight): boolean {
    return weight.scaled && this.#context.numerics.quantizedLinear;
  }

  /** The rows quantised: as an op before has left them, or by a launch of their own. */
  #quantized(x: Rows, rows: number): Quantized {
    const { at, stride, columns, rowIndices, tensor } = x;
    const form = tensor?.of.quantized ?? null;
    if (tensor === undefined || form === null) {
      const to = this.#quantizedScratch(rows, columns);
      this.#rowOps.quantize(to, { at, stride }, { rows, columns, rowIndices });
      return to;
    }
    const { serial } = this.#context.step;
    if (!tensor.of.isQuantized(tensor.rows, serial)) {
      this.#rowOps.quantize(form, { at, stride }, { rows: tensor.rows, columns, rowIndices: 0 });
      tensor.of.markQuantized(tensor.rows, serial);
    }
    if (rowIndices === 0) return form;
    const to = this.#quantizedScratch(rows, columns);
    const groups = Math.ceil(columns / scaleGroup);
    this.#rowOps.gatherQuantized(to, form, { rows, groups, rowIndices });
    return to;
  }

  /** silu(gate) * up as the product with this weight reads it; `gate` may be overwritten. */
  activatedInput(gate: Output, up: RowPlace, weight: Weight, rows: number): Input {
    const columns = weight.inputs;
    if (this.#quantizesFor(weight)) {
      const quantized = this.#quantizedScratch(rows, columns);
      this.#rowOps.silu({ out: null, quantized }, gate, up, { rows, columns });
      return quantizedInput(quantized);
    }
    this.#rowOps.silu({ out: gate, quantized: null }, gate, up, { rows, columns });
    return unscaled({ ...gate, rows });
  }

  /** Whether the product runs on the tensor cores: pieces of 16 bytes must be whole. */
  #onTensorCores(x: Input, weight: Weight, batching: Batching): boolean {
    if (!this.#context.useTensorCores) return false;
    if (x.format === dtypeCode.F8_E4M3) return weight.inputs % 16 === 0;
    const whole = weight.inputs % 8 === 0 && batching.x % 8 === 0 && x.stride % 8 === 0;
    const bf16 = x.format === dtypeCode.BF16 && weight.dtype === dtypeCode.BF16;
    return bf16 && whole && x.at % 16 === 0;
  }

  /** Rows of a tile of the experts' products: few where an expert has few. */
  groupedTileRows(slots: number, experts: CudaExperts): number {
    const { gate, down, count } = experts;
    const onUnit = [gate, down].every((table) => this.#expertsOnTensorCores(table));
    if (!onUnit) return plainTileRows;
    return fewTileRows.find((rows) => rows * count >= 2 * slots) ?? manyTileRows;
  }

  #expertsOnTensorCores({ map, scales, dtype }: ExpertTable): boolean {
    const { numerics, activation } = this.#context;
    if (map === null) return false;
    return scales === 0
      ? dtype === dtypeCode.BF16 && activation === dtypeCode.BF16
      : numerics.quantizedLinear;
  }

  /** The tensor map of the experts' weights, or null if the tensor cores can't read them. */
  mapExperts(matrices: readonly CudaMatrix[]): ExpertTable['map'] {
    const fits = matrices.every((matrix) => this.#isMappable(matrix));
    return fits ? this.#maps.ofAll(matrices.map((matrix) => weightMap(matrix, 1))) : null;
  }

  #isMappable({ dtype, inputs }: { dtype: DtypeCode; inputs: number }): boolean {
    const narrow = dtype !== dtypeCode.F32;
    return this.#context.useTensorCores && narrow && (inputs * elementBytes[dtype]) % 16 === 0;
  }

  multiply(
    x: Input,
    weight: Weight,
    out: Output,
    options: { rows: number; batching?: Batching; grouping?: Grouping },
  ): void {
    const { device, defines: activations } = this.#context;
    const { rows, batching = alone, grouping } = options;
    const { outputs, inputs } = weight;
    if (this.#multiplyByLibrary(x, weight, out, options)) return;
    const plan = this.#onTensorCores(x, weight, batching)
      ? planGemm(
          {
            fp8: x.format === dtypeCode.F8_E4M3,
            rows,
            outputs,
            inputs,
            batches: batching.count,
            grouped: grouping ?? null,
          },
          device.smCount,
        )
      : null;
    const rowTiles = plan?.rowTiles ?? grouping?.tilesMax ?? Math.ceil(rows / plainTileRows);
    const slots = [
      [x.at, x.stride, x.scales, x.scaleStride, weight.at, weight.scales],
      [weight.dtype, outputs, inputs, out.at, out.stride, rows, out.format],
      [batching.x, batching.w, batching.out, grouping?.weights ?? 0],
      [weight.scaled ? (grouping?.scales ?? 0) : 0, grouping?.tiles ?? 0, grouping?.starts ?? 0],
      [grouping?.tileRows ?? 0, rowTiles, batching.count, grouping?.map?.base ?? 0],
    ];
    if (plan === null) {
      if (rows <= fewRows && x.format !== dtypeCode.F8_E4M3) {
        const few = device.kernel('gemmFewF32', 'gemm_few_f32', activations);
        const fewGrid = [Math.ceil(outputs / 8), rowTiles, batching.count] as const;
        device.launch(few, { grid: fewGrid, threads: 256 }, slots);
        return;
      }
      const grid = [Math.ceil(outputs / 64), rowTiles, batching.count] as const;
      const kernel = device.kernel('gemmF32', 'gemm_f32', activations);
      device.launch(kernel, { grid, threads: 256 }, slots);
      return;
    }
    const xMap = this.#maps.of(rowsMap(x, inputs, batching), plan.boxRows);
    const wMap =
      grouping?.map?.map ?? this.#maps.of(weightMap(weight, batching.count), weightBoxRows);
    const { program, name, defines } = plan.kernel;
    device.launch(device.kernel(program, name, defines), plan, [...slots, xMap, wMap]);
  }

  /** Queues the product for cuBLASLt, if it is to be used and has it. */
  #multiplyByLibrary(
    x: Input,
    weight: Weight,
    out: Output,
    options: { rows: number; batching?: Batching; grouping?: Grouping },
  ): boolean {
    const { device, library } = this.#context;
    const { rows, batching = alone, grouping } = options;
    const single = grouping === undefined && batching.count === 1;
    if (library === null || !single || !this.#onTensorCores(x, weight, batching)) return false;
    // The library takes the scales of a group to end with the last row.
    if (x.scales !== 0 && x.scaleStride !== rows) return false;
    const { outputs, inputs } = weight;
    const call = library.matmul({
      fp8: x.format === dtypeCode.F8_E4M3,
      rows,
      outputs,
      inputs,
      xStride: x.stride,
      outStride: out.stride,
      outFormat: out.format,
    });
    if (call === null) return false;
    device.queue.pushCall(call, [weight.at, x.at, out.at, weight.scales, x.scales, rows]);
    return true;
  }

  toLatent(out: Tensor, q: Tensor, handle: AbsorbedKv, rows: number): void {
    const { activationBytes } = this.#context;
    const kv = asCuda(CudaAbsorbedKv, handle);
    const { heads, nope, latent } = kv.shape;
    const rope = q.columns / heads - nope;
    assert(Number.isInteger(rope) && rope >= 0, 'the queries do not fit the heads');
    const from = inputTensor(q, rows, heads * (nope + rope));
    const into = outputTensor(out, rows, heads * (latent + rope));
    const weight = perHead(kv.toLatent, kv.dtype, { outputs: latent, inputs: nope });
    const batching = { count: heads, x: nope + rope, w: latent * nope, out: latent + rope };
    this.multiply(unscaled(from), weight, into, { rows, batching });
    this.#rowOps.copy(
      rows,
      { at: into.at + latent * activationBytes, stride: into.stride },
      { at: from.at + nope * activationBytes, stride: from.stride },
      { parts: heads, columns: rope, outPart: latent + rope, xPart: nope + rope, rowIndices: 0 },
    );
  }

  fromLatent(out: Tensor, latent: Tensor, handle: AbsorbedKv, rows: number): void {
    const kv = asCuda(CudaAbsorbedKv, handle);
    const { heads, value, latent: width } = kv.shape;
    const from = inputTensor(latent, rows, heads * width);
    const into = outputTensor(out, rows, heads * value);
    const weight = perHead(kv.fromLatent, kv.dtype, { outputs: value, inputs: width });
    const batching = { count: heads, x: width, w: value * width, out: value };
    this.multiply(unscaled(from), weight, into, { rows, batching });
  }
}

/** Rows of activations as they lie. */
export function unscaled({
  format,
  at,
  stride,
  rows,
}: Pick<Input, 'format' | 'at' | 'stride' | 'rows'>): Input {
  return { format, at, stride, rows, scales: 0, scaleStride: 0 };
}

function rowsMap(x: Input, inputs: number, batching: Batching): MappedTensor {
  const { at, format, rows, stride } = x;
  return {
    at,
    format,
    inputs,
    batches: batching.count,
    batchStride: batching.x,
    rows,
    rowStride: stride,
  };
}

function weightMap(
  { at, dtype, outputs, inputs }: Omit<Weight, 'scales' | 'scaled'>,
  batches: number,
): MappedTensor {
  const batchStride = outputs * inputs;
  return { at, format: dtype, inputs, batches, batchStride, rows: outputs, rowStride: inputs };
}

/** Floats from a group's scales of all rows to the next group's. */
function scaleStrideOf(rows: number): number {
  return Math.ceil(rows / 4) * 4;
}

/** Bytes of the scales of rows: a tile's copy may run past the last one. */
function scaleBytes(rows: number, groups: number): number {
  return groups * scaleStrideOf(rows) * 4 + manyTileRows * 4 + 16;
}

function quantizedAt(
  rows: number,
  groups: number,
  place: { codes: number; scales: number; rows: number },
): Quantized {
  const codeStride = groups * scaleGroup;
  return { ...place, codeStride, scaleRow: 1, scaleGroup: scaleStrideOf(rows) };
}

function quantizedInput({ codes, codeStride, rows, scales, scaleGroup: group }: Quantized): Input {
  const format = dtypeCode.F8_E4M3;
  return { format, at: codes, stride: codeStride, rows, scales, scaleStride: group };
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
  const width = elementBytes[dtypeCode[source.dtype]];
  assert(
    source.bytes.byteLength === outputs * inputs * width,
    `${source.name} has ${source.bytes.byteLength} bytes, not those of its shape`,
  );
  const blocks = Math.ceil(outputs / scaleGroup) * Math.ceil(inputs / scaleGroup);
  const scales = source.dtype === 'F8_E4M3' ? blocks : undefined;
  assert(source.scales?.length === scales, `${source.name} has the wrong number of scales`);
  return { outputs, inputs };
}
