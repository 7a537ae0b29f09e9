/** Ops that are others in a row, for a backend that gains nothing from doing them at once. */
import type { Backend } from './backend.ts';
import type { KeyNorm, KeyRotation, LatentNorm } from './caches.ts';
import type { LayerCache, Tensor } from './shapes.ts';

/** The groups of which the ops are made. */
type Parts = Pick<Backend, 'memory' | 'rows'> & {
  readonly caches: Pick<Backend['caches'], 'writeLatent' | 'writeIndexKeys'>;
};

/** `storeLatent` by `rmsNorm`, `rotate` and `writeLatent`, for `rows` rows. */
export function storeLatent(
  { memory, rows: rowOps, caches }: Parts,
  cache: LayerCache,
  entries: Tensor,
  norm: LatentNorm & { rows: number },
): void {
  const { weight, epsilon, rows } = norm;
  const latent = memory.columns(entries, 0, weight.length);
  const rope = memory.columns(entries, weight.length, entries.columns - weight.length);
  rowOps.rmsNorm(latent, latent, weight, { rows, epsilon });
  rowOps.rotate(rope, { rows, heads: 1, start: 0, layout: 'interleaved' });
  caches.writeLatent(cache, entries);
}

/** `storeIndexKeys` by `layerNorm`, `rotate` and `writeIndexKeys`, for `rows` rows. */
export function storeIndexKeys(
  { rows: rowOps, caches }: Parts,
  cache: LayerCache,
  keys: Tensor,
  call: { norm: KeyNorm; rotation: KeyRotation; rows: number },
): void {
  const { norm, rotation, rows } = call;
  rowOps.layerNorm(keys, keys, norm, { rows, epsilon: norm.epsilon });
  rowOps.rotate(keys, { rows, heads: 1, start: 0, ...rotation });
  caches.writeIndexKeys(cache, keys);
}
