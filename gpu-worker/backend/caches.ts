/** The paged caches, and the ops that write them. */
import type { RopeLayout } from './row-ops.ts';
import type { CacheShape, LayerCache, Tensor, Vector } from './shapes.ts';

/** RMSNorm of the latent part of entries on their way into a cache. */
export interface LatentNorm {
  readonly weight: Vector;
  readonly epsilon: number;
}

/** LayerNorm of index keys on their way into a cache. */
export interface KeyNorm {
  readonly weight: Vector;
  readonly bias: Vector;
  readonly epsilon: number;
}

export interface KeyRotation {
  readonly layout: RopeLayout;
  readonly transform: boolean;
}

export interface CacheOps {
  /** Bytes that one block of 64 tokens takes in the caches of all layers. */
  blockBytes(shape: Omit<CacheShape, 'blocks'>): number;
  /** Makes the caches of all layers; at start, behind everything else. */
  make(shape: CacheShape): readonly LayerCache[];
  /**
   * Stores latent | rope key ([rows, latentDim + ropeDim], normed and rotated) at the batch's
   * slots.
   */
  writeLatent(cache: LayerCache, entries: Tensor): void;
  /** Stores index keys ([rows, indexDim], normed, rotated and transformed) at the batch's slots. */
  writeIndexKeys(cache: LayerCache, keys: Tensor): void;
  /**
   * `writeLatent` of what `rmsNorm` makes of the latent part and `rotate` (interleaved) of the rope
   * part, rounded alike. `entries` is left with no meaning.
   */
  storeLatent(cache: LayerCache, entries: Tensor, norm: LatentNorm): void;
  /**
   * `writeIndexKeys` of what `layerNorm` and `rotate` (from the first column on) make of the keys,
   * rounded alike. `keys` is left with no meaning.
   */
  storeIndexKeys(cache: LayerCache, keys: Tensor, norm: KeyNorm, rotation: KeyRotation): void;
}
