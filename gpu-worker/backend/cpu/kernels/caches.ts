// The paged caches: how entries are written and read back (docs/engine-spec.md#caches).
//
// Latent entries lie one after the other, slot by slot. f32: [latent | rope] padded to a multiple
// of 4 floats. bf16: the same in 2 bytes each, not padded. fp8: latent in e4m3, then a float scale
// per 128 of it, then the rope part in bf16; 656 bytes for 512 + 64. Index keys. f32: [slot][dim].
// fp8: per page of 64 slots first [64][dim] e4m3, then 64 float scales.

import { dtypeBf16, dtypeE4m3, dtypeF32 } from './op-codes';
import { encodeE4m3, groupScale, loadE4m3, maxMagnitude, roundBf16, loadOneE4m3 } from './numbers';

const scaleGroup: u32 = 128;

@unmanaged
export class CacheView {
  /** The layer's latent entries, and the bytes of one. */
  latents: usize;
  entryBytes: usize;
  /** dtypeF32, dtypeBf16 or dtypeE4m3 */
  latentFormat: u32;
  latentDim: u32;
  ropeDim: u32;
  keys: usize;
  /** Bytes of one page of index keys. */
  pageBytes: usize;
  keyFormat: u32;
  indexDim: u32;
}

@unmanaged
class WriteArguments {
  rows: u32;
  rowsPerTask: u32;
  cache: usize;
  x: usize;
  xStride: usize;
  /** [rows] i32 */
  slots: usize;
}

function writeBf16(out: usize, x: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const bits = i32x4.extract_lane(roundBf16(v128.load_splat<f32>(x)), 0);
    store<u16>(out, <u16>(<u32>bits >> 16));
    out += 2;
    x += 4;
  }
}

/** x[0, count) / scale as e4m3 codes; returns the scale, which in caches is a power of two. */
function writeGroup(out: usize, x: usize, count: u32): f32 {
  const scale = groupScale(maxMagnitude(x, count), true);
  const divisor = f32x4.splat(scale);
  for (let i: u32 = 0; i < count; i++) {
    const code = encodeE4m3(f32x4.div(v128.load_splat<f32>(x), divisor));
    store<u8>(out + i, <u8>i32x4.extract_lane(code, 0));
    x += 4;
  }
  return scale;
}

export function writeLatent(at: usize, task: u32): void {
  const job = changetype<WriteArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const latentDim = cache.latentDim, ropeDim = cache.ropeDim;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const x = job.x + r * job.xStride;
    const entry = cache.latents + load<u32>(job.slots + (r << 2)) * cache.entryBytes;
    if (cache.latentFormat == dtypeF32) {
      // The padding takes part in the scores' sums, so it must be zero.
      memory.fill(entry, 0, cache.entryBytes);
      memory.copy(entry, x, (latentDim + ropeDim) << 2);
    } else if (cache.latentFormat == dtypeBf16) {
      writeBf16(entry, x, latentDim + ropeDim);
    } else {
      let scaleAt = entry + latentDim;
      for (let start: u32 = 0; start < latentDim; start += scaleGroup) {
        const count = min(scaleGroup, latentDim - start);
        const scale = writeGroup(entry + start, x + (start << 2), count);
        store<f32>(scaleAt, scale);
        scaleAt += 4;
      }
      writeBf16(scaleAt, x + (latentDim << 2), ropeDim);
    }
  }
}

function readBf16(out: usize, from: usize, count: u32): void {
  let i: u32 = 0;
  for (; i + 4 <= count; i += 4) {
    v128.store(out, i32x4.shl(v128.load_ext<u16>(from), 16));
    out += 16;
    from += 8;
  }
  for (; i < count; i++) {
    store<u32>(out, (<u32>load<u16>(from)) << 16);
    out += 4;
    from += 2;
  }
}

/** [latent | rope] of one entry as floats; `out` is padded with zeros to a multiple of 4. */
export function readLatent(cache: CacheView, slot: u32, out: usize): void {
  const latentDim = cache.latentDim, width = latentDim + cache.ropeDim;
  const entry = cache.latents + slot * cache.entryBytes;
  for (let i = width; i < ((width + 3) & ~3); i++) store<f32>(out + (i << 2), 0);
  if (cache.latentFormat == dtypeF32) {
    memory.copy(out, entry, width << 2);
    return;
  }
  if (cache.latentFormat == dtypeBf16) {
    readBf16(out, entry, width);
    return;
  }
  const scales = entry + latentDim;
  for (let start: u32 = 0; start < latentDim; start += scaleGroup) {
    const end = min(start + scaleGroup, latentDim);
    const scale = v128.load_splat<f32>(scales + ((start / scaleGroup) << 2));
    let i = start;
    for (; i + 4 <= end; i += 4) {
      v128.store(out + (i << 2), f32x4.mul(loadE4m3(entry + i), scale));
    }
    for (; i < end; i++) {
      const value = f32x4.mul(loadOneE4m3(entry + i), scale);
      v128.store_lane<f32>(out + (i << 2), value, 0);
    }
  }
  const groups = (latentDim + scaleGroup - 1) / scaleGroup;
  readBf16(out + (latentDim << 2), scales + (groups << 2), cache.ropeDim);
}

export function writeIndexKeys(at: usize, task: u32): void {
  const job = changetype<WriteArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const dim = cache.indexDim;
  const end = min(job.rows, (task + 1) * job.rowsPerTask);
  for (let r = task * job.rowsPerTask; r < end; r++) {
    const x = job.x + r * job.xStride;
    const slot = load<u32>(job.slots + (r << 2));
    const page = cache.keys + (slot >> 6) * cache.pageBytes;
    if (cache.keyFormat == dtypeE4m3) {
      const scale = writeGroup(page + (slot & 63) * dim, x, dim);
      store<f32>(page + (dim << 6) + ((slot & 63) << 2), scale);
    } else {
      memory.copy(page + (slot & 63) * (dim << 2), x, dim << 2);
    }
  }
}
