/** The handles of the CPU backend: addresses in its arena behind the contract's types. */
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

export class CpuTensor implements Tensor {
  readonly rows: number;
  readonly columns: number;
  /** Address of the first element, f32. */
  readonly at: number;
  /** Bytes from a row to the next. */
  readonly stride: number;

  constructor(place: { rows: number; columns: number; at: number; stride: number }) {
    this.rows = place.rows;
    this.columns = place.columns;
    this.at = place.at;
    this.stride = place.stride;
  }
}

export class CpuMatrix implements Matrix {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
  /** Address of its MatrixView (kernels/gemm.ts). */
  readonly view: number;
  /** True if it is fp8 with a scale per 128 x 128 block. */
  readonly scaled: boolean;

  constructor(
    source: { name: string; outputs: number; inputs: number },
    place: { view: number; scaled: boolean },
  ) {
    this.name = source.name;
    this.outputs = source.outputs;
    this.inputs = source.inputs;
    this.view = place.view;
    this.scaled = place.scaled;
  }
}

export class CpuVector extends PlacedVector {}
export class CpuSelection extends PlacedSelection {}
export class CpuRouting extends PlacedRouting {}

export class CpuAbsorbedKv implements AbsorbedKv {
  readonly name: string;
  readonly heads: number;
  /** Per head: outputs latent, inputs nope. */
  readonly toLatent: readonly CpuMatrix[];
  /** Per head: outputs value, inputs latent. */
  readonly fromLatent: readonly CpuMatrix[];

  constructor(name: string, toLatent: readonly CpuMatrix[], fromLatent: readonly CpuMatrix[]) {
    this.name = name;
    this.heads = toLatent.length;
    this.toLatent = toLatent;
    this.fromLatent = fromLatent;
  }
}

export interface CpuExpertMatrices {
  readonly gate: CpuMatrix;
  readonly up: CpuMatrix;
  readonly down: CpuMatrix;
}

export class CpuExperts implements Experts {
  readonly count: number;
  readonly matrices: readonly CpuExpertMatrices[];
  readonly hidden: number;
  readonly inner: number;

  constructor(matrices: readonly CpuExpertMatrices[], shape: { hidden: number; inner: number }) {
    this.count = matrices.length;
    this.matrices = matrices;
    this.hidden = shape.hidden;
    this.inner = shape.inner;
  }
}

export class CpuLayerCache extends PlacedCache {
  /** Address of its CacheView (kernels/caches.ts). */
  readonly view: number;

  constructor(layer: number, shape: CacheShape, place: CachePlace & { view: number }) {
    super(layer, shape, place);
    this.view = place.view;
  }
}

/** Narrows a handle of the contract to what this backend made of it. */
export function asCpu<T>(kind: abstract new (...args: never[]) => T, handle: unknown): T {
  assert(handle instanceof kind, `a ${kind.name} was expected, made by this backend`);
  return handle;
}

/** A tensor of this backend with at least `rows` rows and exactly `columns` columns. */
export function checkedTensor(handle: Tensor, rows: number, columns: number): CpuTensor {
  const tensor = asCpu(CpuTensor, handle);
  checkTensor(tensor, rows, columns);
  return tensor;
}

/** A vector of this backend of exactly `length` elements. */
export function checkedVector(handle: Vector, length: number): CpuVector {
  const vector = asCpu(CpuVector, handle);
  checkVector(vector, length);
  return vector;
}
