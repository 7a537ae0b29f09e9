/** Weights as a checkpoint holds them, and as a backend keeps them. */
import type { AbsorbedKv, HeadShape, Matrix, Vector } from './shapes.ts';

export type WeightDtype = 'F32' | 'BF16' | 'F8_E4M3';

/**
 * One tensor as the checkpoint holds it, little-endian, row-major; `bytes` may be reused by the
 * next.
 */
export interface HostTensor {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
  /** Only with F8_E4M3: [ceil(outputs / 128), ceil(inputs / 128)] multipliers, row-major. */
  readonly scales: Float32Array | null;
}

export interface WeightOps {
  /** Copies and keeps the weight in its checkpoint dtype; shape [outputs, inputs]. */
  matrix(source: HostTensor): Matrix;
  /** `values` are float32 whatever the checkpoint's dtype was. */
  vector(name: string, values: Float32Array): Vector;
  /** Splits kv_b_proj [heads * (nope + value), latent] into its two absorbed halves. */
  absorb(source: HostTensor, shape: Omit<HeadShape, 'latentDim' | 'ropeDim'>): AbsorbedKv;
  /**
   * kv_b_proj [heads * (nope + value), latent] whole, with what `attendExpanded` needs of memory.
   */
  wholeKv(source: HostTensor, shape: HeadShape): Matrix;
}
