/** The handles of the plain twin: values in plain arrays. */
import { strict as assert } from 'node:assert';
import { blockTokens } from '../../../../gpu-worker/backend/batch.ts';
import { decodeBf16, decodeE4m3 } from '../../../../gpu-worker/backend/cpu/codecs.ts';
import { scaleGroup } from '../../../../gpu-worker/backend/numerics.ts';
import type {
  AbsorbedKv,
  CacheShape,
  ExpertMatrices,
  Experts,
  LayerCache,
  Matrix,
  Routing,
  Selection,
  Tensor,
  Vector,
} from '../../../../gpu-worker/backend/shapes.ts';
import type { HostTensor } from '../../../../gpu-worker/backend/weights.ts';

export class PlainTensor implements Tensor {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
  readonly start: number;
  readonly stride: number;
  constructor(rows: number, columns: number, values: Float32Array, start: number, stride: number) {
    this.rows = rows;
    this.columns = columns;
    this.values = values;
    this.start = start;
    this.stride = stride;
  }
  get(row: number, column: number): number {
    return this.values[this.start + row * this.stride + column] ?? Number.NaN;
  }
  row(row: number): Float32Array {
    const from = this.start + row * this.stride;
    return this.values.subarray(from, from + this.columns);
  }
}

export class PlainMatrix implements Matrix {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
  /** Decoded weights without their block scales, and the scales. */
  readonly values: Float32Array;
  readonly scales: Float32Array | null;
  constructor(source: HostTensor) {
    this.name = source.name;
    [this.outputs = 0, this.inputs = 0] = source.shape;
    this.scales = source.scales === null ? null : source.scales.slice();
    const view = new DataView(
      source.bytes.buffer,
      source.bytes.byteOffset,
      source.bytes.byteLength,
    );
    this.values = Float32Array.from({ length: this.outputs * this.inputs }, (_, i) => {
      if (source.dtype === 'F32') return view.getFloat32(i * 4, true);
      if (source.dtype === 'BF16') return decodeBf16(view.getUint16(i * 2, true));
      return decodeE4m3(view.getUint8(i));
    });
  }
  scale(output: number, group: number): number {
    const groups = Math.ceil(this.inputs / scaleGroup);
    return this.scales?.[Math.floor(output / scaleGroup) * groups + group] ?? 1;
  }
  raw(output: number, input: number): number {
    return this.values[output * this.inputs + input] ?? Number.NaN;
  }
  get(output: number, input: number): number {
    return Math.fround(
      this.raw(output, input) * this.scale(output, Math.floor(input / scaleGroup)),
    );
  }
}

export class PlainVector implements Vector {
  readonly name: string;
  readonly length: number;
  readonly values: Float32Array;
  constructor(name: string, values: Float32Array) {
    this.name = name;
    this.length = values.length;
    this.values = values;
  }
}

export class PlainAbsorbedKv implements AbsorbedKv {
  readonly name: string;
  readonly heads: number;
  readonly nopeDim: number;
  readonly valueDim: number;
  readonly matrix: PlainMatrix;
  constructor(name: string, heads: number, nopeDim: number, valueDim: number, matrix: PlainMatrix) {
    this.name = name;
    this.heads = heads;
    this.nopeDim = nopeDim;
    this.valueDim = valueDim;
    this.matrix = matrix;
  }
}

export class PlainExperts implements Experts {
  readonly count: number;
  readonly matrices: readonly ExpertMatrices[];
  constructor(matrices: readonly ExpertMatrices[]) {
    this.matrices = matrices;
    this.count = matrices.length;
  }
}

export class PlainSelection implements Selection {
  chosen: Int32Array[] = [];
  readonly rows: number;
  readonly width: number;
  constructor(rows: number, width: number) {
    this.rows = rows;
    this.width = width;
  }
}

export class PlainRouting implements Routing {
  readonly experts: Int32Array;
  readonly weights: Float32Array;
  readonly rows: number;
  readonly perToken: number;
  constructor(rows: number, perToken: number) {
    this.rows = rows;
    this.perToken = perToken;
    this.experts = new Int32Array(rows * perToken);
    this.weights = new Float32Array(rows * perToken);
  }
}

export class PlainCache implements LayerCache {
  /** The values that a reader sees of each slot, after the format's rounding. */
  readonly latents: Float32Array;
  readonly keys: Float32Array;
  readonly keyScales: Float32Array;
  readonly layer: number;
  readonly shape: CacheShape;
  constructor(layer: number, shape: CacheShape) {
    this.layer = layer;
    this.shape = shape;
    const slots = shape.blocks * blockTokens;
    this.latents = new Float32Array(slots * (shape.latentDim + shape.ropeDim));
    this.keys = new Float32Array(slots * shape.indexDim);
    this.keyScales = new Float32Array(slots);
  }
  latent(slot: number): Float32Array {
    const width = this.shape.latentDim + this.shape.ropeDim;
    return this.latents.subarray(slot * width, (slot + 1) * width);
  }
  key(slot: number): Float32Array {
    return this.keys.subarray(slot * this.shape.indexDim, (slot + 1) * this.shape.indexDim);
  }
}

/** Narrows what the caller passes back to what this backend made. */
export function asPlain<T>(kind: abstract new (...args: never[]) => T, value: unknown): T {
  assert(value instanceof kind, `the ${kind.name} was not made by this backend`);
  return value;
}

export function valuesOf(vector: Vector): Float32Array {
  return asPlain(PlainVector, vector).values;
}
