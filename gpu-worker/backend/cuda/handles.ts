/** The handles of the CUDA backend: device addresses behind the contract's types. */
import { strict as assert } from 'node:assert';
import { checkTensor, checkVector } from '../checks.ts';
import { PlacedCache, PlacedRouting, PlacedSelection, PlacedVector } from '../shapes.ts';
import type {
  AbsorbedKv,
  CachePlace,
  CacheShape,
  Experts,
  Matrix,
  Tensor,
  Vector,
} from '../shapes.ts';

/** Dtypes as the kernels number them (kernels/prelude.cuh). */
export const dtypeCode = { F32: 0, BF16: 1, F8_E4M3: 2 } as const;
export type DtypeCode = (typeof dtypeCode)[keyof typeof dtypeCode];
/** Bytes of an element, by the code of its dtype. */
export const elementBytes = [4, 2, 1] as const;

/** Rows as fp8 products read them: e4m3 codes, and a scale per row and 128 columns. */
export interface Quantized {
  readonly codes: number;
  /** Rows that there is memory for. */
  readonly rows: number;
  /** Codes from a row to the next: the columns and zeros up to a multiple of 128. */
  readonly codeStride: number;
  readonly scales: number;
  /** Floats from a row's scale to the next row's, and from a group's to the next group's. */
  readonly scaleRow: number;
  readonly scaleGroup: number;
}

/** Counts the ops that wrote some memory; a tensor and its views share one. */
export interface Writes {
  count: number;
}

export class CudaTensor implements Tensor {
  readonly rows: number;
  readonly columns: number;
  /** Address of the first element. */
  readonly at: number;
  /** Elements from a row to the next. */
  readonly stride: number;
  readonly precision: 'activation' | 'f32';
  readonly format: DtypeCode;
  readonly writes: Writes;
  /** Memory for the rows in quantised form; what it holds counts while `isQuantized`. */
  readonly quantized: Quantized | null;
  #quantizedAt = { step: -1, writes: -1, rows: 0 };

  constructor(place: {
    rows: number;
    columns: number;
    at: number;
    stride: number;
    precision: 'activation' | 'f32';
    format: DtypeCode;
    writes: Writes;
    quantized: Quantized | null;
  }) {
    this.rows = place.rows;
    this.columns = place.columns;
    this.at = place.at;
    this.stride = place.stride;
    this.precision = place.precision;
    this.format = place.format;
    this.writes = place.writes;
    this.quantized = place.quantized;
  }

  /**
   * True if `quantized` holds the first `rows` rows as they are: quantised in this step, and not
   * written since. Nothing is known of an earlier step, because a step that is replayed writes
   * tensors without a call of its ops (step-graphs.ts).
   */
  isQuantized(rows: number, step: number): boolean {
    const at = this.#quantizedAt;
    const holds = this.quantized !== null && at.step === step && at.writes === this.writes.count;
    return holds && rows <= at.rows;
  }

  /** The op just queued has put the first `rows` rows, as they are now, into `quantized`. */
  markQuantized(rows: number, step: number): void {
    this.#quantizedAt = { step, writes: this.writes.count, rows };
  }
}

export class CudaMatrix implements Matrix {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
  /** [outputs, inputs] in `dtype`, as in the checkpoint. */
  readonly at: number;
  readonly dtype: DtypeCode;
  /** [ceil(outputs / 128), ceil(inputs / 128)] f32, or 0. */
  readonly scales: number;

  constructor(
    shape: { name: string; outputs: number; inputs: number },
    place: { at: number; dtype: DtypeCode; scales: number },
  ) {
    this.name = shape.name;
    this.outputs = shape.outputs;
    this.inputs = shape.inputs;
    this.at = place.at;
    this.dtype = place.dtype;
    this.scales = place.scales;
  }
}

export class CudaVector extends PlacedVector {}
export class CudaSelection extends PlacedSelection {}
export class CudaRouting extends PlacedRouting {}

export interface AbsorbedShape {
  readonly heads: number;
  readonly nope: number;
  readonly value: number;
  readonly latent: number;
}

export class CudaAbsorbedKv implements AbsorbedKv {
  readonly name: string;
  readonly heads: number;
  readonly shape: AbsorbedShape;
  readonly dtype: DtypeCode;
  /** [heads, latent, nope] */
  readonly toLatent: number;
  /** [heads, value, latent] */
  readonly fromLatent: number;

  constructor(
    name: string,
    shape: AbsorbedShape,
    place: { dtype: DtypeCode; toLatent: number; fromLatent: number },
  ) {
    this.name = name;
    this.heads = shape.heads;
    this.shape = shape;
    this.dtype = place.dtype;
    this.toLatent = place.toLatent;
    this.fromLatent = place.fromLatent;
  }
}

/** One of an expert's three matrices, for all experts. */
export interface ExpertTable {
  /** [experts] u64 addresses of weights and of scales, the latter 0 without. */
  readonly weights: number;
  readonly scales: number;
  /**
   * The tensor map of all their weights and where it begins; null if tensor cores cannot read them.
   */
  readonly map: { readonly map: Uint32Array; readonly base: number } | null;
  readonly dtype: DtypeCode;
  readonly outputs: number;
  readonly inputs: number;
}

export class CudaExperts implements Experts {
  readonly count: number;
  readonly gate: ExpertTable;
  readonly up: ExpertTable;
  readonly down: ExpertTable;

  constructor(count: number, tables: { gate: ExpertTable; up: ExpertTable; down: ExpertTable }) {
    this.count = count;
    this.gate = tables.gate;
    this.up = tables.up;
    this.down = tables.down;
  }
}

export class CudaLayerCache extends PlacedCache {
  readonly latentFormat: DtypeCode;
  readonly keyFormat: DtypeCode;

  constructor(
    layer: number,
    shape: CacheShape,
    place: CachePlace & { latentFormat: DtypeCode; keyFormat: DtypeCode },
  ) {
    super(layer, shape, place);
    this.latentFormat = place.latentFormat;
    this.keyFormat = place.keyFormat;
  }
}

/** Narrows a handle of the contract to what this backend made of it. */
export function asCuda<T>(kind: abstract new (...args: never[]) => T, handle: unknown): T {
  assert(handle instanceof kind, `a ${kind.name} was expected, made by this backend`);
  return handle;
}

/** Activations of this backend with at least `rows` rows and exactly `columns` columns. */
export function inputTensor(handle: Tensor, rows: number, columns: number): CudaTensor {
  return tensorOf(handle, { rows, columns, precision: 'activation' });
}

/** The same for an op that writes the tensor: its quantised form is no longer that of its rows. */
export function outputTensor(handle: Tensor, rows: number, columns: number): CudaTensor {
  const tensor = inputTensor(handle, rows, columns);
  tensor.writes.count++;
  return tensor;
}

/** A tensor that was made for float32, with at least `rows` rows and exactly `columns` columns. */
export function f32Tensor(handle: Tensor, rows: number, columns: number): CudaTensor {
  return tensorOf(handle, { rows, columns, precision: 'f32' });
}

function tensorOf(
  handle: Tensor,
  needed: { rows: number; columns: number; precision: 'activation' | 'f32' },
): CudaTensor {
  const tensor = asCuda(CudaTensor, handle);
  const { rows, columns, precision } = needed;
  checkTensor(tensor, rows, columns);
  assert(
    precision === tensor.precision,
    `a tensor of precision ${tensor.precision} is given where ${precision} is needed`,
  );
  return tensor;
}

/** A vector of this backend of exactly `length` elements. */
export function checkedVector(handle: Vector, length: number): CudaVector {
  const vector = asCuda(CudaVector, handle);
  checkVector(vector, length);
  return vector;
}
