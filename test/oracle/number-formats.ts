/**
 * The narrow number formats of the deployment numerics, each by its definition and in plain
 * arithmetic: bfloat16, e4m3fn, scales that are powers of two, and groups that share a scale.
 */
import { at } from './vector.ts';
import type { Vector } from './vector.ts';

const bits = new DataView(new ArrayBuffer(4));

/** Nearest bfloat16, ties to even, from the float32 that an accumulator would hold. */
export function toBf16(value: number): number {
  bits.setFloat32(0, value);
  const word = bits.getUint32(0);
  if (Number.isNaN(value)) return Number.NaN;
  const roundUp = 0x7fff + ((word >>> 16) & 1);
  bits.setUint32(0, ((word + roundUp) & 0xffff0000) >>> 0);
  return bits.getFloat32(0);
}

/** Value of an e4m3fn code: 4 exponent bits with bias 7, 3 mantissa bits, no infinities. */
export function fromE4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -9;
  return sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}

/** Nearest e4m3fn value, ties to even, clamped to +-448. */
export function toE4m3(value: number): number {
  if (Number.isNaN(value)) return value;
  const size = Math.min(Math.abs(value), 448);
  // Below 2^-6 the format is subnormal and its steps stay 2^-9.
  const exponent = Math.max(floorLog2(size), -6);
  const step = 2 ** (exponent - 3);
  return Math.sign(value) * roundTiesToEven(size / step) * step;
}

/** Code of a value that `toE4m3` gave back. */
export function e4m3Code(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  if (Number.isNaN(value)) return 0x7f;
  const size = Math.abs(value);
  const exponent = Math.max(floorLog2(size), -6);
  const mantissa = size / 2 ** (exponent - 3);
  return mantissa < 8 ? sign | mantissa : sign | ((exponent + 7) << 3) | (mantissa - 8);
}

/** The scales of activations: the exact quotient, or rounded up to a power of two. */
export type ScaleFormat = 'f32' | 'ue8m0';

/** Scale of a group (docs/engine-spec.md#number-formats): amax / 448 with amax at least 1e-4. */
export function groupScale(values: Vector, format: ScaleFormat): number {
  let amax = 1e-4;
  for (const value of values) amax = Math.max(amax, Math.abs(value));
  const quotient = Math.fround(amax / 448);
  if (format === 'f32') return quotient;
  const floor = 2 ** floorLog2(quotient);
  return floor === quotient ? floor : 2 * floor;
}

/**
 * Quantises each group of `groupSize` values (the last may be shorter) and returns what is left.
 */
export function throughE4m3(values: Vector, groupSize: number, format: ScaleFormat): Vector {
  const out = new Float64Array(values.length);
  for (let start = 0; start < values.length; start += groupSize) {
    const group = values.subarray(start, start + groupSize);
    const scale = groupScale(group, format);
    for (let i = 0; i < group.length; i++) {
      // The quotient is a float32: with scales that are no powers of two it may round onto a tie.
      out[start + i] = toE4m3(Math.fround(at(group, i) / scale)) * scale;
    }
  }
  return out;
}

/** Exact, where Math.log2 may be off by one ulp at a power of two. */
function floorLog2(value: number): number {
  if (value === 0) return Number.NEGATIVE_INFINITY;
  let exponent = Math.floor(Math.log2(value));
  if (2 ** exponent > value) exponent -= 1;
  if (2 ** (exponent + 1) <= value) exponent += 1;
  return exponent;
}

function roundTiesToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest === 0.5) return floor % 2 === 0 ? floor : floor + 1;
  return rest < 0.5 ? floor : floor + 1;
}
