import { blockTokens } from '../../../../gpu-worker/backend/batch.ts';
import type {
  CacheOps,
  KeyNorm,
  KeyRotation,
  LatentNorm,
} from '../../../../gpu-worker/backend/caches.ts';
import { decodeE4m3, quantizeGroup, roundBf16 } from '../../../../gpu-worker/backend/cpu/codecs.ts';
import { layerShape } from '../../../../gpu-worker/backend/cache-layout.ts';
import { storeIndexKeys, storeLatent } from '../../../../gpu-worker/backend/fused-ops.ts';
import { scaleGroup } from '../../../../gpu-worker/backend/numerics.ts';
import type { CacheShape, LayerCache, Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import { asPlain, PlainCache, PlainTensor } from './handles.ts';
import { indexVector } from './indexer.ts';
import type { PlainMemory } from './memory.ts';
import type { PlainRowOps } from './row-ops.ts';

export class PlainCaches implements CacheOps {
  readonly #context: PlainContext;
  readonly #parts: { memory: PlainMemory; rows: PlainRowOps; caches: PlainCaches };

  constructor(context: PlainContext, memory: PlainMemory, rows: PlainRowOps) {
    this.#context = context;
    this.#parts = { memory, rows, caches: this };
  }

  blockBytes(shape: Omit<CacheShape, 'blocks'>): number {
    const { latentDim, ropeDim, indexDim } = shape;
    const groups = Math.ceil(latentDim / scaleGroup);
    const latent = {
      f32: Math.ceil((latentDim + ropeDim) / 4) * 16,
      bf16: (latentDim + ropeDim) * 2,
      fp8: latentDim + groups * 4 + ropeDim * 2,
    }[this.#context.numerics.latentCache];
    const keyBytes = this.#context.numerics.indexKeys === 'fp8' ? indexDim + 4 : indexDim * 4;
    const keyed = indexDim === 0 ? 0 : shape.layers - (shape.keylessLayers?.size ?? 0);
    return blockTokens * (shape.layers * latent + keyed * keyBytes);
  }

  make(shape: CacheShape): readonly LayerCache[] {
    return Array.from(
      { length: shape.layers },
      (_, layer) => new PlainCache(layer, layerShape(shape, layer)),
    );
  }

  writeLatent(cache: LayerCache, entries: Tensor): void {
    const into = asPlain(PlainCache, cache);
    const { latentDim } = into.shape;
    for (const [r, slot] of this.#context.batch.slots.entries()) {
      const source = asPlain(PlainTensor, entries).row(r);
      const entry = into.latent(slot);
      if (this.#context.numerics.latentCache === 'f32') {
        entry.set(source);
        continue;
      }
      source.forEach((value, c) => (entry[c] = roundBf16(value)));
      if (this.#context.numerics.latentCache === 'bf16') continue;
      const codes = new Uint8Array(latentDim);
      for (let start = 0; start < latentDim; start += scaleGroup) {
        const end = Math.min(start + scaleGroup, latentDim);
        const scale = quantizeGroup(source, codes, { start, end }, 'ue8m0');
        for (let i = start; i < end; i++) entry[i] = decodeE4m3(codes[i] ?? 0) * scale;
      }
    }
  }

  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    const into = asPlain(PlainCache, cache);
    for (const [r, slot] of this.#context.batch.slots.entries()) {
      const { values, scale } = indexVector(
        this.#context.numerics,
        asPlain(PlainTensor, keys).row(r),
      );
      into.key(slot).set(values);
      into.keyScales[slot] = scale;
    }
  }

  storeLatent(cache: LayerCache, entries: Tensor, norm: LatentNorm): void {
    const rows = this.#context.batch.slots.length;
    storeLatent(this.#parts, cache, entries, { ...norm, rows });
  }

  storeIndexKeys(cache: LayerCache, keys: Tensor, norm: KeyNorm, rotation: KeyRotation): void {
    const rows = this.#context.batch.slots.length;
    storeIndexKeys(this.#parts, cache, keys, { norm, rotation, rows });
  }
}
