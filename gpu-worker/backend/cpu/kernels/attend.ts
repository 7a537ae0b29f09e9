// Absorbed attention of one row: all heads share the cached entries, whose latent part is also the
// value. A task is one row and some of its heads, eight at a time.
//
// Keys come in blocks of 256 in ascending order; the running maximum and sum of online softmax join
// the blocks. Scores keep heads in lanes: [head panel][key][8], which the values' pass reads as is.
//
// 8 heads, 64 + 16 wide, to 256 keys on one core of an EPYC (Zen 4), per row: 25.2 us (23.4
// GFLOP/s), with exp's constants loaded 23.1 us (25.5); fp8 entries, decoded per row, 28.1 us
// (21.0).

import { CacheView, readLatent } from './caches';
import { dtypeF32, keyBlock } from './op-codes';
import { exp, mulAdd, rounded } from './numbers';
import { tile4, tileRows } from './tiles';

@unmanaged
class AttendArguments {
  /** Parts that the heads of each row are split into; task = row * parts + part. */
  parts: u32;
  cache: usize;
  q: usize;
  qStride: usize;
  out: usize;
  outStride: usize;
  /** [rows][heads] running maximum and sum, for the log-sum-exp; 0 without. */
  maxima: usize;
  sums: usize;
  heads: u32;
  /** [rows] i32 */
  positions: usize;
  /** [rows] address of the row's block table. */
  blockTables: usize;
  /** [rows][width] i32 and [rows] i32, or 0 to attend to all. */
  selected: usize;
  width: u32;
  counts: usize;
  scale: f32;
  round: u32;
}

/** Queries of eight heads as [entry floats][8]; heads and floats that there are not are zero. */
function packQueries(q: usize, heads: u32, width: u32, padded: u32, out: usize): void {
  memory.fill(out, 0, padded << 5);
  for (let h: u32 = 0; h < min<u32>(heads, 8); h++) {
    let from = q + h * (width << 2), into = out + (h << 2);
    for (let i: u32 = 0; i < width; i++) {
      store<f32>(into, load<f32>(from));
      from += 4;
      into += 32;
    }
  }
}

/**
 * Addresses of the entries of keys [start, start + count) of the row's list; decoded if need be.
 */
function gather(
  job: AttendArguments,
  r: u32,
  start: u32,
  count: u32,
  padded: u32,
  pointers: usize,
  decoded: usize,
): void {
  const cache = changetype<CacheView>(job.cache);
  const table = load<usize>(job.blockTables + (r << 2));
  const list = job.selected == 0 ? 0 : job.selected + ((r * job.width + start) << 2);
  for (let i: u32 = 0; i < count; i++) {
    const position = list == 0 ? start + i : load<u32>(list + (i << 2));
    const slot = (load<u32>(table + ((position >> 6) << 2)) << 6) + (position & 63);
    if (cache.latentFormat == dtypeF32) {
      store<usize>(pointers + (i << 2), cache.latents + slot * cache.entryBytes);
    } else {
      readLatent(cache, slot, decoded);
      store<usize>(pointers + (i << 2), decoded);
      decoded += padded << 2;
    }
  }
}

/** scores[key][8] = q . entry for one head panel. */
function scorePanel(pointers: usize, count: u32, q: usize, padded: u32, scores: usize): void {
  let i: u32 = 0;
  for (; i + 4 <= count; i += 4) {
    const at = pointers + (i << 2);
    tile4(
      load<usize>(at),
      load<usize>(at, 4),
      load<usize>(at, 8),
      load<usize>(at, 12),
      q,
      32,
      padded,
      scores + (i << 5),
      true,
    );
  }
  for (; i < count; i++) {
    tileRows(1, load<usize>(pointers + (i << 2)), 0, q, 32, padded, scores + (i << 5), true);
  }
}

/**
 * Scores of 4 heads to exp(scale * score - maximum). `state` holds the heads' running maximum, sum
 * and the factor by which earlier results shrink: three vectors.
 */
function softmax(scores: usize, count: u32, scale: v128, state: usize): void {
  const before = v128.load(state);
  let maximum = before;
  const end = scores + (count << 5);
  for (let at = scores; at != end; at += 32) {
    const score = f32x4.mul(v128.load(at), scale);
    v128.store(at, score);
    maximum = f32x4.max(maximum, score);
  }
  const shrink = exp(f32x4.sub(before, maximum));
  let sum = f32x4.mul(v128.load(state, 16), shrink);
  for (let at = scores; at != end; at += 32) {
    const p = exp(f32x4.sub(v128.load(at), maximum));
    v128.store(at, p);
    sum = f32x4.add(sum, p);
  }
  v128.store(state, maximum);
  v128.store(state, sum, 16);
  v128.store(state, shrink, 32);
}

/** out[head][8 columns] = shrink * out + sum over keys of p[key][head] * entry[key][8 columns]. */
function valueTile(
  p: usize,
  pointers: usize,
  count: u32,
  column: usize,
  out: usize,
  outStride: usize,
  shrink: usize,
  fresh: bool,
): void {
  const out1 = out + outStride, out2 = out1 + outStride, out3 = out2 + outStride;
  let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0);
  let a2 = f32x4.splat(0), b2 = f32x4.splat(0), a3 = f32x4.splat(0), b3 = f32x4.splat(0);
  if (!fresh) {
    let factor = v128.load_splat<f32>(shrink);
    a0 = f32x4.mul(v128.load(out), factor);
    b0 = f32x4.mul(v128.load(out, 16), factor);
    factor = v128.load_splat<f32>(shrink, 4);
    a1 = f32x4.mul(v128.load(out1), factor);
    b1 = f32x4.mul(v128.load(out1, 16), factor);
    factor = v128.load_splat<f32>(shrink, 8);
    a2 = f32x4.mul(v128.load(out2), factor);
    b2 = f32x4.mul(v128.load(out2, 16), factor);
    factor = v128.load_splat<f32>(shrink, 12);
    a3 = f32x4.mul(v128.load(out3), factor);
    b3 = f32x4.mul(v128.load(out3, 16), factor);
  }
  const end = pointers + (count << 2);
  while (pointers != end) {
    const entry = load<usize>(pointers) + column;
    const v0 = v128.load(entry), v1 = v128.load(entry, 16);
    let x = v128.load_splat<f32>(p);
    a0 = mulAdd(a0, x, v0);
    b0 = mulAdd(b0, x, v1);
    x = v128.load_splat<f32>(p, 4);
    a1 = mulAdd(a1, x, v0);
    b1 = mulAdd(b1, x, v1);
    x = v128.load_splat<f32>(p, 8);
    a2 = mulAdd(a2, x, v0);
    b2 = mulAdd(b2, x, v1);
    x = v128.load_splat<f32>(p, 12);
    a3 = mulAdd(a3, x, v0);
    b3 = mulAdd(b3, x, v1);
    pointers += 4;
    p += 32;
  }
  v128.store(out, a0);
  v128.store(out, b0, 16);
  v128.store(out1, a1);
  v128.store(out1, b1, 16);
  v128.store(out2, a2);
  v128.store(out2, b2, 16);
  v128.store(out3, a3);
  v128.store(out3, b3, 16);
}

/** out = accumulated / sum for the first `columns` columns. */
function writeHead(from: usize, sum: f32, columns: u32, out: usize, round: bool): void {
  const factor = f32x4.splat(<f32>1 / sum);
  let i: u32 = 0;
  for (; i + 4 <= columns; i += 4) {
    v128.store(out + (i << 2), rounded(f32x4.mul(v128.load(from + (i << 2)), factor), round));
  }
  for (; i < columns; i++) {
    const value = f32x4.mul(v128.load_splat<f32>(from + (i << 2)), factor);
    v128.store_lane<f32>(out + (i << 2), rounded(value, round), 0);
  }
}

export function attend(at: usize, task: u32, scratch: usize): void {
  const job = changetype<AttendArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const r = task / job.parts;
  const width = cache.latentDim + cache.ropeDim, padded = (width + 3) & ~3;
  const latentDim = cache.latentDim, columns = (latentDim + 7) & ~7;

  const panelsAll = (job.heads + 7) >> 3;
  const perPart = (panelsAll + job.parts - 1) / job.parts;
  const firstPanel = (task % job.parts) * perPart;
  if (firstPanel >= panelsAll) return;
  const panels = min(perPart, panelsAll - firstPanel);
  const firstHead = firstPanel << 3, heads = min(panels << 3, job.heads - firstHead);

  const panelFloats: usize = padded << 5;
  const queries = scratch;
  const pointers = queries + panels * panelFloats;
  const scores = pointers + (keyBlock << 2);
  const state = scores + keyBlock * (panels << 5);
  const outStride: usize = columns << 2;
  const accumulated = state + panels * 96;
  const decoded = accumulated + (panels << 3) * outStride;

  for (let p: u32 = 0; p < panels; p++) {
    const from = job.q + r * job.qStride + (firstHead + (p << 3)) * (width << 2);
    packQueries(from, heads - (p << 3), width, padded, queries + p * panelFloats);
  }
  for (let v: u32 = 0; v < panels << 1; v++) {
    v128.store(state + v * 48, f32x4.splat(-Infinity));
    v128.store(state + v * 48, f32x4.splat(0), 16);
  }

  const scale = f32x4.splat(job.scale);
  const seen = load<u32>(job.positions + (r << 2)) + 1;
  const total = job.selected == 0 ? seen : load<u32>(job.counts + (r << 2));
  for (let start: u32 = 0; start < total; start += keyBlock) {
    const count = min<u32>(keyBlock, total - start);
    gather(job, r, start, count, padded, pointers, decoded);
    for (let p: u32 = 0; p < panels; p++) {
      const panel = scores + p * (keyBlock << 5);
      scorePanel(pointers, count, queries + p * panelFloats, padded, panel);
      for (let half: u32 = 0; half < 2; half++) {
        if ((p << 3) + (half << 2) >= heads) break;
        const four = (p << 1) + half;
        const shrink = state + four * 48 + 32;
        softmax(panel + (half << 4), count, scale, state + four * 48);
        const out = accumulated + (four << 2) * outStride;
        for (let c: usize = 0; c < outStride; c += 32) {
          valueTile(
            panel + (half << 4),
            pointers,
            count,
            c,
            out + c,
            outStride,
            shrink,
            start == 0,
          );
        }
      }
    }
  }

  for (let h: u32 = 0; h < heads; h++) {
    const four = state + (h >> 2) * 48 + ((h & 3) << 2);
    const sum = load<f32>(four, 16);
    const out = job.out + r * job.outStride + (firstHead + h) * (latentDim << 2);
    writeHead(accumulated + h * outStride, sum, latentDim, out, job.round != 0);
    if (job.maxima == 0) continue;
    const index = (r * job.heads + firstHead + h) << 2;
    store<f32>(job.maxima + index, load<f32>(four));
    store<f32>(job.sums + index, sum);
  }
}
