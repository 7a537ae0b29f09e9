/** Ops that treat every row on its own. */
import type { Matrix, Tensor, Vector } from './shapes.ts';

export interface RopeTable {
  /** [positions, dim / 2] */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
  /** Width of the rotated part. */
  readonly dim: number;
}

/** `interleaved` rotates the pairs (2i, 2i + 1); `half` the pairs (i, i + dim / 2). */
export type RopeLayout = 'interleaved' | 'half';

export interface RotateOptions {
  readonly rows: number;
  readonly heads: number;
  readonly start: number;
  readonly layout: RopeLayout;
  readonly transform?: boolean;
}

export interface NormOptions {
  readonly rows: number;
  readonly epsilon: number;
}

export interface RowOps {
  /** Takes the table that `rotate` reads; at start. */
  ropeTable(table: RopeTable): void;
  /**
   * out[r] = table[tokens[r] - firstToken]; with a `firstToken` the table is a part of a larger
   * one, and rows of tokens that it does not have become 0.
   */
  embed(out: Tensor, table: Matrix, firstToken?: number): void;
  /** out[r] = x[r] * rsqrt(mean(x[r]^2) + epsilon) * weight. `out` may be `x`. */
  rmsNorm(out: Tensor, x: Tensor, weight: Vector, options: NormOptions): void;
  /** residual += x; out = rmsNorm(residual), the norm taken before the residual is rounded. */
  addRmsNorm(out: Tensor, residual: Tensor, x: Tensor, weight: Vector, options: NormOptions): void;
  /** LayerNorm with weight and bias, biased variance. `out` may be `x`. */
  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: NormOptions,
  ): void;
  /** residual += x, rounded. */
  add(residual: Tensor, x: Tensor, rows: number): void;
  /**
   * Rotates columns [start, start + rope dim) of each of `heads` equal parts of x, in place; with
   * `transform`, then does what `hadamard` does.
   */
  rotate(x: Tensor, options: RotateOptions): void;
  /**
   * Walsh-Hadamard transform / sqrt(dim) of each of `heads` equal parts, in place, in Sylvester
   * order.
   */
  hadamard(x: Tensor, options: { rows: number; heads: number }): void;
  /** out = silu(gate) * up. `out` may be `gate`. */
  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void;
  /** out[i] = x[rowIndices[i]] */
  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void;
}
