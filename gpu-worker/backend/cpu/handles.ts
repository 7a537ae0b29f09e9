/** What the CPU backend hands out: addresses in its arena behind the contract's types. */
import assert from 'node:assert/strict';
import {
  type AbsorbedKv,
  type CacheShape,
  type Experts,
  type LayerCache,
  type Matrix,
  type Routing,
  type Selection,
  type Tensor,
  type Vector,
} from '../backend.ts';

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
  /** Whether it is fp8 with a scale per 128 x 128 block. */
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

export class CpuVector implements Vector {
  readonly name: string;
  readonly length: number;
  readonly at: number;

  constructor(name: string, length: number, at: number) {
    this.name = name;
    this.length = length;
    this.at = at;
  }
}

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

export class CpuSelection implements Selection {
  readonly rows: number;
  readonly width: number;
  /** [rows][width] i32 positions, ascending. */
  readonly at: number;
  /** [rows] i32 how many of them there are. */
  readonly counts: number;

  constructor(shape: { rows: number; width: number }, place: { at: number; counts: number }) {
    this.rows = shape.rows;
    this.width = shape.width;
    this.at = place.at;
    this.counts = place.counts;
  }
}

export class CpuRouting implements Routing {
  readonly rows: number;
  readonly perToken: number;
  /** [rows][perToken] i32 */
  readonly experts: number;
  /** [rows][perToken] f32 */
  readonly weights: number;

  constructor(
    shape: { rows: number; perToken: number },
    place: { experts: number; weights: number },
  ) {
    this.rows = shape.rows;
    this.perToken = shape.perToken;
    this.experts = place.experts;
    this.weights = place.weights;
  }
}

export class CpuLayerCache implements LayerCache {
  readonly layer: number;
  readonly shape: CacheShape;
  /** Address of its CacheView (kernels/caches.ts). */
  readonly view: number;
  /** Latent entries [blocks * 64], and bytes of one. */
  readonly latents: number;
  readonly entryBytes: number;
  /** Pages of index keys [blocks], and bytes of one. */
  readonly keys: number;
  readonly pageBytes: number;

  constructor(
    layer: number,
    shape: CacheShape,
    place: { view: number; latents: number; entryBytes: number; keys: number; pageBytes: number },
  ) {
    this.layer = layer;
    this.shape = shape;
    this.view = place.view;
    this.latents = place.latents;
    this.entryBytes = place.entryBytes;
    this.keys = place.keys;
    this.pageBytes = place.pageBytes;
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
  assert(rows <= tensor.rows, `${rows} rows do not fit a tensor of ${tensor.rows}`);
  assert(
    columns === tensor.columns,
    `a tensor has ${tensor.columns} columns where ${columns} are needed`,
  );
  return tensor;
}

/** A vector of this backend of exactly `length` elements. */
export function checkedVector(handle: Vector, length: number): CpuVector {
  const vector = asCpu(CpuVector, handle);
  assert(
    vector.length === length,
    `${vector.name} has ${vector.length} elements where ${length} are needed`,
  );
  return vector;
}
