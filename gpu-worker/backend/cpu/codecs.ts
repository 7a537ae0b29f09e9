/**
 * The small number formats of the checkpoints and caches, one value at a time: bfloat16, e4m3fn and
 * power-of-two scales (docs/engine-spec.md#number-formats). Plain and slow; the kernels hold the
 * vectorised forms, and tests compare the two bit for bit.
 */
import { missing } from '../../at.ts';
import type { Numerics } from '../numerics.ts';

/** Largest finite e4m3fn value. */
export const e4m3Max = 448;

/** Group maxima below this are quantised as if they were this. */
export const amaxFloor = 1e-4;

const scratch = new DataView(new ArrayBuffer(4));

function floatBits(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getUint32(0);
}

function bitsFloat(bits: number): number {
  scratch.setUint32(0, bits);
  return scratch.getFloat32(0);
}

/** The 16 bits of the nearest bfloat16, ties to even; NaN stays NaN. */
export function encodeBf16(value: number): number {
  const bits = floatBits(value);
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function decodeBf16(code: number): number {
  return bitsFloat((code << 16) >>> 0);
}

/** The nearest bfloat16 as a number. */
export function roundBf16(value: number): number {
  return decodeBf16(encodeBf16(value));
}

/** Nearest e4m3fn code, ties to even, saturated to 448; NaN becomes 0x7f. */
export function encodeE4m3(value: number): number {
  if (Number.isNaN(value)) return 0x7f;
  const sign = floatBits(value) >>> 31 === 1 ? 0x80 : 0;
  const magnitude = Math.min(Math.abs(Math.fround(value)), e4m3Max);
  // Below 2^-6 the codes are multiples of 2^-9; above, three mantissa bits remain of the 23.
  if (magnitude < 2 ** -6) {
    return sign | (floatBits(magnitude + 2 ** 14) & 0xf);
  }
  const bits = floatBits(magnitude);
  return sign | (((bits + 0x7ffff + ((bits >>> 20) & 1)) >>> 20) - (120 << 3));
}

export function decodeE4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 0xf;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -9;
  return sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}

/**
 * The scale of a group whose largest magnitude is `amax`: amax / 448, exact or rounded up to 2^n.
 */
export function groupScale(amax: number, format: Numerics['scaleFormat']): number {
  const quotient = Math.fround(Math.max(Math.fround(amax), Math.fround(amaxFloor)) / e4m3Max);
  if (format === 'f32') return quotient;
  const bits = floatBits(quotient);
  return bitsFloat((bits + 0x7fffff) & 0x7f800000);
}

/**
 * Quantises values[start, end) as one group: codes into `codes` from `start`; returns the scale.
 */
export function quantizeGroup(
  values: Float32Array,
  codes: Uint8Array,
  range: { start: number; end: number },
  format: Numerics['scaleFormat'],
): number {
  let amax = 0;
  for (let i = range.start; i < range.end; i++)
    amax = Math.max(amax, Math.abs(values[i] ?? missing()));
  const scale = groupScale(amax, format);
  for (let i = range.start; i < range.end; i++) {
    codes[i] = encodeE4m3(Math.fround((values[i] ?? missing()) / scale));
  }
  return scale;
}
