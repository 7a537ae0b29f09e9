/** GEMMs: one weight over all rows, one per head, or one per expert over its own rows. */
import { ropeDimOf } from '../../checks.ts';
import type { GemmOps } from '../../gemm.ts';
import type { AbsorbedKv, Matrix, Tensor } from '../../shapes.ts';
import {
  asCuda,
  CudaAbsorbedKv,
  CudaMatrix,
  dtypeCode,
  elementBytes,
  f32Tensor,
  inputTensor,
  outputTensor,
} from '../handles.ts';
import type { CudaExperts, DtypeCode, ExpertTable } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { TensorMaps, weightBoxRows } from '../runtime/tensor-maps.ts';
import type { MappedTensor } from '../runtime/tensor-maps.ts';
import { unscaled } from './gemm-inputs.ts';
import type { GemmInputs, Input, Output, Weight } from './gemm-inputs.ts';
import { fewTileRows, manyTileRows, planGemm, plainTileRows } from './gemm-plan.ts';
import type { CudaRowOps } from './row-ops.ts';

/** Rows of a plain GEMM, of all its tiles together, up to which the kernel for few of them runs. */
const fewRows = 64;

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

interface GemmOptions {
  readonly rows: number;
  readonly batching?: Batching;
  readonly grouping?: Grouping;
}

const alone: Batching = { count: 1, x: 0, w: 0, out: 0 };

export class CudaGemm implements GemmOps {
  /** Brings rows into the form that a GEMM reads. */
  readonly inputs: GemmInputs;
  readonly #context: OpContext;
  readonly #rowOps: CudaRowOps;
  readonly #maps: TensorMaps;

  constructor(context: OpContext, rowOps: CudaRowOps, inputs: GemmInputs) {
    this.#context = context;
    this.#rowOps = rowOps;
    this.inputs = inputs;
    this.#maps = new TensorMaps(context.device.driver);
  }

  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#linear({ out, x, weight, rows, exact: false });
  }

  /** There are no other ranks. */
  linearOfParts(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.linear(out, x, weight, rows);
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.#linear({ out, x, weight, rows, exact: true });
  }

  #linear(call: { out: Tensor; x: Tensor; weight: Matrix; rows: number; exact: boolean }): void {
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
    const input = this.inputs.prepare(plain, weight, { rows, exact });
    this.multiply(input, weight, out, { rows });
  }

  /** True if the GEMM runs on tensor cores: pieces of 16 bytes must be whole. */
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

  /** The tensor map of the experts' weights, or null if tensor cores can't read them. */
  mapExperts(matrices: readonly CudaMatrix[]): ExpertTable['map'] {
    const fits = matrices.every((matrix) => this.#isMappable(matrix));
    return fits ? this.#maps.ofAll(matrices.map((matrix) => weightMap(matrix, 1))) : null;
  }

  #isMappable({ dtype, inputs }: { dtype: DtypeCode; inputs: number }): boolean {
    const narrow = dtype !== dtypeCode.F32;
    return this.#context.useTensorCores && narrow && (inputs * elementBytes[dtype]) % 16 === 0;
  }

  multiply(x: Input, weight: Weight, out: Output, options: GemmOptions): void {
    const { device } = this.#context;
    const { rows, batching = alone, grouping } = options;
    const op = this.#opOf(out, options);
    const { kernels } = this.#context;
    if (this.#multiplyByLibrary(x, weight, out, options)) {
      kernels.note(op, { kernel: 'cuBLASLt', unit: 'tensor cores' });
      return;
    }
    if (!this.#onTensorCores(x, weight, batching)) {
      const shape = `${weight.inputs} to ${weight.outputs}`;
      kernels.note(op, { kernel: 'gemm_f32', unit: 'plain', shape });
      this.#multiplyPlainly(x, weight, out, options);
      return;
    }
    const { outputs, inputs } = weight;
    const plan = planGemm(
      {
        fp8: x.format === dtypeCode.F8_E4M3,
        rows,
        outputs,
        inputs,
        batches: batching.count,
        grouped: grouping ?? null,
      },
      device.smCount,
    );
    const xMap = this.#maps.of(rowsMap(x, inputs, batching), plan.boxRows);
    const wMap =
      grouping?.map?.map ?? this.#maps.of(weightMap(weight, batching.count), weightBoxRows);
    const { program, name, defines } = plan.kernel;
    kernels.note(op, { kernel: name, unit: 'tensor cores' });
    device.launch(device.kernel(program, name, defines), plan, {
      ...argsOf(x, weight, out, { ...options, rowTiles: plan.rowTiles }),
      x_map: xMap,
      w_map: wMap,
    });
  }

  /** The op by which the kernel of a product is told. */
  #opOf(out: Output, { batching = alone, grouping }: GemmOptions): string {
    if (grouping !== undefined) return 'experts';
    if (batching.count > 1) return 'kv_b of each head';
    const isExact = out.format === dtypeCode.F32 && this.#context.activation !== dtypeCode.F32;
    return isExact ? 'layers in float32' : 'linear layers';
  }

  /** Multiplies without tensor cores. */
  #multiplyPlainly(x: Input, weight: Weight, out: Output, options: GemmOptions): void {
    const { device, defines } = this.#context;
    const { rows, batching = alone, grouping } = options;
    const rowTiles = grouping?.tilesMax ?? Math.ceil(rows / plainTileRows);
    const args = argsOf(x, weight, out, { ...options, rowTiles });
    const isFew = rows <= fewRows && x.format !== dtypeCode.F8_E4M3;
    const kernel = isFew
      ? device.kernel('gemmFewF32', 'gemm_few_f32', defines)
      : device.kernel('gemmF32', 'gemm_f32', defines);
    const columns = Math.ceil(weight.outputs / (isFew ? 8 : 64));
    device.launch(kernel, { grid: [columns, rowTiles, batching.count], threads: 256 }, args);
  }

  /** Queues the product for cuBLASLt, if it is to be used and has it. */
  #multiplyByLibrary(x: Input, weight: Weight, out: Output, options: GemmOptions): boolean {
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
    const rope = ropeDimOf(q, heads, nope);
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

function argsOf(
  x: Input,
  weight: Weight,
  out: Output,
  options: GemmOptions & { readonly rowTiles: number },
) {
  const { rows, batching = alone, grouping, rowTiles } = options;
  return {
    x: x.at,
    x_stride: x.stride,
    x_scales: x.scales,
    x_scale_stride: x.scaleStride,
    w: weight.at,
    w_scales: weight.scales,
    w_dtype: weight.dtype,
    outputs: weight.outputs,
    inputs: weight.inputs,
    out: out.at,
    out_stride: out.stride,
    rows,
    out_dtype: out.format,
    x_batch: batching.x,
    w_batch: batching.w,
    out_batch: batching.out,
    w_table: grouping?.weights ?? null,
    scale_table: weight.scaled ? (grouping?.scales ?? null) : null,
    tiles: grouping?.tiles ?? null,
    starts: grouping?.starts ?? null,
    tile_rows: grouping?.tileRows ?? 0,
    row_tiles: rowTiles,
    batches: batching.count,
    w_base: grouping?.map?.base ?? null,
  };
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

function perHead(at: number, dtype: DtypeCode, shape: { outputs: number; inputs: number }): Weight {
  return { at, dtype, ...shape, scales: 0, scaled: false };
}

function pick({ at, dtype, outputs, inputs, scales }: CudaMatrix): Omit<Weight, 'scaled'> {
  return { at, dtype, outputs, inputs, scales };
}
