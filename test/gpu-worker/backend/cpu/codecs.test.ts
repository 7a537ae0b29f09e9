import { describe, expect, test } from 'vitest';
import {
  decodeBf16,
  decodeE4m3,
  encodeBf16,
  encodeE4m3,
  groupScale,
  roundBf16,
} from '../../../../gpu-worker/backend/cpu/codecs.ts';
import { CpuBackend } from '../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { asCpu } from '../../../../gpu-worker/backend/cpu/handles.ts';
import { opCodecs } from '../../../../gpu-worker/backend/cpu/kernels/op-codes.ts';
import { seededRandom } from '../../../support/random.ts';
import { f32Numerics, openTested } from '../../../support/gpu/backends.ts';

const finiteCodes = Array.from({ length: 127 }, (_, code) => code);

/** The neighbour of a positive float. */
function next(value: number, steps: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = (bits[0] ?? 0) + steps;
  return new Float32Array(bits.buffer)[0] ?? Number.NaN;
}

describe('e4m3', () => {
  test('has the values that the format defines, for all 256 codes', () => {
    expect(decodeE4m3(0x00)).toBe(0);
    expect(Object.is(decodeE4m3(0x80), -0)).toBe(true);
    expect(decodeE4m3(0x01)).toBe(2 ** -9);
    expect(decodeE4m3(0x07)).toBe(7 * 2 ** -9);
    expect(decodeE4m3(0x08)).toBe(2 ** -6);
    expect(decodeE4m3(0x38)).toBe(1);
    expect(decodeE4m3(0x7e)).toBe(448);
    expect(decodeE4m3(0x7f)).toBeNaN();
    expect(decodeE4m3(0xff)).toBeNaN();
    for (const code of finiteCodes) {
      expect(decodeE4m3(code | 0x80)).toBe(-decodeE4m3(code));
      if (code > 0) expect(decodeE4m3(code)).toBeGreaterThan(decodeE4m3(code - 1));
    }
  });

  test('encodes every value that it decodes to the same code', () => {
    for (const code of finiteCodes) {
      expect(encodeE4m3(decodeE4m3(code))).toBe(code);
      expect(encodeE4m3(decodeE4m3(code | 0x80))).toBe(code | 0x80);
    }
    expect(encodeE4m3(Number.NaN)).toBe(0x7f);
  });

  test('rounds to the nearest, ties to the even code, one unit around each tie', () => {
    for (const code of finiteCodes.slice(0, -1)) {
      const middle = (decodeE4m3(code) + decodeE4m3(code + 1)) / 2;
      expect(encodeE4m3(middle)).toBe(code % 2 === 0 ? code : code + 1);
      expect(encodeE4m3(next(middle, -1))).toBe(code);
      expect(encodeE4m3(next(middle, 1))).toBe(code + 1);
    }
  });

  test('saturates to 448', () => {
    for (const value of [448, 463.9, 464, 480, 1e9, Infinity]) {
      expect(encodeE4m3(value)).toBe(0x7e);
      expect(encodeE4m3(-value)).toBe(0xfe);
    }
  });
});

describe('bf16', () => {
  test('keeps every value of the format', () => {
    for (let code = 0; code < 0x10000; code++) {
      const value = decodeBf16(code);
      if (Number.isNaN(value)) expect(decodeBf16(encodeBf16(value))).toBeNaN();
      else expect(encodeBf16(value)).toBe(code);
    }
  });

  test('rounds to the nearest, ties to even, into the next binade and to infinity', () => {
    expect(roundBf16(1 + 2 ** -8)).toBe(1);
    expect(roundBf16(1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6);
    expect(roundBf16(next(1 + 2 ** -8, 1))).toBe(1 + 2 ** -7);
    expect(roundBf16(next(2, -1))).toBe(2);
    expect(roundBf16(3.4028234663852886e38)).toBe(Infinity);
    expect(roundBf16(-Infinity)).toBe(-Infinity);
  });
});

describe('group scales', () => {
  test('are amax / 448, floored at amax 1e-4, rounded to float32', () => {
    expect(groupScale(448, 'f32')).toBe(1);
    expect(groupScale(0, 'f32')).toBe(Math.fround(Math.fround(1e-4) / 448));
  });

  test('round up to a power of two, exact powers staying and one unit above doubling', () => {
    for (let exponent = -18; exponent < 40; exponent++) {
      expect(groupScale(448 * 2 ** exponent, 'ue8m0')).toBe(2 ** exponent);
      expect(groupScale(next(448 * 2 ** exponent, 2), 'ue8m0')).toBe(2 ** (exponent + 1));
      expect(groupScale(next(448 * 2 ** exponent, -2), 'ue8m0')).toBe(2 ** exponent);
    }
  });
});

/** Values at which a rounding can go wrong, and random ones of every magnitude. */
function hardValues(seed: number): Float32Array {
  const random = seededRandom(seed);
  const values = [
    0,
    -0,
    1e-45,
    -1e-45,
    1.2e-38,
    Infinity,
    -Infinity,
    Number.NaN,
    3.4028234663852886e38,
  ];
  for (const code of finiteCodes.slice(0, -1)) {
    const middle = (decodeE4m3(code) + decodeE4m3(code + 1)) / 2;
    values.push(decodeE4m3(code), middle, -middle, next(middle, 1), -next(middle, 1));
    if (middle > 0) values.push(next(middle, -1));
  }
  for (const value of [1 + 2 ** -8, 1 + 3 * 2 ** -8, next(2, -1), 448, 464, 480]) {
    values.push(value, -value, next(value, 1), next(value, -1));
  }
  for (let i = 0; i < 4000; i++) values.push(random.normal() * 2 ** random.integer(-40, 40));
  for (let i = 0; i < 1000; i++) values.push(random.uniform() * 180 - 90);
  return Float32Array.from(values);
}

describe('the kernels', () => {
  test('hold the same codecs bit for bit, and exp within 2 units in the last place', async () => {
    const { backend } = await openTested(f32Numerics);
    const { arena, pool } = asCpu(CpuBackend, backend).context;
    const values = hardValues(7);
    const count = values.length;
    const x = arena.allocate(count * 4, 'activation', 'values');
    const out = arena.allocate(count * 28, 'activation', 'results');
    arena.f32.set(values, x / 4);
    pool.run({ op: opCodecs, tasks: 1, work: 0, arguments: [count, x, out] });
    const results = (index: number) =>
      arena.f32.slice(out / 4 + index * count, out / 4 + (index + 1) * count);
    const [bf16, e4m3, , scale, power, exp, decoded] = [0, 1, 2, 3, 4, 5, 6].map(results);
    const codes = arena.i32.slice(out / 4 + 2 * count, out / 4 + 3 * count);
    for (const [i, value] of values.entries()) {
      const where = `of ${value}, seed 7`;
      expect(bf16?.[i], `bf16 ${where}`).toBe(roundBf16(value));
      expect(codes[i], `code ${where}`).toBe(encodeE4m3(value));
      expect(e4m3?.[i], `e4m3 ${where}`).toBe(decodeE4m3(encodeE4m3(value)));
      expect(decoded?.[i], `decoded code ${where}`).toBe(decodeE4m3(encodeE4m3(value)));
      if (value > 0 && value < 1e38) {
        expect(scale?.[i], `scale ${where}`).toBe(groupScale(value, 'f32'));
        expect(power?.[i], `power of two ${where}`).toBe(groupScale(value, 'ue8m0'));
      }
      if (value > -87 && value < 88) {
        const exact = Math.exp(value);
        const unit = 2 ** (Math.floor(Math.log2(exact)) - 23);
        expect(Math.abs((exp?.[i] ?? 0) - exact) / unit, `exp ${where}`).toBeLessThan(2);
      } else if (value < -88) expect(exp?.[i]).toBe(0);
      else if (value > 89) expect(exp?.[i]).toBe(Infinity);
    }
    await backend.close();
  });
});
