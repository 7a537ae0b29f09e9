// The micro-kernels: small blocks of outputs kept in registers while one dimension is summed.
//
// Each output lane sums in ascending k with one multiply and one add, whatever the number of rows
// in the tile, so a row's result does not depend on the rows that it is computed with.
//
// Rows x outputs in registers, GFLOP/s on one core of an EPYC (Zen 4), 256 deep, operands cached:
//   1 x 8  20    2 x 8  36    3 x 8  44
//   4 x 8  44, two k per round 46, four 40: taken, the plain loop being as good as the unrolled
//   5 x 8  40    6 x 8  30, two k per round 45: 12 sums and 4 operands need more than 15 registers
//   relaxed_madd  4 x 8  33, 6 x 8  48: no gain for results that would differ between machines
// Two multiplies and two adds of four lanes per cycle would be about 56.

import { mulAdd } from './numbers';

/**
 * c[r][0..8) (+)= sum over k of x_r[k] * w[k][0..8), for four rows; `wStride` in bytes, c dense.
 */
export function tile4(
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  w: usize,
  wStride: usize,
  count: u32,
  c: usize,
  fresh: bool,
): void {
  let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0);
  let a2 = f32x4.splat(0), b2 = f32x4.splat(0), a3 = f32x4.splat(0), b3 = f32x4.splat(0);
  if (!fresh) {
    a0 = v128.load(c, 0);
    b0 = v128.load(c, 16);
    a1 = v128.load(c, 32);
    b1 = v128.load(c, 48);
    a2 = v128.load(c, 64);
    b2 = v128.load(c, 80);
    a3 = v128.load(c, 96);
    b3 = v128.load(c, 112);
  }
  const end = w + count * wStride;
  while (w != end) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let x = v128.load_splat<f32>(x0);
    a0 = mulAdd(a0, x, w0);
    b0 = mulAdd(b0, x, w1);
    x = v128.load_splat<f32>(x1);
    a1 = mulAdd(a1, x, w0);
    b1 = mulAdd(b1, x, w1);
    x = v128.load_splat<f32>(x2);
    a2 = mulAdd(a2, x, w0);
    b2 = mulAdd(b2, x, w1);
    x = v128.load_splat<f32>(x3);
    a3 = mulAdd(a3, x, w0);
    b3 = mulAdd(b3, x, w1);
    w += wStride;
    x0 += 4;
    x1 += 4;
    x2 += 4;
    x3 += 4;
  }
  v128.store(c, a0, 0);
  v128.store(c, b0, 16);
  v128.store(c, a1, 32);
  v128.store(c, b1, 48);
  v128.store(c, a2, 64);
  v128.store(c, b2, 80);
  v128.store(c, a3, 96);
  v128.store(c, b3, 112);
}

export function tile3(
  x0: usize,
  x1: usize,
  x2: usize,
  w: usize,
  wStride: usize,
  count: u32,
  c: usize,
  fresh: bool,
): void {
  let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0);
  let a2 = f32x4.splat(0), b2 = f32x4.splat(0);
  if (!fresh) {
    a0 = v128.load(c, 0);
    b0 = v128.load(c, 16);
    a1 = v128.load(c, 32);
    b1 = v128.load(c, 48);
    a2 = v128.load(c, 64);
    b2 = v128.load(c, 80);
  }
  const end = w + count * wStride;
  while (w != end) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let x = v128.load_splat<f32>(x0);
    a0 = mulAdd(a0, x, w0);
    b0 = mulAdd(b0, x, w1);
    x = v128.load_splat<f32>(x1);
    a1 = mulAdd(a1, x, w0);
    b1 = mulAdd(b1, x, w1);
    x = v128.load_splat<f32>(x2);
    a2 = mulAdd(a2, x, w0);
    b2 = mulAdd(b2, x, w1);
    w += wStride;
    x0 += 4;
    x1 += 4;
    x2 += 4;
  }
  v128.store(c, a0, 0);
  v128.store(c, b0, 16);
  v128.store(c, a1, 32);
  v128.store(c, b1, 48);
  v128.store(c, a2, 64);
  v128.store(c, b2, 80);
}

export function tile2(
  x0: usize,
  x1: usize,
  w: usize,
  wStride: usize,
  count: u32,
  c: usize,
  fresh: bool,
): void {
  let a0 = f32x4.splat(0), b0 = f32x4.splat(0), a1 = f32x4.splat(0), b1 = f32x4.splat(0);
  if (!fresh) {
    a0 = v128.load(c, 0);
    b0 = v128.load(c, 16);
    a1 = v128.load(c, 32);
    b1 = v128.load(c, 48);
  }
  const end = w + count * wStride;
  while (w != end) {
    const w0 = v128.load(w), w1 = v128.load(w, 16);
    let x = v128.load_splat<f32>(x0);
    a0 = mulAdd(a0, x, w0);
    b0 = mulAdd(b0, x, w1);
    x = v128.load_splat<f32>(x1);
    a1 = mulAdd(a1, x, w0);
    b1 = mulAdd(b1, x, w1);
    w += wStride;
    x0 += 4;
    x1 += 4;
  }
  v128.store(c, a0, 0);
  v128.store(c, b0, 16);
  v128.store(c, a1, 32);
  v128.store(c, b1, 48);
}

export function tile1(x: usize, w: usize, wStride: usize, count: u32, c: usize, fresh: bool): void {
  let a = f32x4.splat(0), b = f32x4.splat(0);
  if (!fresh) {
    a = v128.load(c, 0);
    b = v128.load(c, 16);
  }
  const end = w + count * wStride;
  while (w != end) {
    const value = v128.load_splat<f32>(x);
    a = mulAdd(a, value, v128.load(w));
    b = mulAdd(b, value, v128.load(w, 16));
    w += wStride;
    x += 4;
  }
  v128.store(c, a, 0);
  v128.store(c, b, 16);
}

/** The tile for 1 to 4 rows that lie `xStride` bytes apart. */
export function tileRows(
  rows: u32,
  x: usize,
  xStride: usize,
  w: usize,
  wStride: usize,
  count: u32,
  c: usize,
  fresh: bool,
): void {
  const x1 = x + xStride, x2 = x1 + xStride, x3 = x2 + xStride;
  if (rows >= 4) tile4(x, x1, x2, x3, w, wStride, count, c, fresh);
  else if (rows == 3) tile3(x, x1, x2, w, wStride, count, c, fresh);
  else if (rows == 2) tile2(x, x1, w, wStride, count, c, fresh);
  else tile1(x, w, wStride, count, c, fresh);
}
