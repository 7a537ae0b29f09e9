/** The paged caches: their places, and the ops that write them (caches.cu). */
import { strict as assert } from 'node:assert';
import { blockTokens } from '../../batch.ts';
import {
  blockBytes,
  checkCacheShape,
  entryBytes,
  layerShape,
  pageBytes,
} from '../../cache-layout.ts';
import type { CacheOps, KeyNorm, KeyRotation, LatentNorm } from '../../caches.ts';
import { checkIndexKeys } from '../../checks.ts';
import type { CacheShape, LayerCache, Tensor } from '../../shapes.ts';
import { asCuda, checkedVector, CudaLayerCache, dtypeCode, inputTensor } from '../handles.ts';
import type { OpContext } from '../op-context.ts';
import { perLane, ropeArgs } from './head-rows.ts';
import type { CudaRowOps } from './row-ops.ts';

export class CudaCaches implements CacheOps {
  readonly #context: OpContext;
  readonly #rowOps: CudaRowOps;

  constructor(context: OpContext, rowOps: CudaRowOps) {
    this.#context = context;
    this.#rowOps = rowOps;
  }

  blockBytes(shape: Omit<CacheShape, 'blocks'>): number {
    return blockBytes(shape, this.#context.numerics);
  }

  make(shape: CacheShape): readonly CudaLayerCache[] {
    checkCacheShape(shape);
    const { device, numerics, step } = this.#context;
    const entry = entryBytes(shape, numerics);
    const latentFormat = {
      f32: dtypeCode.F32,
      bf16: dtypeCode.BF16,
      fp8: dtypeCode.F8_E4M3,
    }[numerics.latentCache];
    const keyFormat = numerics.indexKeys === 'fp8' ? dtypeCode.F8_E4M3 : dtypeCode.F32;
    const latentBytes = roundUp(shape.blocks * blockTokens * entry);
    const shapes = Array.from({ length: shape.layers }, (_, layer) => layerShape(shape, layer));
    const keyBytesOf = (one: CacheShape) => roundUp(shape.blocks * pageBytes(one, numerics));
    const bytes = shapes.reduce((sum, one) => sum + latentBytes + keyBytesOf(one), 0);
    // One piece, since the driver rounds each of them up.
    const what = `the caches of ${shape.layers} layers (${shape.blocks} blocks)`;
    const start = device.allocate(bytes, 'cache', what);
    // Nothing that was left in this memory may be taken for a number, not even while warming up.
    device.fill(start, bytes, 0);
    step.useCaches(shape);
    let latents = start;
    return shapes.map((one, layer) => {
      const keys = latents + latentBytes;
      const place = { latents, entryBytes: entry, keys, pageBytes: pageBytes(one, numerics) };
      latents = keys + keyBytesOf(one);
      return new CudaLayerCache(layer, one, { ...place, latentFormat, keyFormat });
    });
  }

  writeLatent(cache: LayerCache, entries: Tensor): void {
    this.#writeLatent(cache, entries, null);
  }

  storeLatent(cache: LayerCache, entries: Tensor, norm: LatentNorm): void {
    this.#writeLatent(cache, entries, norm);
  }

  /** Norms and rotates the entries on their way if there is a norm (write_latent). */
  #writeLatent(cache: LayerCache, entries: Tensor, norm: LatentNorm | null): void {
    const { device, step, defines } = this.#context;
    const { shape, latents, entryBytes: bytes, latentFormat } = asCuda(CudaLayerCache, cache);
    const { latentDim, ropeDim } = shape;
    const x = inputTensor(entries, step.rows, latentDim + ropeDim);
    const rope = norm === null ? null : this.#rowOps.rope(step.rows);
    assert(rope === null || rope.half * 2 === ropeDim, 'the rope table does not fit the entries');
    const weight = norm === null ? null : checkedVector(norm.weight, latentDim).at;
    const sharedBytes = (latentDim + ropeDim) * 4;
    const launch = { grid: [step.rows, 1, 1], threads: 128, sharedBytes } as const;
    device.launch(device.kernel('caches', 'write_latent', { ...defines, kPerLane: 1 }), launch, {
      cache: latents,
      entry_bytes: bytes,
      format: latentFormat,
      latent: latentDim,
      rope: ropeDim,
      x: x.at,
      x_stride: x.stride,
      slots: step.slots,
      norm_weight: weight,
      epsilon: norm?.epsilon ?? 0,
      cos: rope?.cos ?? null,
      sin: rope?.sin ?? null,
      positions: step.positions,
    });
  }

  writeIndexKeys(cache: LayerCache, keys: Tensor): void {
    this.#writeIndexKeys(cache, keys, null);
  }

  storeIndexKeys(cache: LayerCache, keys: Tensor, norm: KeyNorm, rotation: KeyRotation): void {
    this.#writeIndexKeys(cache, keys, { ...norm, ...rotation });
  }

  /** Norms, rotates and transforms the keys on their way if there is a norm (write_index_keys). */
  #writeIndexKeys(cache: LayerCache, keys: Tensor, norm: (KeyNorm & KeyRotation) | null): void {
    const { device, step, defines } = this.#context;
    const { shape, keys: at, pageBytes: bytes, keyFormat } = asCuda(CudaLayerCache, cache);
    const { indexDim: dim } = shape;
    checkIndexKeys(shape);
    const x = inputTensor(keys, step.rows, dim);
    const rope = norm === null ? null : this.#rowOps.rope(step.rows);
    const rotation = norm === null || rope === null ? null : { rope, layout: norm.layout };
    const weight = norm === null ? null : checkedVector(norm.weight, dim).at;
    const bias = norm === null ? null : checkedVector(norm.bias, dim).at;
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
    device.launch(kernel, launch, {
      cache: at,
      page_bytes: bytes,
      format: keyFormat,
      dim,
      x: x.at,
      x_stride: x.stride,
      slots: step.slots,
      rows: step.rows,
      norm_weight: weight,
      norm_bias: bias,
      epsilon: norm?.epsilon ?? 0,
      rope: ropeArgs(rotation, 0, step.positions),
      transformed: norm?.transform === true,
      scale: 1 / Math.sqrt(dim),
    });
  }
}

/** Pieces of a cache start where vectors of any width may. */
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 256) * 256;
}
