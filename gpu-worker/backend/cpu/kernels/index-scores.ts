// The lightning indexer's scores: I(t, s) = scale_s * sum_j w_j * max(0, q_j . k_s)
// (docs/engine-spec.md#indexer).
//
// A task takes up to 16 rows of one sequence and a run of its pages. Each page is transposed once
// to [dim][64 tokens], so that lanes run along tokens: a block of 4 heads x 8 tokens stays in
// registers while dim is summed, and neither the relu nor the sum over heads crosses lanes.
//
// 512 rows, 3,840 keys on average, 4 heads of 32, one core of an EPYC (Zen 4): 13.9 ms, 36 GFLOP/s;
// a single row, which has each transposed page to itself: 63 us with its top-k, 17 GFLOP/s.

import { CacheView } from './caches';
import { dtypeE4m3, scoreRowsMax, scoreTaskBytes } from './op-codes';
import { loadOneE4m3, loadE4m3, mulAdd } from './numbers';
import { roundGroup } from './rows';

@unmanaged
export class ScoreArguments {
  /**
   * Rows [rowStart, rowStart + rowCount) over pages [pageStart, pageEnd) of their sequence, u32
   * each.
   */
  tasks: usize;
  cache: usize;
  queries: usize;
  queryStride: usize;
  weights: usize;
  weightStride: usize;
  heads: u32;
  /** [rows] address of the row's block table. */
  blockTables: usize;
  /** [rows of this chunk][scoreStride] f32; row `firstRow` comes first. */
  scores: usize;
  scoreStride: usize;
  firstRow: u32;
  /** heads^-0.5 and dim^-0.5 */
  headScale: f32;
  dimScale: f32;
}

/**
 * A row's queries as [heads / 4][dim][4] at `out` and its weights at `weights`, heads padded with
 * zeros; `row` takes one head's values meanwhile.
 */
export function packQueries(job: ScoreArguments, r: u32, dim: u32, fp8: bool, out: usize, weights: usize, row: usize): void {
  const heads = job.heads, padded = (heads + 3) & ~3;
  memory.fill(out, 0, padded * (dim << 2));
  memory.fill(weights, 0, padded << 2);
  for (let h: u32 = 0; h < heads; h++) {
    let from = job.queries + r * job.queryStride + h * (dim << 2);
    let weight = load<f32>(job.weights + r * job.weightStride + (h << 2)) * job.headScale;
    if (fp8) {
      weight *= roundGroup(row, from, dim, true);
      from = row;
    }
    store<f32>(weights + (h << 2), weight * job.dimScale);
    const into = out + (h >> 2) * (dim << 4) + ((h & 3) << 2);
    for (let d: u32 = 0; d < dim; d++) store<f32>(into + (d << 4), load<f32>(from + (d << 2)));
  }
}

// @ts-ignore: decorator
@inline
function loadKeys(at: usize, fp8: bool): v128 {
  return fp8 ? loadE4m3(at) : v128.load(at);
}

/** Keys [64][dim] of a page as [dim][64] floats, without their scales. */
export function transposePage(page: usize, dim: u32, fp8: bool, out: usize): void {
  const shift: u32 = fp8 ? 0 : 2;
  const row: usize = dim << shift;
  const whole = dim & ~3;
  for (let t: u32 = 0; t < 64; t += 4) {
    const from = page + t * row;
    let to = out + (t << 2);
    for (let d: u32 = 0; d < whole; d += 4) {
      const at = from + (d << shift);
      const a = loadKeys(at, fp8), b = loadKeys(at + row, fp8);
      const c = loadKeys(at + 2 * row, fp8), e = loadKeys(at + 3 * row, fp8);
      const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5), cd = v128.shuffle<f32>(c, e, 0, 4, 1, 5);
      const abHigh = v128.shuffle<f32>(a, b, 2, 6, 3, 7), cdHigh = v128.shuffle<f32>(c, e, 2, 6, 3, 7);
      v128.store(to, v128.shuffle<f64>(ab, cd, 0, 2));
      v128.store(to, v128.shuffle<f64>(ab, cd, 1, 3), 256);
      v128.store(to, v128.shuffle<f64>(abHigh, cdHigh, 0, 2), 512);
      v128.store(to, v128.shuffle<f64>(abHigh, cdHigh, 1, 3), 768);
      to += 1024;
    }
    for (let d = whole; d < dim; d++) {
      for (let i: u32 = 0; i < 4; i++) {
        const at = from + i * row + (d << shift);
        const value = fp8 ? loadOneE4m3(at) : v128.load_splat<f32>(at);
        v128.store_lane<f32>(out + (d << 8) + ((t + i) << 2), value, 0);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function weighed(sum: v128, product: v128, weight: v128): v128 {
  return mulAdd(sum, f32x4.max(product, f32x4.splat(0)), weight);
}

/** Scores of 8 tokens: keys [dim][64] from the first of them on. */
export function scoreTokens(
  queries: usize, weights: usize, groups: u32, dim: u32, keys: usize, scales: usize, out: usize,
): void {
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0);
  let q = queries;
  for (let g: u32 = 0; g < groups; g++) {
    let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0);
    let a2 = f32x4.splat(0), b2 = f32x4.splat(0), a3 = f32x4.splat(0), b3 = f32x4.splat(0);
    let k = keys;
    const end = q + (dim << 4);
    while (q != end) {
      const k0 = v128.load(k), k1 = v128.load(k, 16);
      let x = v128.load_splat<f32>(q);
      a0 = mulAdd(a0, x, k0); b0 = mulAdd(b0, x, k1);
      x = v128.load_splat<f32>(q, 4);
      a1 = mulAdd(a1, x, k0); b1 = mulAdd(b1, x, k1);
      x = v128.load_splat<f32>(q, 8);
      a2 = mulAdd(a2, x, k0); b2 = mulAdd(b2, x, k1);
      x = v128.load_splat<f32>(q, 12);
      a3 = mulAdd(a3, x, k0); b3 = mulAdd(b3, x, k1);
      q += 16; k += 256;
    }
    let w = v128.load_splat<f32>(weights);
    s0 = weighed(s0, a0, w); s1 = weighed(s1, b0, w);
    w = v128.load_splat<f32>(weights, 4);
    s0 = weighed(s0, a1, w); s1 = weighed(s1, b1, w);
    w = v128.load_splat<f32>(weights, 8);
    s0 = weighed(s0, a2, w); s1 = weighed(s1, b2, w);
    w = v128.load_splat<f32>(weights, 12);
    s0 = weighed(s0, a3, w); s1 = weighed(s1, b3, w);
    weights += 16;
  }
  if (scales != 0) {
    s0 = f32x4.mul(s0, v128.load(scales));
    s1 = f32x4.mul(s1, v128.load(scales, 16));
  }
  v128.store(out, s0);
  v128.store(out, s1, 16);
}

export function indexScores(at: usize, task: u32, scratch: usize): void {
  const job = changetype<ScoreArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const entry = job.tasks + task * scoreTaskBytes;
  const rowStart = load<u32>(entry), rowCount = load<u32>(entry, 4);
  const pageStart = load<u32>(entry, 8), pageEnd = load<u32>(entry, 12);
  const dim = cache.indexDim, fp8 = cache.keyFormat == dtypeE4m3;
  const groups = (job.heads + 3) >> 2;

  const keys = scratch;
  const row = keys + (dim << 8);
  const weights = row + (dim << 2);
  const weightBytes: usize = groups << 4;
  const queries = weights + scoreRowsMax * weightBytes;
  const queryBytes: usize = groups * (dim << 4);
  for (let r: u32 = 0; r < rowCount; r++) {
    packQueries(job, rowStart + r, dim, fp8, queries + r * queryBytes, weights + r * weightBytes, row);
  }

  const table = load<usize>(job.blockTables + (rowStart << 2));
  for (let p = pageStart; p < pageEnd; p++) {
    const page = cache.keys + load<u32>(table + (p << 2)) * cache.pageBytes;
    transposePage(page, dim, fp8, keys);
    const scales = fp8 ? page + (dim << 6) : 0;
    for (let r: u32 = 0; r < rowCount; r++) {
      let out = job.scores + (rowStart + r - job.firstRow) * job.scoreStride + (p << 8);
      const q = queries + r * queryBytes, w = weights + r * weightBytes;
      for (let t: usize = 0; t < 256; t += 32) {
        scoreTokens(q, w, groups, dim, keys + t, scales == 0 ? 0 : scales + t, out);
        out += 32;
      }
    }
  }
}
