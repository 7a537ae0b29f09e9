// bfloat16, e4m3fn and exp, four lanes at a time. The formats are those of
// docs/engine-spec.md#number-formats, bit for bit; the plain forms are in ../codecs.ts.

// Constants of the loops below are loaded where they are used: the engine builds a literal vector
// anew each time. 256 -> 768 e4m3 weights for one row, on one core of an EPYC (Zen 4): bits placed
// in 32-bit lanes 112 us, in 16-bit lanes 80 us, constants loaded 54 us (f32 weights: 21 us).
// Attention of 8 heads to 256 keys, in which exp is a part: 25.2 us, with constants loaded 23.1 us.
const masks = memory.data<u32>([0x87f087f0, 0x7ff07ff0, 0x07f007f0, 127], 16);
const signAndFields: usize = 0;
const fields: usize = 4;
const nanFields: usize = 8;
const bias: usize = 12;

// 2^120; the ends of exp's range, log2(e), ln(2) in two parts, 1 / n!, 1.
const numbers = memory.data<f32>([
  1.329227995784916e36,
  -87.33654, 89, 1.44269504, 0.693359375, -2.12194440e-4,
  1.98412698e-4, 1.38888889e-3, 8.33333333e-3, 4.16666667e-2, 0.166666667, 0.5, 1,
], 16);
const two120: usize = 0;
const expLowest: usize = 4;
const expHighest: usize = 8;
const log2e: usize = 12;
const ln2High: usize = 16;
const ln2Low: usize = 20;
const seventh: usize = 24;
const sixth: usize = 28;
const fifth: usize = 32;
const fourth: usize = 36;
const third: usize = 40;
const half: usize = 44;
const one: usize = 48;

// @ts-ignore: decorator
@inline
function mask(offset: usize): v128 {
  return v128.load_splat<u32>(masks + offset);
}

// @ts-ignore: decorator
@inline
function number(offset: usize): v128 {
  return v128.load_splat<f32>(numbers + offset);
}

// @ts-ignore: decorator
@inline
export function mulAdd(sum: v128, a: v128, b: v128): v128 {
  // Two roundings, so that every machine computes the same; a fused multiply-add measured no
  // faster.
  return f32x4.add(sum, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
export function roundBf16(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  const rounded = i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd);
  const quiet = v128.or(x, i32x4.splat(0x400000));
  const bits = v128.bitselect(quiet, rounded, f32x4.ne(x, x));
  return v128.and(bits, i32x4.splat(0xffff0000));
}

/** Rounds as the numerics say. */
// @ts-ignore: decorator
@inline
export function rounded(x: v128, round: bool): v128 {
  return round ? roundBf16(x) : x;
}

/** Lanes 0..3 of `halves` (i16x8), the high halves of floats, as those floats. */
// @ts-ignore: decorator
@inline
export function widenLow(halves: v128): v128 {
  return i32x4.shl(i32x4.extend_low_i16x8_u(halves), 16);
}

/** Lanes 4..7 of `halves` as floats. */
// @ts-ignore: decorator
@inline
export function widenHigh(halves: v128): v128 {
  return i32x4.shl(i32x4.extend_high_i16x8_u(halves), 16);
}

/**
 * Eight codes in the low bytes as high halves of floats, 2^120 times too small: sign, exponent and
 * mantissa moved to a float's fields, in 16-bit lanes to serve eight codes at once.
 */
// @ts-ignore: decorator
@inline
export function e4m3Halves(codes: v128): v128 {
  const extended = i16x8.extend_low_i8x16_s(codes);
  const placed = v128.and(i16x8.shl(extended, 4), mask(signAndFields));
  const nan = i16x8.eq(v128.and(placed, mask(fields)), mask(nanFields));
  return v128.or(placed, nan);
}

/** The factor that the floats of `e4m3Halves` lack: 2^(127 - 7). */
// @ts-ignore: decorator
@inline
export function e4m3Scaled(x: v128): v128 {
  return f32x4.mul(x, number(two120));
}

/** Four codes from memory. */
// @ts-ignore: decorator
@inline
export function loadE4m3(at: usize): v128 {
  return e4m3Scaled(widenLow(e4m3Halves(v128.load_zero<u32>(at))));
}

/** One code from memory, in all lanes. */
// @ts-ignore: decorator
@inline
export function loadOneE4m3(at: usize): v128 {
  return e4m3Scaled(widenLow(e4m3Halves(v128.load_splat<u8>(at))));
}

/** The nearest e4m3 value, ties to even, saturated to 448, as a float. */
// @ts-ignore: decorator
@inline
export function roundE4m3(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const magnitude = f32x4.min(f32x4.abs(x), f32x4.splat(448));
  const odd = v128.and(i32x4.shr_u(magnitude, 20), i32x4.splat(1));
  const normal = v128.and(
    i32x4.add(i32x4.add(magnitude, i32x4.splat(0x7ffff)), odd),
    i32x4.splat(0xfff00000),
  );
  // Below 2^-6 the values are multiples of 2^-9: adding 2^14 leaves just those bits.
  const steps = f32x4.splat(16384);
  const small = f32x4.sub(f32x4.add(magnitude, steps), steps);
  const isSmall = f32x4.lt(magnitude, f32x4.splat(0.015625));
  return v128.or(v128.bitselect(small, normal, isSmall), sign);
}

/** The codes of roundE4m3 in i32 lanes; NaN becomes 0x7f. */
// @ts-ignore: decorator
@inline
export function encodeE4m3(x: v128): v128 {
  const sign = i32x4.shl(i32x4.shr_u(x, 31), 7);
  const magnitude = f32x4.min(f32x4.abs(x), f32x4.splat(448));
  const odd = v128.and(i32x4.shr_u(magnitude, 20), i32x4.splat(1));
  const carried = i32x4.add(i32x4.add(magnitude, i32x4.splat(0x7ffff)), odd);
  const normal = i32x4.sub(i32x4.shr_u(carried, 20), i32x4.splat(960));
  const small = v128.and(f32x4.add(magnitude, f32x4.splat(16384)), i32x4.splat(0xf));
  const isSmall = f32x4.lt(magnitude, f32x4.splat(0.015625));
  const code = v128.or(v128.bitselect(small, normal, isSmall), sign);
  return v128.bitselect(i32x4.splat(0x7f), code, f32x4.ne(x, x));
}

/** The scale of a group whose largest magnitude is `amax`. */
export function groupScale(amax: f32, powerOfTwo: bool): f32 {
  const quotient = max<f32>(amax, <f32>1e-4) / <f32>448;
  if (!powerOfTwo) return quotient;
  return reinterpret<f32>((reinterpret<u32>(quotient) + 0x7fffff) & 0x7f800000);
}

/** Largest magnitude of x[0, count). */
export function maxMagnitude(x: usize, count: u32): f32 {
  let lanes = f32x4.splat(0);
  let i: u32 = 0;
  for (; i + 4 <= count; i += 4) lanes = f32x4.max(lanes, f32x4.abs(v128.load(x + (i << 2))));
  for (; i < count; i++) {
    lanes = f32x4.max(lanes, f32x4.abs(v128.load_splat<f32>(x + (i << 2))));
  }
  const first = max<f32>(f32x4.extract_lane(lanes, 0), f32x4.extract_lane(lanes, 1));
  const second = max<f32>(f32x4.extract_lane(lanes, 2), f32x4.extract_lane(lanes, 3));
  return max<f32>(first, second);
}

/**
 * e^x within 2 units in the last place: 2^n * e^r with |r| <= ln(2) / 2. 0 below -87.3 and infinite
 * from 88.4 on, where a few floats of the last binade are lost.
 */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  const bounded = f32x4.min(f32x4.max(x, number(expLowest)), number(expHighest));
  const n = f32x4.nearest(f32x4.mul(bounded, number(log2e)));
  // ln(2) in two parts, the first with few enough bits that n times it is exact.
  let r = f32x4.sub(bounded, f32x4.mul(n, number(ln2High)));
  r = f32x4.sub(r, f32x4.mul(n, number(ln2Low)));
  let series = number(seventh);
  series = mulAdd(number(sixth), series, r);
  series = mulAdd(number(fifth), series, r);
  series = mulAdd(number(fourth), series, r);
  series = mulAdd(number(third), series, r);
  series = mulAdd(number(half), series, r);
  series = mulAdd(r, series, f32x4.mul(r, r));
  const mantissa = f32x4.add(number(one), series);
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), mask(bias)), 23);
  const value = f32x4.mul(mantissa, power);
  return v128.bitselect(f32x4.splat(0), value, f32x4.lt(x, number(expLowest)));
}

/** 1 / (1 + e^-x) */
// @ts-ignore: decorator
@inline
export function sigmoid(x: v128): v128 {
  const one = f32x4.splat(1);
  return f32x4.div(one, f32x4.add(one, exp(f32x4.neg(x))));
}
