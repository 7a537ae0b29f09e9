/** The paged caches: their places, and the ops that write them (kernels/caches.ts). */
import { blockTokens } from '../batch.ts';
import { blockBytes, checkCacheShape, entryBytes, layerShape, pageBytes } from '../cache-layout.ts';
import type { CacheOps, KeyNorm, KeyRotation, LatentNorm } from '../caches.ts';
import { checkIndexKeys } from '../checks.ts';
import { storeIndexKeys, storeLatent } from '../fused-ops.ts';
import type { CacheShape, LayerCache, Tensor } from '../shapes.ts';
import { asCpu, checkedTensor, CpuLayerCache } from './handles.ts';
import {
  cacheBytes,
  dtypeBf16,
  dtypeE4m3,
  dtypeF32,
  opWriteIndexKeys,
  opWriteLatent,
} from './kernels/op-codes.ts';
import type { CpuMemory } from './memory.ts';
import type { OpContext } from './op-context.ts';
import type { CpuRowOps } from './row-ops.ts';

export class CpuCaches implements CacheOps {
  readonly #context: OpContext;
  readonly #parts: { memory: CpuMemory; rows: CpuRowOps; caches: CpuCaches };

  constructor(context: OpContext, memory: CpuMemory, rows: CpuRowOps) {
    this.#context = context;
    this.#parts = { memory, rows, caches: this };
  }

  blockBytes(shape: Omit<CacheShape, 'blocks'>): number {
    return blockBytes(shape, this.#context.numerics);
  }

  make(shape: CacheShape): readonly CpuLayerCache[] {
    checkCacheShape(shape);
    const caches = Array.from({ length: shape.layers }, (_, layer) =>
      this.#layer(layerShape(shape, layer), layer),
    );
    this.#context.step.useCaches(shape);
    return caches;
  }

  #layer(shape: CacheShape, layer: number): CpuLayerCache {
    const { arena, numerics } = this.#context;
    const entry = entryBytes(shape, numerics);
    const page = pageBytes(shape, numerics);
    const latentFormat = { f32: dtypeF32, bf16: dtypeBf16, fp8: dtypeE4m3 }[numerics.latentCache];
    const keyFormat = numerics.indexKeys === 'fp8' ? dtypeE4m3 : dtypeF32;
    const what = `the caches of layer ${layer} (${shape.blocks} blocks)`;
    const latents = arena.allocate(shape.blocks * blockTokens * entry, 'cache', what);
    const keys = arena.allocate(shape.blocks * page, 'cache', what);
    const view = arena.allocate(cacheBytes, 'cache', what);
    const { latentDim, ropeDim, indexDim } = shape;
    arena.u32.set([latents, entry, latentFormat, latentDim, ropeDim], view / 4);
    arena.u32.set([keys, page, keyFormat, indexDim], view / 4 + 5);
    const place = { view, latents, entryBytes: entry, keys, pageBytes: page };
    return new CpuLayerCache(layer, shape, place);
  }

  writeLatent(cache: LayerCache, entries: Tensor): void {
    const { shape, view } = asCpu(CpuLayerCache, cache);
    const columns = shape.latentDim + shape.ropeDim;
    this.#write(entries, { op: opWriteLatent, view, columns });
  }

  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    const { shape, view } = asCpu(CpuLayerCache, cache);
    checkIndexKeys(shape);
    this.#write(keys, { op: opWriteIndexKeys, view, columns: shape.indexDim });
  }

  storeLatent(cache: LayerCache, entries: Tensor, norm: LatentNorm): void {
    storeLatent(this.#parts, cache, entries, { ...norm, rows: this.#context.step.rows });
  }

  storeIndexKeys(cache: LayerCache, keys: Tensor, norm: KeyNorm, rotation: KeyRotation): void {
    const { rows } = this.#context.step;
    storeIndexKeys(this.#parts, cache, keys, { norm, rotation, rows });
  }

  #write(from: Tensor, to: { op: number; view: number; columns: number }): void {
    const { pool, step } = this.#context;
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
}
