/** Rows in the form that a GEMM reads: activations as they lie, gathered, or quantised to e4m3. */
import { scaleGroup } from '../../numerics.ts';
import { dtypeCode } from '../handles.ts';
import type { CudaTensor, DtypeCode, Quantized } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { Scratch } from '../runtime/device.ts';
import { manyTileRows } from './gemm-plan.ts';
import type { CudaRowOps, RowPlace } from './row-ops.ts';

/** Rows of activations, or with `rowIndices` those rows of them. */
export interface Rows {
  readonly at: number;
  /** Rows that lie there, if more than the GEMM has. */
  readonly rows?: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  readonly columns: number;
  /** [rows] i32, or 0. */
  readonly rowIndices: number;
  /** The tensor that they are, if its quantised form may be used, and its rows in use. */
  readonly tensor?: { readonly of: CudaTensor; readonly rows: number };
}

/** Rows in the form that a GEMM reads. */
export interface Input {
  readonly format: DtypeCode;
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  /** Rows that lie at `at`, those behind the GEMM's own included. */
  readonly rows: number;
  /** [ceil(columns / 128), scaleStride] f32, or 0. */
  readonly scales: number;
  readonly scaleStride: number;
}

/** The place of a GEMM's result: activations, or float32. */
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

export class GemmInputs {
  readonly #context: OpContext;
  readonly #rowOps: CudaRowOps;
  readonly #inputs: Scratch;
  readonly #scales: Scratch;
  #quantizes = false;

  constructor(context: OpContext, rowOps: CudaRowOps) {
    this.#context = context;
    this.#rowOps = rowOps;
    this.#inputs = new Scratch(context.device, 'inputs of GEMMs');
    this.#scales = new Scratch(context.device, 'scales of the inputs of GEMMs');
  }

  /** From here on tensors have a quantised form: a weight of so many inputs wants it. */
  quantizeFor(inputs: number): void {
    this.#quantizes = true;
    this.reserve(this.#context.step.rowsMax, inputs);
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

  /** Scratch for rows in quantised form, until the next GEMM's input. */
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

  /** Addresses of so many bytes of inputs and of scales, until the next GEMM's input. */
  borrow(bytes: number, scaleBytesWanted: number): { at: number; scales: number } {
    return { at: this.#inputs.at(bytes), scales: this.#scales.at(scaleBytesWanted) };
  }

  /**
   * The rows as the GEMM with this weight reads them: e4m3 where the numerics quantise, else the
   * activations as they lie, or their copy where rows are gathered.
   */
  prepare(x: Rows, weight: Weight, options: { rows: number; exact: boolean }): Input {
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

  /** silu(gate) * up as the GEMM with this weight reads it; `gate` may be overwritten. */
  prepareActivated(gate: Output, up: RowPlace, weight: Weight, rows: number): Input {
    const columns = weight.inputs;
    if (this.#quantizesFor(weight)) {
      const quantized = this.#quantizedScratch(rows, columns);
      this.#rowOps.silu({ out: null, quantized }, gate, up, { rows, columns });
      return quantizedInput(quantized);
    }
    this.#rowOps.silu({ out: gate, quantized: null }, gate, up, { rows, columns });
    return unscaled({ ...gate, rows });
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

/** Elements from a row to the next, so that every row begins at a multiple of 16 bytes. */
export function padded(columns: number): number {
  return Math.ceil(columns / 8) * 8;
}
