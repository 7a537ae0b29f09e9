/** The formats that a backend keeps, and the places where it rounds. */

/** Elements of a row that share one scale where activations are quantised. */
export const scaleGroup = 128;

/** Formats and roundings of a backend; `model/mla-moe/numerics.ts` holds the presets. */
export interface Numerics {
  /**
   * Rounding of every activation that an op writes: none, or to bfloat16
   * (docs/engine-spec.md#number-formats).
   */
  readonly activations: 'f32' | 'bf16';
  /**
   * True if a linear op with an fp8 weight quantises its input in groups of 128
   * (docs/engine-spec.md#linear-layers).
   */
  readonly quantizedLinear: boolean;
  /**
   * Latent cache entries: float32, bfloat16, or e4m3 with a scale per 128 and a bfloat16 rope part.
   */
  readonly latentCache: 'f32' | 'bf16' | 'fp8';
  /** Index keys: float32, or e4m3 with one scale per key. Queries are rounded the same way. */
  readonly indexKeys: 'f32' | 'fp8';
  /**
   * True if index queries and keys go through the Hadamard transform first
   * (docs/engine-spec.md#indexer).
   */
  readonly hadamard: boolean;
  /**
   * Scales of a linear op's quantised input: the exact quotient, or rounded up to a power of two.
   * Cache entries, index keys and index queries have powers of two always
   * (docs/engine-spec.md#number-formats).
   */
  readonly scaleFormat: 'f32' | 'ue8m0';
}
