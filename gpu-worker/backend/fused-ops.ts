/** Ops that are others in a row, for a backend that gains nothing from doing them at once. */
import type { Backend, LayerCache, RopeLayout, Tensor, Vector } from './backend.ts';

/** `storeLatent` by `rmsNorm`, `rotate` and `writeLatent`, for `rows` rows. */
export function storeLatent(
  backend: Backend,
  cache: LayerCache,
  entries: Tensor,
  norm: { weight: Vector; epsilon: number; rows: number },
): void {
  const { weight, epsilon, rows } = norm;
  const latent = backend.columns(entries, 0, weight.length);
  const rope = backend.columns(entries, weight.length, entries.columns - weight.length);
  backend.rmsNorm(latent, latent, weight, { rows, epsilon });
  backend.rotate(rope, { rows, heads: 1, start: 0, layout: 'interleaved' });
  backend.writeLatent(cache, entries);
}

/** `storeIndexKeys` by `layerNorm`, `rotate` and `writeIndexKeys`, for `rows` rows. */
export function storeIndexKeys(
  backend: Backend,
  cache: LayerCache,
  keys: Tensor,
  norm: { weight: Vector; bias: Vector; epsilon: number; rows: number },
  rotation: { layout: RopeLayout; transform: boolean },
): void {
  const { rows, epsilon } = norm;
  backend.layerNorm(keys, keys, norm, { rows, epsilon });
  backend.rotate(keys, { rows, heads: 1, start: 0, ...rotation });
  backend.writeIndexKeys(cache, keys);
}
