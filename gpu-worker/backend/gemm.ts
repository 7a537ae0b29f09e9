/** Matrix products: rows of activations times weights. */
import type { AbsorbedKv, Matrix, Tensor } from './shapes.ts';

export interface GemmOps {
  /** out[r] = weight x[r]; in fp8 numerics the input of an fp8 weight is quantised first. */
  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void;
  /**
   * `linear` of rows whose columns lie over the ranks that share the heads, each of which has an
   * equal part of the weight: every rank gives its columns of x, and has the whole of out.
   */
  linearOfParts(out: Tensor, x: Tensor, weight: Matrix, rows: number): void;
  /**
   * Does as `linear` does, in float32 throughout, into an `f32` tensor: gate, index weights, LM
   * head.
   */
  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void;
  /**
   * out[h] = [q_nope[h] W_k[h] | q_rope[h]]; q [rows, heads * (nope + rope)], out [rows, heads *
   * (latent + rope)]
   */
  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void;
  /** out[h] = W_v[h] latent[h]; latent [rows, heads * latent], out [rows, heads * value] */
  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void;
}
