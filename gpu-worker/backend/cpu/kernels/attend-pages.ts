// Attention with keys and values expanded from the latents: some pages of one sequence at a time.
//
// expandEntries reads the entries of the pages, a GEMM expands them by kv_b, packKeys lays the keys
// out, attendPages folds the pages into the state of every (row, head), finishPages writes the
// result.
//
// 512 rows to 4,096 tokens, 8 heads of 32 + 16 and 32: 138 ms, 20 GFLOP/s on one core of an EPYC
// (Zen 4).

import { CacheView, readLatent } from './caches';
import { pageRowsMax } from './op-codes';
import { exp, rounded } from './numbers';
import { tileRows } from './tiles';

@unmanaged
class PagesArguments {
  cache: usize;
  /** Address of the sequence's block table. */
  blockTable: usize;
  /** Tokens [tokenStart, tokenEnd) of the sequence; tokenStart is a multiple of 64. */
  tokenStart: u32;
  tokenEnd: u32;
  /** [tokens][latent + rope, padded to 4] f32 */
  entries: usize;
  entryStride: usize;
  /** [tokens][heads * (nope + value)] f32 */
  expanded: usize;
  expandedStride: usize;
  /** [pages][heads][8][nope + rope][8] f32: per eight tokens, the keys with tokens in lanes */
  keys: usize;
  heads: u32;
  nopeDim: u32;
  ropeDim: u32;
  valueDim: u32;
  q: usize;
  qStride: usize;
  out: usize;
  outStride: usize;
  /** The sequence's rows [rowStart, rowStart + rowCount). */
  rowStart: u32;
  rowCount: u32;
  positions: usize;
  /** [rows][width] i32 and [rows] i32, or 0. */
  selected: usize;
  width: u32;
  counts: usize;
  /** Per (four rows, head): maxima [4], sums [4], accumulated [value / 8][4][8] f32. */
  state: usize;
  stateBytes: usize;
  scale: f32;
  round: u32;
}

/** One token per task; tokens behind the last are left out by the host. */
export function expandEntries(at: usize, task: u32): void {
  const job = changetype<PagesArguments>(at);
  const position = job.tokenStart + task;
  const slot = (load<u32>(job.blockTable + ((position >> 6) << 2)) << 6) + (position & 63);
  readLatent(changetype<CacheView>(job.cache), slot, job.entries + task * job.entryStride);
}

/** One (page, head) per task. Tokens behind the last become zeros, as do their values. */
export function packKeys(at: usize, task: u32): void {
  const job = changetype<PagesArguments>(at);
  const page = task / job.heads, h = task % job.heads;
  const nopeDim = job.nopeDim, ropeDim = job.ropeDim, dim = nopeDim + ropeDim;
  const latentDim = changetype<CacheView>(job.cache).latentDim;
  const keys = job.keys + task * (dim << 8);
  const tokens = job.tokenEnd - job.tokenStart;
  for (let t: u32 = 0; t < 64; t++) {
    const token = (page << 6) + t;
    const expanded =
      job.expanded + token * job.expandedStride + h * ((nopeDim + job.valueDim) << 2);
    const rope = job.entries + token * job.entryStride + (latentDim << 2);
    let out = keys + (t >> 3) * (dim << 5) + ((t & 7) << 2);
    if (token >= tokens) {
      memory.fill(expanded + (nopeDim << 2), 0, job.valueDim << 2);
      for (let i: u32 = 0; i < dim; i++) store<f32>(out + (i << 5), 0);
      continue;
    }
    for (let i: u32 = 0; i < nopeDim; i++) {
      store<f32>(out, load<f32>(expanded + (i << 2)));
      out += 32;
    }
    for (let i: u32 = 0; i < ropeDim; i++) {
      store<f32>(out, load<f32>(rope + (i << 2)));
      out += 32;
    }
  }
}

/** Bit t is set if the row attends to token t of the page that starts at `first`. */
function visible(job: PagesArguments, r: u32, first: u32): u64 {
  const position = load<u32>(job.positions + (r << 2));
  if (position < first) return 0;
  if (job.selected == 0) {
    const seen = position - first + 1;
    return seen >= 64 ? ~(<u64>0) : ((<u64>1) << seen) - 1;
  }
  const list = job.selected + ((r * job.width) << 2);
  const count = load<u32>(job.counts + (r << 2));
  let low: u32 = 0, high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(list + (middle << 2)) < first) low = middle + 1;
    else high = middle;
  }
  let mask: u64 = 0;
  for (; low < count; low++) {
    const token = load<u32>(list + (low << 2)) - first;
    if (token >= 64) break;
    mask |= (<u64>1) << token;
  }
  return mask;
}

/**
 * Scores [8 panels][4 rows][8] of one row to probabilities [64] at `p`; `state` holds the row's
 * running maximum and, 16 bytes on, sum. Returns the factor for what was accumulated before.
 */
function softmaxRow(scores: usize, mask: u64, scale: f32, p: usize, state: usize): f32 {
  let maxima = f32x4.splat(-Infinity);
  for (let t: u32 = 0; t < 64; t += 4) {
    let score = f32x4.mul(v128.load(scores + (t >> 3) * 128 + ((t & 4) << 2)), f32x4.splat(scale));
    const bits = <i32>(mask >> t);
    const lanes = i32x4.ne(v128.and(i32x4.splat(bits), i32x4(1, 2, 4, 8)), i32x4.splat(0));
    score = v128.bitselect(score, f32x4.splat(-Infinity), lanes);
    v128.store(p + (t << 2), score);
    maxima = f32x4.max(maxima, score);
  }
  const pair = f32x4.max(maxima, v128.shuffle<f32>(maxima, maxima, 2, 3, 0, 1));
  const before = load<f32>(state);
  const inPage = max<f32>(f32x4.extract_lane(pair, 0), f32x4.extract_lane(pair, 1));
  const maximum = max<f32>(before, inPage);
  let sums = f32x4.splat(0);
  for (let t: u32 = 0; t < 64; t += 4) {
    const value = exp(f32x4.sub(v128.load(p + (t << 2)), f32x4.splat(maximum)));
    v128.store(p + (t << 2), value);
    sums = f32x4.add(sums, value);
  }
  const low = f32x4.extract_lane(sums, 0) + f32x4.extract_lane(sums, 1);
  const sum = low + (f32x4.extract_lane(sums, 2) + f32x4.extract_lane(sums, 3));
  const shrink = f32x4.extract_lane(exp(f32x4.splat(before - maximum)), 0);
  store<f32>(state, maximum);
  store<f32>(state, load<f32>(state, 16) * shrink + sum, 16);
  return shrink;
}

/** One (four rows, head) per task, over all pages of the job. */
export function attendPages(at: usize, task: u32, scratch: usize): void {
  const job = changetype<PagesArguments>(at);
  const group = task / job.heads, h = task % job.heads;
  const start = group * pageRowsMax;
  const rows = min<u32>(pageRowsMax, job.rowCount - start);
  const first = job.rowStart + start;
  const dim = job.nopeDim + job.ropeDim;
  const kvStride: usize = (job.nopeDim + job.valueDim) << 2;
  const state = job.state + task * job.stateBytes, accumulated = state + 32;
  const columnPanels = (job.valueDim + 7) >> 3;

  const scores = scratch;
  const p = scores + 1024;
  const masks = p + 1024;
  const q = job.q + first * job.qStride + h * (dim << 2);
  if (job.tokenStart == 0) {
    memory.fill(state, 0, job.stateBytes);
    v128.store(state, f32x4.splat(-Infinity));
  }

  const pages = (job.tokenEnd - job.tokenStart + 63) >> 6;
  for (let page: u32 = 0; page < pages; page++) {
    let any: u64 = 0;
    for (let r: u32 = 0; r < rows; r++) {
      const mask = visible(job, first + r, job.tokenStart + (page << 6));
      store<u64>(masks + (r << 3), mask);
      any |= mask;
    }
    if (any == 0) continue;

    const keys = job.keys + (page * job.heads + h) * (dim << 8);
    for (let t: usize = 0; t < 8; t++) {
      tileRows(rows, q, job.qStride, keys + t * (dim << 5), 32, dim, scores + (t << 7), true);
    }
    for (let r: u32 = 0; r < rows; r++) {
      const mask = load<u64>(masks + (r << 3));
      // A row that sees nothing of this page adds zeros, and keeps what it has.
      if (mask == 0) {
        memory.fill(p + (r << 8), 0, 256);
        continue;
      }
      const shrink = softmaxRow(scores + (r << 5), mask, job.scale, p + (r << 8), state + (r << 2));
      for (let c: u32 = 0; c < columnPanels; c++) {
        const out = accumulated + (c << 7) + (r << 5);
        v128.store(out, f32x4.mul(v128.load(out), f32x4.splat(shrink)));
        v128.store(out, f32x4.mul(v128.load(out, 16), f32x4.splat(shrink)), 16);
      }
    }
    const values =
      job.expanded + (page << 6) * job.expandedStride + h * kvStride + (job.nopeDim << 2);
    for (let c: u32 = 0; c < columnPanels; c++) {
      const out = accumulated + (c << 7);
      tileRows(rows, p, 256, values + (c << 5), job.expandedStride, 64, out, false);
    }
  }
}

/** One (four rows, head) per task. */
export function finishPages(at: usize, task: u32): void {
  const job = changetype<PagesArguments>(at);
  const group = task / job.heads, h = task % job.heads;
  const start = group * pageRowsMax;
  const rows = min<u32>(pageRowsMax, job.rowCount - start);
  const state = job.state + task * job.stateBytes, accumulated = state + 32;
  for (let r: u32 = 0; r < rows; r++) {
    const factor = f32x4.splat(<f32>1 / load<f32>(state + 16 + (r << 2)));
    const out = job.out + (job.rowStart + start + r) * job.outStride + h * (job.valueDim << 2);
    for (let c: u32 = 0; c < job.valueDim; c++) {
      const value = v128.load_splat<f32>(accumulated + (c >> 3) * 128 + (r << 5) + ((c & 7) << 2));
      v128.store_lane<f32>(out + (c << 2), rounded(f32x4.mul(value, factor), job.round != 0), 0);
    }
  }
}
