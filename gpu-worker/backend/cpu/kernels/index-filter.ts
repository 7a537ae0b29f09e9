// The top-k of many rows of one sequence, without exact scores of all tokens.
//
// Products of 16-bit integers tell every score within a bound; tokens that can't be among the top k
// are passed over, those that must be are taken, and the few between get their exact score. The
// selection is that of index-scores.ts and top-k.ts, bit for bit.
//
// The bound. A query of a head is s_h * (q + e) and a key s * (k + f), with integers q and k, norms
// |q|, |k| <= 45,006 and |e_i|, |f_i| <= 0.51. Then the product differs from s_h * s * (q . k) by
// at most s_h * s * 0.51 * sqrt(dim) * (|q| + |k + f|), and so does its relu. The float32 sums of
// both ways round by less than (dim + 2 * heads + 16) * 2^-23 of s_h * s * |q| * |k|. Weighed by
// |w_h| and added up over heads, that is `bound`, with the largest scale s of the pages; it is
// taken 5% larger.
//
// With a the k-th largest approximate score of any tokens of the row: at least k tokens have exact
// scores from a - bound on, so one below a - 2 * bound is not among the top k, and not equal to the
// last of them. With a that of all tokens, one above a + 2 * bound is among them for certain.
//
// 8 heads of 64, rows of up to 12,288 tokens, on one thread of a shared core of an EPYC (Zen 3),
// with the top-k: exact scores of all tokens 45 ns a token and row, the filter 28 ns.

import { CacheView } from './caches';
import { ScoreArguments, packQueries, scoreTokens, transposePage } from './index-scores';
import { loadOneE4m3 } from './numbers';
import { dtypeE4m3, notANumberAt, scoreRowsMax, scoreTaskBytes } from './op-codes';
import { histogramBytes, kthKey } from './top-k';

/** Most that the norm of a vector of integers is before its elements are rounded. */
const normMax: f32 = 45000;
const elementMax: f32 = 32767;
/** A row or page whose scale is not below it has no bound that is of use. */
const scaleMax: f32 = 1e30;
/** Smaller elements have squares that underflow, and are small integers at this scale. */
const scaleMin: f32 = 1e-18;
/** Covers products that underflow. */
const boundMin: f32 = 1e-30;

@unmanaged
class PackArguments {
  cache: usize;
  /** [pages] u32, of the sequence */
  table: usize;
  /** [pages][dim / 2][64 tokens][2] i16 */
  out: usize;
  /** [pages] f32; NaN if a key is not finite. */
  scales: usize;
}

@unmanaged
class FilterArguments extends ScoreArguments {
  /** The output of packIndexKeys: integers and scales. */
  packed: usize;
  scales: usize;
  /** [rows] i32 */
  positions: usize;
  width: u32;
  /** [rows][width] i32 */
  out: usize;
  /** [rows] i32 */
  counts: usize;
  /** [rows] u32: 1 if the row needs exact scores of all tokens. */
  flags: usize;
  /** Tokens that a row's list holds. */
  capacity: u32;
}

/** The state of one row of a task. */
@unmanaged
class Row {
  /** Tokens that the row sees; 0 if it needs no scores. */
  seen: u32;
  listed: u32;
  /** No token whose approximate score is lower needs to be listed. */
  cut: f32;
  bound: f32;
}

const rowBytes: u32 = 16;

/** A vector's scale, in each lane. */
// @ts-ignore: decorator
@inline
function scaleOf(squares: v128, largest: v128): v128 {
  const byNorm = f32x4.mul(f32x4.sqrt(squares), f32x4.splat(1.0001 / normMax));
  const byElement = f32x4.mul(largest, f32x4.splat(1.0001 / elementMax));
  return f32x4.max(f32x4.max(byNorm, byElement), f32x4.splat(scaleMin));
}

/** Two floats in each lane, divided by the scale, as neighbouring 16-bit integers. */
// @ts-ignore: decorator
@inline
function packPair(low: v128, high: v128, inverse: v128): v128 {
  const a = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(low, inverse)));
  const b = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(high, inverse)));
  return v128.or(v128.and(a, i32x4.splat(0xffff)), i32x4.shl(b, 16));
}

// @ts-ignore: decorator
@inline
function largestLane(x: v128): f32 {
  // The lanes of f32x4.max are NaN where one is.
  const halves = f32x4.max(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.max(halves, v128.shuffle<f32>(halves, halves, 1, 0, 3, 2)), 0);
}

/** Packs one page of keys; one scale serves all of its tokens. */
export function packIndexKeys(at: usize, task: u32, scratch: usize): void {
  const job = changetype<PackArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const dim = cache.indexDim, fp8 = cache.keyFormat == dtypeE4m3;
  const page = cache.keys + load<u32>(job.table + (task << 2)) * cache.pageBytes;
  transposePage(page, dim, fp8, scratch);

  let scale = f32x4.splat(0);
  for (let t: usize = 0; t < 256; t += 16) {
    let squares = f32x4.splat(0), largest = f32x4.splat(0);
    const own = fp8 ? v128.load(page + (dim << 6) + t) : f32x4.splat(1);
    for (let d: u32 = 0; d < dim; d++) {
      const at = scratch + (d << 8) + t;
      const key = f32x4.mul(v128.load(at), own);
      v128.store(at, key);
      squares = f32x4.add(squares, f32x4.mul(key, key));
      largest = f32x4.max(largest, f32x4.abs(key));
    }
    scale = f32x4.max(scale, scaleOf(squares, largest));
  }
  const shared = largestLane(scale);
  store<f32>(job.scales + (task << 2), shared < scaleMax ? shared : <f32>NaN);
  if (!(shared < scaleMax)) return;

  const inverse = f32x4.splat(1 / shared);
  let out = job.out + <usize>task * (dim << 7);
  for (let d: u32 = 0; d < dim; d += 2) {
    for (let t: usize = 0; t < 256; t += 16) {
      const at = scratch + (d << 8) + t;
      v128.store(out, packPair(v128.load(at), v128.load(at, 256), inverse));
      out += 16;
    }
  }
}

/**
 * Floats [groups][dim][4 heads] as [groups][dim / 2][4][2] integers; the heads' scales go into the
 * weights. Returns the sum of the weights' magnitudes.
 */
function packRow(queries: usize, weights: usize, groups: u32, dim: u32, out: usize, outWeights: usize): f32 {
  let sum = f32x4.splat(0);
  for (let g: u32 = 0; g < groups; g++) {
    let squares = f32x4.splat(0), largest = f32x4.splat(0);
    const end = queries + (dim << 4);
    for (let q = queries; q != end; q += 16) {
      const x = v128.load(q);
      squares = f32x4.add(squares, f32x4.mul(x, x));
      largest = f32x4.max(largest, f32x4.abs(x));
    }
    const scale = scaleOf(squares, largest);
    const inverse = f32x4.div(f32x4.splat(1), scale);
    const weight = f32x4.mul(v128.load(weights), scale);
    sum = f32x4.add(sum, f32x4.abs(weight));
    v128.store(outWeights, weight);
    for (let q = queries; q != end; q += 32) {
      v128.store(out, packPair(v128.load(q), v128.load(q, 16), inverse));
      out += 16;
    }
    queries = end;
    weights += 16;
    outWeights += 16;
  }
  return f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) +
    f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3);
}

// @ts-ignore: decorator
@inline
function dotAdd(sum: v128, a: v128, b: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(a, b));
}

// @ts-ignore: decorator
@inline
function weighed(sum: v128, product: v128, weight: v128): v128 {
  const positive = i32x4.max_s(product, i32x4.splat(0));
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(positive), weight));
}

/** Approximate scores of 8 tokens, without the page's scale: keys from the first of them on. */
function approximate(queries: usize, weights: usize, groups: u32, dim: u32, keys: usize, scale: v128, out: usize): void {
  let s0 = f32x4.splat(0), s1 = f32x4.splat(0);
  let q = queries;
  for (let g: u32 = 0; g < groups; g++) {
    let a0 = i32x4.splat(0), b0 = i32x4.splat(0), a1 = i32x4.splat(0), b1 = i32x4.splat(0);
    let a2 = i32x4.splat(0), b2 = i32x4.splat(0), a3 = i32x4.splat(0), b3 = i32x4.splat(0);
    let k = keys;
    const end = q + (dim << 3);
    while (q != end) {
      const k0 = v128.load(k), k1 = v128.load(k, 16);
      let x = v128.load_splat<u32>(q);
      a0 = dotAdd(a0, x, k0); b0 = dotAdd(b0, x, k1);
      x = v128.load_splat<u32>(q, 4);
      a1 = dotAdd(a1, x, k0); b1 = dotAdd(b1, x, k1);
      x = v128.load_splat<u32>(q, 8);
      a2 = dotAdd(a2, x, k0); b2 = dotAdd(b2, x, k1);
      x = v128.load_splat<u32>(q, 12);
      a3 = dotAdd(a3, x, k0); b3 = dotAdd(b3, x, k1);
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
  v128.store(out, f32x4.mul(s0, scale));
  v128.store(out, f32x4.mul(s1, scale), 16);
}

/** A float as an integer of the same order; -0 is +0. */
// @ts-ignore: decorator
@inline
function keyOf(score: f32): u32 {
  const bits = reinterpret<i32>(score + 0);
  return <u32>(bits ^ ((bits >> 31) | 0x80000000));
}

// @ts-ignore: decorator
@inline
function scoreOf(key: u32): f32 {
  return reinterpret<f32>((key & 0x80000000) != 0 ? key ^ 0x80000000 : ~key);
}

/** The k-th largest approximate score of a list: [listed] of score and position. */
function kthOf(list: usize, listed: u32, k: u32, keys: usize, scratch: usize): f32 {
  for (let i: u32 = 0; i < listed; i++) store<u32>(keys + (i << 2), keyOf(load<f32>(list + (i << 3))));
  return scoreOf(<u32>kthKey(keys, listed, k, scratch));
}

/** Raises the row's cut and drops what lies below; false if too much stays. */
function compact(row: Row, list: usize, job: FilterArguments, keys: usize, scratch: usize): bool {
  const cut = kthOf(list, row.listed, job.width, keys, scratch) - 2 * row.bound;
  let to = list;
  const end = list + (row.listed << 3);
  for (let from = list; from != end; from += 8) {
    const score = load<f32>(from);
    store<u64>(to, load<u64>(from));
    to += <usize>(score >= cut) << 3;
  }
  row.cut = cut;
  row.listed = <u32>(to - list) >> 3;
  return row.listed < job.capacity - (job.capacity >> 2);
}

/** Lists the tokens of a page, from `first` on, whose scores in `tile` are not below the cut. */
function listPage(row: Row, list: usize, first: u32, tile: usize): void {
  const cut = f32x4.splat(row.cut);
  const visible = min(row.seen - first, 64);
  let to = list + (row.listed << 3);
  for (let t: u32 = 0; t < visible; t += 4) {
    const scores = v128.load(tile + (t << 2));
    let mask = i32x4.bitmask(f32x4.ge(scores, cut));
    while (mask != 0) {
      const token = t + ctz(mask);
      mask &= mask - 1;
      if (token >= visible) break;
      store<f32>(to, load<f32>(tile + (token << 2)));
      store<u32>(to, first + token, 4);
      to += 8;
    }
  }
  row.listed = <u32>(to - list) >> 3;
}

/** Addresses of the parts of a task's scratch. */
@unmanaged
class Places {
  queries: usize;
  weights: usize;
  floatQueries: usize;
  floatWeights: usize;
  one: usize;
  tile: usize;
  keys: usize;
  rows: usize;
  histogram: usize;
  ordered: usize;
  lists: usize;
}

const placesBytes: u32 = 64;

function placesOf(scratch: usize, dim: u32, groups: u32, capacity: u32): Places {
  const places = changetype<Places>(scratch);
  places.queries = scratch + placesBytes;
  places.weights = places.queries + scoreRowsMax * groups * (dim << 3);
  places.floatQueries = places.weights + scoreRowsMax * (groups << 4);
  places.floatWeights = places.floatQueries + groups * (dim << 4);
  places.one = places.floatWeights + (groups << 4);
  places.tile = places.one + (dim << 2);
  places.keys = places.tile + 256;
  places.rows = places.keys + (dim << 8);
  places.histogram = places.rows + scoreRowsMax * rowBytes;
  places.ordered = places.histogram + histogramBytes + (capacity << 2);
  places.lists = places.ordered + (capacity << 2);
  return places;
}

/** Exact scores, as ordered integers in places.ordered, of the listed tokens within [low, high]. */
function scoreBand(job: FilterArguments, list: usize, listed: u32, table: usize, low: f32, high: f32, places: Places): u32 {
  const cache = changetype<CacheView>(job.cache);
  const dim = cache.indexDim, fp8 = cache.keyFormat == dtypeE4m3, groups = (job.heads + 3) >> 2;
  const scales = places.tile + 32;
  let waiting: u32 = 0, scored: u32 = 0;
  for (let i: u32 = 0; i < listed; i++) {
    const score = load<f32>(list + (i << 3));
    if (score >= low && score <= high) {
      const token = load<u32>(list + (i << 3), 4), slot = token & 63;
      const page = cache.keys + load<u32>(table + ((token >> 6) << 2)) * cache.pageBytes;
      const to = places.keys + (waiting << 2);
      for (let d: u32 = 0; d < dim; d++) {
        const at = page + (fp8 ? slot * dim + d : (slot * dim + d) << 2);
        const value = fp8 ? f32x4.extract_lane(loadOneE4m3(at), 0) : load<f32>(at);
        store<f32>(to + (d << 8), value);
      }
      if (fp8) store<f32>(scales + (waiting << 2), load<f32>(page + (dim << 6) + (slot << 2)));
      waiting++;
    }
    if (waiting == 8 || (i + 1 == listed && waiting != 0)) {
      scoreTokens(places.floatQueries, places.floatWeights, groups, dim, places.keys, fp8 ? scales : 0, places.tile);
      for (let j: u32 = 0; j < waiting; j++) {
        const exact = load<f32>(places.tile + (j << 2));
        if (exact != exact) atomic.store<i32>(notANumberAt, 1);
        store<u32>(places.ordered + (scored << 2), keyOf(exact));
        scored++;
      }
      waiting = 0;
    }
  }
  return scored;
}

/** Writes the row's selection out of its list. */
function finish(job: FilterArguments, r: u32, row: Row, list: usize, places: Places): void {
  const cache = changetype<CacheView>(job.cache);
  const fp8 = cache.keyFormat == dtypeE4m3, width = job.width, listed = row.listed;
  const kth = kthOf(list, listed, width, places.ordered, places.histogram);
  const low = kth - 2 * row.bound, high = kth + 2 * row.bound;
  packQueries(job, r, cache.indexDim, fp8, places.floatQueries, places.floatWeights, places.one);
  const table = load<usize>(job.blockTables + (r << 2));
  const scored = scoreBand(job, list, listed, table, low, high, places);

  let wanted = width;
  for (let i: u32 = 0; i < listed; i++) wanted -= u32(load<f32>(list + (i << 3)) > high);
  const settled = wanted == 0 ? <u64>u32.MAX_VALUE : kthKey(places.ordered, scored, wanted, places.histogram);
  const threshold = <u32>settled;
  let equalLeft = <u32>(settled >> 32);
  let to = job.out + r * (width << 2), next = places.ordered;
  for (let i: u32 = 0; i < listed; i++) {
    const score = load<f32>(list + (i << 3));
    let taken = score > high;
    if (!taken && score >= low) {
      const key = load<u32>(next);
      next += 4;
      taken = key > threshold;
      if (key == threshold && equalLeft != 0) {
        taken = true;
        equalLeft--;
      }
    }
    if (!taken) continue;
    store<u32>(to, load<u32>(list + (i << 3), 4));
    to += 4;
  }
}

/** Prepares the rows of a task; those that see no more than `width` tokens are done. */
function beginRows(job: FilterArguments, rowStart: u32, rowCount: u32, pages: u32, places: Places): void {
  const cache = changetype<CacheView>(job.cache);
  const dim = cache.indexDim, fp8 = cache.keyFormat == dtypeE4m3, groups = (job.heads + 3) >> 2;
  let scale: f32 = 0, isFinite = true;
  for (let p: u32 = 0; p < pages; p++) {
    const own = load<f32>(job.scales + (p << 2));
    isFinite = isFinite && own == own;
    scale = max(scale, own);
  }
  const quantized = <f32>0.51 * 2 * sqrt<f32>(<f32>dim);
  const rounded = <f32>(dim + 2 * job.heads + 16) * <f32>1.1920929e-7 * (normMax + 6);
  const perWeight = <f32>1.05 * scale * (normMax + 6) * (quantized + rounded);
  for (let i: u32 = 0; i < rowCount; i++) {
    const r = rowStart + i;
    const row = changetype<Row>(places.rows + i * rowBytes);
    const seen = load<u32>(job.positions + (r << 2)) + 1;
    store<u32>(job.counts + (r << 2), min(seen, job.width));
    store<u32>(job.flags + (r << 2), 0);
    row.listed = 0;
    row.seen = 0;
    row.cut = -Infinity;
    if (seen <= job.width) {
      const out = job.out + r * (job.width << 2);
      for (let t: u32 = 0; t < seen; t++) store<u32>(out + (t << 2), t);
      continue;
    }
    packQueries(job, r, dim, fp8, places.floatQueries, places.floatWeights, places.one);
    const sum = packRow(
      places.floatQueries, places.floatWeights, groups, dim,
      places.queries + i * groups * (dim << 3), places.weights + i * (groups << 4),
    );
    row.bound = perWeight * sum + boundMin;
    if (isFinite && row.bound < scaleMax) row.seen = seen;
    else store<u32>(job.flags + (r << 2), 1);
  }
}

export function indexFilter(at: usize, task: u32, scratch: usize): void {
  const job = changetype<FilterArguments>(at);
  const cache = changetype<CacheView>(job.cache);
  const entry = job.tasks + task * scoreTaskBytes;
  const rowStart = load<u32>(entry), rowCount = load<u32>(entry, 4);
  const pageEnd = load<u32>(entry, 12);
  const dim = cache.indexDim, groups = (job.heads + 3) >> 2;
  const places = placesOf(scratch, dim, groups, job.capacity);
  const listBytes = job.capacity << 3;
  beginRows(job, rowStart, rowCount, pageEnd, places);

  for (let p: u32 = 0; p < pageEnd; p++) {
    const keys = job.packed + <usize>p * (dim << 7);
    const scale = v128.load_splat<f32>(job.scales + (p << 2));
    for (let i: u32 = 0; i < rowCount; i++) {
      const row = changetype<Row>(places.rows + i * rowBytes);
      if (row.seen <= p << 6) continue;
      const q = places.queries + i * groups * (dim << 3), w = places.weights + i * (groups << 4);
      for (let t: usize = 0; t < 256; t += 32) approximate(q, w, groups, dim, keys + t, scale, places.tile + t);
      const list = places.lists + i * listBytes;
      listPage(row, list, p << 6, places.tile);
      if (row.listed + 64 <= job.capacity) continue;
      if (compact(row, list, job, places.ordered, places.histogram)) continue;
      row.seen = 0;
      store<u32>(job.flags + ((rowStart + i) << 2), 1);
    }
  }
  for (let i: u32 = 0; i < rowCount; i++) {
    const row = changetype<Row>(places.rows + i * rowBytes);
    if (row.seen != 0) finish(job, rowStart + i, row, places.lists + i * listBytes, places);
  }
}
