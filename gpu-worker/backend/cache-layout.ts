/** The bytes that the paged caches take: the same on every backend. */
import { strict as assert } from 'node:assert';
import { blockTokens } from './batch.ts';
import { scaleGroup } from './numerics.ts';
import type { Numerics } from './numerics.ts';
import type { CacheShape } from './shapes.ts';

type LayerShape = Pick<CacheShape, 'latentDim' | 'ropeDim' | 'indexDim'>;

/** Bytes of one latent entry: 656 for 512 + 64 in fp8. */
export function entryBytes(shape: LayerShape, numerics: Numerics): number {
  const { latentDim, ropeDim } = shape;
  switch (numerics.latentCache) {
    case 'f32':
      return Math.ceil((latentDim + ropeDim) / 4) * 16;
    case 'bf16':
      return (latentDim + ropeDim) * 2;
    case 'fp8':
      return latentDim + Math.ceil(latentDim / scaleGroup) * 4 + ropeDim * 2;
  }
}

/** Bytes of one page of index keys: 64 * 132 for dim 128 in fp8, none without an indexer. */
export function pageBytes(shape: LayerShape, numerics: Numerics): number {
  if (shape.indexDim === 0) return 0;
  return blockTokens * (numerics.indexKeys === 'fp8' ? shape.indexDim + 4 : shape.indexDim * 4);
}

/** The shape of one layer's caches: without index keys where the layer has none. */
export function layerShape<T extends Omit<CacheShape, 'blocks'>>(shape: T, layer: number): T {
  return shape.keylessLayers?.has(layer) ? { ...shape, indexDim: 0 } : shape;
}

/** Bytes of one block of 64 tokens in the caches of all layers. */
export function blockBytes(shape: Omit<CacheShape, 'blocks'>, numerics: Numerics): number {
  const keyedLayers = shape.layers - (shape.keylessLayers?.size ?? 0);
  const entries = shape.layers * blockTokens * entryBytes(shape, numerics);
  return entries + keyedLayers * pageBytes(shape, numerics);
}

export function checkCacheShape(shape: CacheShape): void {
  assert(
    shape.layers > 0 && shape.blocks > 0 && shape.latentDim > 0,
    'caches need layers, blocks and a latent',
  );
}
