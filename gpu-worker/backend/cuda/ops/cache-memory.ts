/** The paged caches: their sizes, their places, and the ops that write them (caches.cu). */
import assert from 'node:assert/strict';
import {
  blockTokens,
  type CacheShape,
  type LayerCache,
  type Numerics,
  type RopeLayout,
  type Tensor,
} from '../../backend.ts';
import { CudaLayerCache, type CudaVector, dtypeCode, asCuda, inputTensor } from '../handles.ts';
import { real } from '../runtime/launch-queue.ts';
import type { OpContext } from '../op-context.ts';
import { perLane, type RopePlace, ropeSlots } from './row-ops.ts';

const scaleGroup = 128;

type LayerShape = Omit<CacheShape, 'blocks' | 'layers'>;

/** Bytes of one latent entry: 656 for 512 + 64 in fp8. */
function entryBytes(shape: LayerShape, numerics: Numerics): number {
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

/** Bytes of one page of index keys: 64 * 132 for dim 128 in fp8. */
function pageBytes(shape: LayerShape, numerics: Numerics): number {
  if (shape.indexDim === 0) return 0;
  return blockTokens * (numerics.indexKeys === 'fp8' ? shape.indexDim + 4 : shape.indexDim * 4);
}

export function blockBytes(shape: Omit<CacheShape, 'blocks'>, numerics: Numerics): number {
  return shape.layers * (blockTokens * entryBytes(shape, numerics) + pageBytes(shape, numerics));
}

export function makeCaches(context: OpContext, shape: CacheShape): readonly CudaLayerCache[] {
  const { device, numerics } = context;
  assert(
    shape.layers > 0 && shape.blocks > 0 && shape.latentDim > 0,
    'caches need layers, blocks and a latent',
  );
  const entry = entryBytes(shape, numerics);
  const page = pageBytes(shape, numerics);
  const latentFormat = {
    f32: dtypeCode.F32,
    bf16: dtypeCode.BF16,
    fp8: dtypeCode.F8_E4M3,
  }[numerics.latentCache];
  const keyFormat = numerics.indexKeys === 'fp8' ? dtypeCode.F8_E4M3 : dtypeCode.F32;
  const latentBytes = roundUp(shape.blocks * blockTokens * entry);
  const layerBytes = latentBytes + roundUp(shape.blocks * page);
  // One piece, since the driver rounds each of them up.
  const what = `the caches of ${shape.layers} layers (${shape.blocks} blocks)`;
  const start = device.allocate(shape.layers * layerBytes, 'cache', what);
  // Nothing that was left in this memory may be taken for a number, not even while warming up.
  device.fill(start, shape.layers * layerBytes, 0);
  return Array.from({ length: shape.layers }, (_, layer) => {
    const latents = start + layer * layerBytes;
    const keys = latents + latentBytes;
    return new CudaLayerCache(layer, shape, {
      latents,
      entryBytes: entry,
      latentFormat,
      keys,
      pageBytes: page,
      keyFormat,
    });
  });
}

/** What is done to entries on the way: see write_latent. */
export interface LatentNorm {
  readonly weight: CudaVector;
  readonly epsilon: number;
  readonly rope: RopePlace;
}

/** What is done to keys on the way: see write_index_keys. */
export interface KeyNorm {
  readonly weight: CudaVector;
  readonly bias: CudaVector;
  readonly epsilon: number;
  readonly rope: RopePlace;
  readonly layout: RopeLayout;
  readonly transform: boolean;
}

export function writeLatent(
  context: OpContext,
  cache: LayerCache,
  entries: Tensor,
  norm: LatentNorm | null,
): void {
  const { device, step, defines } = context;
  const { shape, latents, entryBytes: bytes, latentFormat } = asCuda(CudaLayerCache, cache);
  const { latentDim, ropeDim } = shape;
  const x = inputTensor(entries, step.rows, latentDim + ropeDim);
  assert(
    norm === null || (norm.weight.length === latentDim && norm.rope.half * 2 === ropeDim),
    'the norm or the rope table does not fit the entries',
  );
  const sharedBytes = (latentDim + ropeDim) * 4;
  const launch = { grid: [step.rows, 1, 1], threads: 128, sharedBytes } as const;
  device.launch(device.kernel('caches', 'write_latent', { ...defines, kPerLane: 1 }), launch, [
    [latents, bytes, latentFormat, latentDim, ropeDim, x.at, x.stride, step.slots],
    [norm?.weight.at ?? 0, real(norm?.epsilon ?? 0)],
    [norm?.rope.cos ?? 0, norm?.rope.sin ?? 0, step.positions],
  ]);
}

export function writeIndexKeys(
  context: OpContext,
  cache: LayerCache,
  keys: Tensor,
  norm: KeyNorm | null,
): void {
  const { device, step, defines } = context;
  const { shape, keys: at, pageBytes: bytes, keyFormat } = asCuda(CudaLayerCache, cache);
  const { indexDim: dim } = shape;
  assert(dim > 0, 'the caches were made without index keys');
  const x = inputTensor(keys, step.rows, dim);
  assert(
    norm === null || (norm.weight.length === dim && norm.bias.length === dim),
    'the norm does not fit the index keys',
  );
  const rowsPerBlock = 4;
  const launch = {
    grid: [Math.ceil(step.rows / rowsPerBlock), 1, 1],
    threads: rowsPerBlock * 32,
    sharedBytes: rowsPerBlock * dim * 4,
  } as const;
  const kernel = device.kernel('caches', 'write_index_keys', {
    ...defines,
    kPerLane: perLane(dim),
  });
  device.launch(kernel, launch, [
    [at, bytes, keyFormat, dim, x.at, x.stride, step.slots, step.rows],
    [norm?.weight.at ?? 0, norm?.bias.at ?? 0, real(norm?.epsilon ?? 0)],
    ropeSlots(norm, 0, step.positions),
    [norm?.transform === true ? 1 : 0, real(1 / Math.sqrt(dim))],
  ]);
}

/** Pieces of a cache start where vectors of any width may. */
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}
