/** The paged caches: their sizes, their places, and the ops that write them (kernels/caches.ts). */
import assert from 'node:assert/strict';
import {
  blockTokens,
  type CacheShape,
  type LayerCache,
  type Numerics,
  type Tensor,
} from '../backend.ts';
import { scaleGroup } from './codecs.ts';
import { CpuLayerCache, asCpu, checkedTensor } from './handles.ts';
import {
  cacheBytes,
  dtypeBf16,
  dtypeE4m3,
  dtypeF32,
  opWriteIndexKeys,
  opWriteLatent,
} from './kernels/op-codes.ts';
import type { OpContext } from './op-context.ts';

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

export function makeCaches(context: OpContext, shape: CacheShape): readonly CpuLayerCache[] {
  const { arena, numerics } = context;
  assert(
    shape.layers > 0 && shape.blocks > 0 && shape.latentDim > 0,
    'caches need layers, blocks and a latent',
  );
  const entry = entryBytes(shape, numerics);
  const page = pageBytes(shape, numerics);
  const latentFormat = { f32: dtypeF32, bf16: dtypeBf16, fp8: dtypeE4m3 }[numerics.latentCache];
  const keyFormat = numerics.indexKeys === 'fp8' ? dtypeE4m3 : dtypeF32;
  return Array.from({ length: shape.layers }, (_, layer) => {
    const what = `the caches of layer ${layer} (${shape.blocks} blocks)`;
    const latents = arena.allocate(shape.blocks * blockTokens * entry, 'cache', what);
    const keys = arena.allocate(shape.blocks * page, 'cache', what);
    const view = arena.allocate(cacheBytes, 'cache', what);
    const { latentDim, ropeDim, indexDim } = shape;
    arena.u32.set([latents, entry, latentFormat, latentDim, ropeDim], view / 4);
    arena.u32.set([keys, page, keyFormat, indexDim], view / 4 + 5);
    const place = { view, latents, entryBytes: entry, keys, pageBytes: page };
    return new CpuLayerCache(layer, shape, place);
  });
}

export function writeLatent(context: OpContext, cache: LayerCache, entries: Tensor): void {
  const { shape, view } = asCpu(CpuLayerCache, cache);
  write(context, entries, { op: opWriteLatent, view, columns: shape.latentDim + shape.ropeDim });
}

export function writeIndexKeys(context: OpContext, cache: LayerCache, keys: Tensor): void {
  const { shape, view } = asCpu(CpuLayerCache, cache);
  assert(shape.indexDim > 0, 'the caches were made without index keys');
  write(context, keys, { op: opWriteIndexKeys, view, columns: shape.indexDim });
}

function write(
  context: OpContext,
  from: Tensor,
  to: { op: number; view: number; columns: number },
): void {
  const { pool, step } = context;
  const { rows } = step;
  const x = checkedTensor(from, rows, to.columns);
  const { rowsPerTask, tasks } = pool.share(rows, to.columns * 2);
  pool.run({
    op: to.op,
    tasks,
    work: rows * to.columns * 2,
    arguments: [rows, rowsPerTask, to.view, x.at, x.stride, step.slots],
  });
}
