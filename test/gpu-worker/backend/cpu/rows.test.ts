import { describe, expect, test } from 'vitest';
import type { Backend } from '../../../../gpu-worker/backend/backend.ts';
import type { Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  allNumerics,
  batchOf,
  difference,
  f32Numerics,
  fp8Numerics,
  openTested,
  openTwin,
  randomFloats,
  randomWeight,
} from '../../../support/gpu/backends.ts';
import type { Tested } from '../../../support/gpu/backends.ts';

/** Runs the same on the kernels and on the twin and returns what both say. */
async function both(
  numerics: (typeof allNumerics)[number]['numerics'],
  run: (tested: Tested) => Float32Array,
): Promise<{ actual: Float32Array; expected: Float32Array }> {
  const tested = await openTested(numerics, { rowsMax: 160 });
  const actual = run(tested);
  await tested.backend.close();
  return { actual, expected: run(openTwin(numerics)) };
}

/** One bfloat16 unit where results are rounded to it, else float32's error over short sums. */
function tolerance(numerics: { activations: string }): number {
  return numerics.activations === 'bf16' ? 2 ** -8 : 2e-6;
}

const columnCounts = [1, 3, 4, 7, 56, 96, 129, 257];

describe.each(allNumerics)('row ops in $name numerics', ({ numerics }) => {
  test.each(columnCounts)('norms of %i columns are the twin’s', async (columns) => {
    const rows = 5;
    const { actual, expected } = await both(numerics, ({ backend, filled, poison }) => {
      const random = seededRandom(columns);
      const x = filled(randomFloats(random, rows * columns, 3), columns);
      const residual = filled(randomFloats(random, rows * columns, 3), columns);
      const weight = backend.weights.vector('weight', randomFloats(random, columns));
      const bias = backend.weights.vector('bias', randomFloats(random, columns));
      const options = { rows, epsilon: 1e-6 };
      const results: Float32Array[] = [];
      const out = poison(backend.memory.tensor(rows, columns));
      backend.rows.rmsNorm(out, x, weight, options);
      results.push(backend.memory.read(out, rows));
      backend.rows.layerNorm(poison(out), x, { weight, bias }, options);
      results.push(backend.memory.read(out, rows));
      backend.rows.addRmsNorm(poison(out), residual, x, weight, options);
      results.push(backend.memory.read(out, rows), backend.memory.read(residual, rows));
      backend.rows.add(residual, x, rows);
      backend.rows.rmsNorm(x, x, weight, options);
      results.push(backend.memory.read(residual, rows), backend.memory.read(x, rows));
      return Float32Array.from(results.flatMap((result) => [...result]));
    });
    // A norm of one column divides a number by itself: all that is left of it is rounding.
    expect(difference(actual, expected)).toBeLessThan(tolerance(numerics) * 2);
  });

  test.each(columnCounts)(
    'activations of %i columns are the twin’s, in place too',
    async (columns) => {
      const { actual, expected } = await both(numerics, ({ backend, filled }) => {
        const random = seededRandom(columns);
        const values = randomFloats(random, 3 * columns, 8);
        values[0] = -200;
        const gate = filled(values, columns);
        const up = filled(randomFloats(random, 3 * columns), columns);
        backend.rows.siluMultiply(gate, gate, up, 3);
        return backend.memory.read(gate, 3);
      });
      expect(difference(actual, expected)).toBeLessThan(tolerance(numerics));
    },
  );

  test.each([
    { heads: 1, width: 16, start: 0, dim: 16 },
    { heads: 3, width: 11, start: 5, dim: 6 },
    { heads: 5, width: 24, start: 4, dim: 12 },
    { heads: 2, width: 2, start: 0, dim: 2 },
  ])('rotations of $dim of $width columns, $heads heads, are the twin’s', async (shape) => {
    const { heads, width, start, dim } = shape;
    const { actual, expected } = await both(numerics, ({ backend, filled }) => {
      const random = seededRandom(dim);
      const angles = Float32Array.from({ length: (50 * dim) / 2 }, (_, i) => i * 0.37);
      backend.rows.ropeTable({ cos: angles.map(Math.cos), sin: angles.map(Math.sin), dim });
      backend.batch.begin(batchOf([{ start: 43, rows: 7, blockTable: new Int32Array(1) }]));
      const x = filled(randomFloats(random, 7 * heads * width), heads * width);
      backend.rows.rotate(x, { rows: 7, heads, start, layout: 'interleaved' });
      const interleaved = backend.memory.read(x, 7);
      backend.rows.rotate(x, { rows: 7, heads, start, layout: 'half' });
      return Float32Array.of(...interleaved, ...backend.memory.read(x, 7));
    });
    expect(difference(actual, expected)).toBeLessThan(tolerance(numerics) * 2);
  });

  test.each([1, 2, 4, 8, 64, 128])('Hadamard transforms of %i are the twin’s', async (dim) => {
    const { actual, expected } = await both(numerics, ({ backend, filled }) => {
      const x = filled(randomFloats(seededRandom(dim), 3 * 5 * dim), 5 * dim);
      backend.rows.hadamard(x, { rows: 3, heads: 5 });
      return backend.memory.read(x, 3);
    });
    expect(difference(actual, expected)).toBeLessThan(tolerance(numerics));
  });

  test.each(['F32', 'BF16', 'F8_E4M3'] as const)('embeds %s rows exactly', async (dtype) => {
    const { actual, expected } = await both(numerics, ({ backend, poison }) => {
      const shape = { outputs: 133, inputs: 131, dtype };
      const table = backend.weights.matrix(randomWeight(seededRandom(3), shape));
      const tokens = Int32Array.of(0, 132, 7, 8, 128);
      const part = { start: 0, rows: 5, blockTable: new Int32Array(1) };
      backend.batch.begin({ ...batchOf([part]), tokens });
      const out = poison(backend.memory.tensor(5, 131));
      backend.rows.embed(out, table);
      return backend.memory.read(out, 5);
    });
    expect(actual).toEqual(expected);
  });
});

describe('row ops', () => {
  test('rotate x = 0..63 by hand: pairs (2i, 2i + 1), and pairs (i, i + 32)', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const quarter = { cos: new Float32Array(32), sin: new Float32Array(32).fill(1), dim: 64 };
    backend.rows.ropeTable(quarter);
    backend.batch.begin(batchOf([{ start: 0, rows: 1, blockTable: new Int32Array(1) }]));
    const x = Float32Array.from({ length: 64 }, (_, i) => i);
    const rotated = (layout: 'interleaved' | 'half') => {
      const tensor = filled(x, 64);
      backend.rows.rotate(tensor, { rows: 1, heads: 1, start: 0, layout });
      return backend.memory.read(tensor, 1);
    };
    // A quarter turn takes (a, b) to (-b, a).
    expect(rotated('interleaved')).toEqual(x.map((_, i) => (i % 2 === 0 ? -(i + 1) : i - 1)));
    expect(rotated('half')).toEqual(x.map((_, i) => (i < 32 ? -(i + 32) : i - 32)));
    await backend.close();
  });

  test('transform twice to what was there', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const values = randomFloats(seededRandom(5), 128);
    const x = filled(values, 128);
    backend.rows.hadamard(x, { rows: 1, heads: 1 });
    backend.rows.hadamard(x, { rows: 1, heads: 1 });
    expect(difference(backend.memory.read(x, 1), values)).toBeLessThan(1e-6);
    await backend.close();
  });

  test('norm the sum before it is rounded, and carry the rounded sum', async () => {
    const { backend, filled, poison } = await openTested(fp8Numerics);
    const residual = filled(Float32Array.of(1, 2), 2);
    const x = filled(Float32Array.of(2 ** -8, 0), 2);
    const weight = backend.weights.vector('weight', Float32Array.of(258, 258));
    const out = poison(backend.memory.tensor(1, 2));
    backend.rows.addRmsNorm(out, residual, x, weight, { rows: 1, epsilon: 0 });
    // 1 + 2^-8 rounds to 1 when carried; before that it makes the norm 164 instead of 163.
    expect(backend.memory.read(residual, 1)).toEqual(Float32Array.of(1, 2));
    expect(backend.memory.read(out, 1)[0]).toBe(164);
    await backend.close();
  });

  test('leave rows behind the last alone, and columns beside a view', async () => {
    const { backend, filled } = await openTested(f32Numerics);
    const values = randomFloats(seededRandom(6), 4 * 12);
    const x = filled(values, 12);
    const view = backend.memory.columns(x, 5, 3);
    backend.rows.add(view, view, 2);
    const expected = values.map((value, i) =>
      i < 24 && i % 12 >= 5 && i % 12 < 8 ? value * 2 : value,
    );
    expect(backend.memory.read(x, 4)).toEqual(expected);
    await backend.close();
  });

  test('gather rows in any order', async () => {
    const { backend, filled, poison } = await openTested(f32Numerics);
    const x = filled(Float32Array.of(0, 0, 1, 1, 2, 2), 2);
    const out = poison(backend.memory.tensor(4, 2));
    backend.rows.gatherRows(out, x, Int32Array.of(2, 0, 2, 1));
    expect([...backend.memory.read(out, 4)]).toEqual([2, 2, 0, 0, 2, 2, 1, 1]);
    await backend.close();
  });
});

describe('row ops refuse', () => {
  const refused: [string, (tested: { backend: Backend; x: Tensor }) => void, RegExp][] = [
    [
      'a Hadamard transform of 12',
      ({ backend, x }) => backend.rows.hadamard(x, { rows: 1, heads: 1 }),
      /power of two, not 12/,
    ],
    [
      'more rows than a tensor has',
      ({ backend, x }) => backend.rows.add(x, x, 3),
      /3 rows do not fit/,
    ],
    [
      'tensors of other widths',
      ({ backend, x }) => backend.rows.add(x, backend.memory.tensor(2, 11), 1),
      /11 columns where 12/,
    ],
    [
      'a view past the end',
      ({ backend, x }) => backend.memory.columns(x, 10, 3),
      /columns 10 to 13/,
    ],
    [
      'a rotation without a table',
      ({ backend, x }) => backend.rows.rotate(x, { rows: 1, heads: 1, start: 0, layout: 'half' }),
      /ropeTable/,
    ],
    [
      'a row that there is not',
      ({ backend, x }) => backend.rows.gatherRows(x, x, Int32Array.of(2)),
      /not in the tensor/,
    ],
    [
      'a norm of another length',
      ({ backend, x }) =>
        backend.rows.rmsNorm(x, x, backend.weights.vector('w', new Float32Array(4)), {
          rows: 1,
          epsilon: 0,
        }),
      /w has 4 elements/,
    ],
    [
      'an op before its step',
      ({ backend, x }) =>
        backend.rows.embed(
          x,
          backend.weights.matrix(
            randomWeight(seededRandom(1), { outputs: 4, inputs: 12, dtype: 'F32' }),
          ),
        ),
      /before batch\.begin/,
    ],
    [
      'another backend’s tensor',
      ({ backend, x }) =>
        backend.rows.add(x, openTwin(f32Numerics).backend.memory.tensor(2, 12), 1),
      /made by this backend/,
    ],
  ];
  test.each(refused)('%s', async (_, act, message) => {
    const { backend } = await openTested(f32Numerics);
    expect(() => act({ backend, x: backend.memory.tensor(2, 12) })).toThrow(message);
    await backend.close();
  });

  test('a token outside the vocabulary, and a position behind the rope table', async () => {
    const { backend } = await openTested(f32Numerics);
    const table = backend.weights.matrix(
      randomWeight(seededRandom(1), { outputs: 4, inputs: 12, dtype: 'F32' }),
    );
    const batch = batchOf([{ start: 3, rows: 1, blockTable: new Int32Array(1) }]);
    backend.batch.begin({ ...batch, tokens: Int32Array.of(4) });
    const x = backend.memory.tensor(1, 12);
    expect(() => backend.rows.embed(x, table)).toThrow(/not among the 4/);
    backend.rows.ropeTable({ cos: new Float32Array(9), sin: new Float32Array(9), dim: 6 });
    const options = { rows: 1, heads: 1, start: 0, layout: 'half' } as const;
    expect(() => backend.rows.rotate(x, options)).toThrow(/position 3/);
    await backend.close();
  });
});
