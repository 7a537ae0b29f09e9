import { describe, expect, test } from 'vitest';
import type { HostTensor, WeightDtype } from '../../../../gpu-worker/backend/weights.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  allNumerics,
  difference,
  f32Numerics,
  fp8Numerics,
  openTested,
  openTwin,
  randomFloats,
  randomWeight,
} from '../../../support/gpu/backends.ts';
import type { Tested } from '../../../support/gpu/backends.ts';

const dtypes = ['F32', 'BF16', 'F8_E4M3'] as const;

/** Odd sizes, one block of scales and a little more, and more inputs than are decoded at a time. */
const shapes = [
  { rows: 1, inputs: 1, outputs: 1 },
  { rows: 2, inputs: 5, outputs: 9 },
  { rows: 3, inputs: 56, outputs: 24 },
  { rows: 7, inputs: 128, outputs: 128 },
  { rows: 66, inputs: 129, outputs: 130 },
  { rows: 131, inputs: 160, outputs: 20 },
  { rows: 5, inputs: 1100, outputs: 264 },
];

function product(
  { backend, filled, poison }: Tested,
  shape: { rows: number; inputs: number; outputs: number },
  dtype: WeightDtype,
): { linear: Float32Array; linearF32: Float32Array } {
  const { rows, inputs, outputs } = shape;
  const random = seededRandom(rows * inputs);
  const matrix = backend.weights.matrix(randomWeight(random, { outputs, inputs, dtype }));
  const x = filled(randomFloats(random, rows * inputs, 2), inputs);
  const out = poison(backend.memory.tensor(rows, outputs));
  backend.gemm.linear(out, x, matrix, rows);
  const linear = backend.memory.read(out, rows);
  backend.gemm.linearF32(poison(out), x, matrix, rows);
  return { linear, linearF32: backend.memory.read(out, rows) };
}

describe.each(allNumerics)('a linear op in $name numerics', ({ numerics }) => {
  const rounding = numerics.activations === 'bf16' ? 2 ** -8 : 4e-6;

  test.each(dtypes)('with an %s weight is the twin’s', async (dtype) => {
    const tested = await openTested(numerics);
    const twin = openTwin(numerics);
    for (const shape of shapes) {
      const actual = product(tested, shape, dtype);
      const expected = product(twin, shape, dtype);
      const where = JSON.stringify(shape);
      expect(difference(actual.linear, expected.linear), where).toBeLessThan(rounding);
      expect(difference(actual.linearF32, expected.linearF32), where).toBeLessThan(4e-6);
    }
    await tested.backend.close();
  });

  test.each(dtypes)('absorbs an %s kv_b as the twin does', async (dtype) => {
    const shape = { heads: 3, nopeDim: 24, valueDim: 56 };
    const [latent, rope, rows] = [130, 6, 9];
    const results = (tested: Tested) => {
      const { backend, filled, poison } = tested;
      const random = seededRandom(11);
      const source = randomWeight(random, { outputs: 3 * 80, inputs: latent, dtype });
      const kv = backend.weights.absorb(source, shape);
      const q = filled(randomFloats(random, rows * 3 * (24 + rope)), 3 * (24 + rope));
      const to = poison(backend.memory.tensor(rows, 3 * (latent + rope)));
      backend.gemm.toLatent(to, q, kv, rows);
      const attended = filled(randomFloats(random, rows * 3 * latent), 3 * latent);
      const from = poison(backend.memory.tensor(rows, 3 * 56));
      backend.gemm.fromLatent(from, attended, kv, rows);
      return [backend.memory.read(to, rows), backend.memory.read(from, rows)];
    };
    const tested = await openTested(numerics);
    const expected = results(openTwin(numerics));
    for (const [i, actual] of results(tested).entries()) {
      expect(difference(actual, expected[i] ?? actual)).toBeLessThan(rounding);
    }
    await tested.backend.close();
  });
});

describe('a linear op', () => {
  test('reads and writes views, and touches nothing beside them', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const random = seededRandom(12);
    const matrix = backend.weights.matrix(
      randomWeight(random, { outputs: 11, inputs: 7, dtype: 'F32' }),
    );
    const values = randomFloats(random, 6 * 20);
    const whole = filled(values, 20);
    const plain = filled(
      values.filter((_, i) => i % 20 >= 3 && i % 20 < 10),
      7,
    );
    const expected = backend.memory.tensor(6, 11);
    backend.gemm.linear(expected, plain, matrix, 6);
    const out = filled(new Float32Array(6 * 15).fill(5), 15);
    backend.gemm.linear(
      backend.memory.columns(out, 2, 11),
      backend.memory.columns(whole, 3, 7),
      matrix,
      6,
    );
    const read = backend.memory.read(out, 6);
    expect(read.filter((_, i) => i % 15 >= 2 && i % 15 < 13)).toEqual(
      backend.memory.read(expected, 6),
    );
    expect(read.filter((_, i) => i % 15 < 2 || i % 15 >= 13).every((v) => v === 5)).toBe(true);
    await backend.close();
  });

  test.each([f32Numerics, fp8Numerics])(
    'gives NaN, not 480, where an e4m3 weight is NaN',
    async (numerics) => {
      const { backend, filled } = await openTested(numerics);
      const bytes = new Uint8Array(9 * 3).fill(0x38);
      bytes[4] = 0x7f;
      bytes[26] = 0xff;
      const source = {
        name: 'w',
        dtype: 'F8_E4M3',
        shape: [9, 3],
        bytes,
        scales: Float32Array.of(1),
      } as const;
      const out = backend.memory.tensor(1, 9);
      backend.gemm.linear(
        out,
        filled(Float32Array.of(1, 1, 1), 3),
        backend.weights.matrix(source),
        1,
      );
      expect([...backend.memory.read(out, 1)].map(Number.isNaN)).toEqual([
        false,
        true,
        false,
        false,
        false,
        false,
        false,
        false,
        true,
      ]);
      await backend.close();
    },
  );

  test('takes weights that start at an odd byte of a file', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const bytes = new Uint8Array(9);
    bytes.set(new Uint8Array(Float32Array.of(2, 3).buffer), 1);
    const source: HostTensor = {
      name: 'w',
      dtype: 'F32',
      shape: [1, 2],
      bytes: bytes.subarray(1),
      scales: null,
    };
    const out = backend.memory.tensor(1, 1);
    backend.gemm.linear(out, filled(Float32Array.of(1, 10), 2), backend.weights.matrix(source), 1);
    expect(backend.memory.read(out, 1)[0]).toBe(32);
    await backend.close();
  });

  const good: HostTensor = {
    name: 'w',
    dtype: 'F8_E4M3',
    shape: [2, 129],
    bytes: new Uint8Array(258),
    scales: new Float32Array(2),
  };
  test.each<[string, HostTensor, RegExp]>([
    ['too few bytes', { ...good, bytes: new Uint8Array(257) }, /w has 257 bytes/],
    ['missing scales', { ...good, scales: null }, /wrong number of scales/],
    ['scales of another shape', { ...good, scales: new Float32Array(1) }, /wrong number of scales/],
    ['one dimension', { ...good, shape: [258] }, /w is no matrix/],
  ])('refuses a weight with %s', async (_, source, message) => {
    const { backend } = await openTested(f32Numerics);
    expect(() => backend.weights.matrix(source)).toThrow(message);
    await backend.close();
  });
});
