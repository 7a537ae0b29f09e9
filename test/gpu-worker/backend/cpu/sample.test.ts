import { expect, test } from 'vitest';
import type { Draw } from '../../../../gpu-worker/backend/draw.ts';
import { seededRandom } from '../../../support/random.ts';
import { f32Numerics, openTested } from '../../../support/gpu/backends.ts';
import { PlainBackend } from '../../../support/gpu/plain-backend.ts';

const greedy: Draw = { temperature: 0, topK: 0, topP: 1, minP: 0, unit: 0 };

test('each row is drawn by its own options, as the plain twin draws it', async () => {
  const random = seededRandom(31);
  const { backend, filled } = await openTested(f32Numerics);
  const plain = new PlainBackend(f32Numerics);
  const [rows, columns] = [64, 97];
  for (let round = 0; round < 20; round++) {
    const values = Float32Array.from({ length: rows * columns }, () => random.normal() * 3);
    const draws = Array.from({ length: rows }, (_, r): Draw => ({
      temperature: r % 7 === 0 ? 0 : 0.3 + random.uniform() * 2,
      topK: r % 3 === 0 ? 0 : 1 + Math.floor(random.uniform() * columns * 1.2),
      topP: r % 4 === 0 ? 1 : 0.05 + 0.9 * random.uniform(),
      minP: r % 5 === 0 ? random.uniform() / 3 : 0,
      unit: random.uniform(),
    }));
    const twin = plain.memory.tensor(rows, columns);
    plain.memory.fill(twin, values);
    expect(backend.sampling.sample(filled(values, columns), draws)).toEqual(
      plain.sampling.sample(twin, draws),
    );
  }
  await backend.close();
});

test('rows that are no distribution give null, and only they', async () => {
  const { backend, filled } = await openTested(f32Numerics);
  const values = Float32Array.of(
    1,
    3,
    3,
    2,
    Number.NaN,
    9,
    Infinity,
    0,
    -Infinity,
    -Infinity,
    0,
    5,
  );
  const rows = filled(values, 2);
  const draws = values.slice(0, 6);
  const warm: Draw = { ...greedy, temperature: 1, unit: 0.999 };
  expect(
    backend.sampling.sample(
      rows,
      Array.from(draws, () => greedy),
    ),
  ).toEqual([1, 0, null, null, null, 1]);
  expect(
    backend.sampling.sample(
      rows,
      Array.from(draws, () => warm),
    ),
  ).toEqual([1, 1, null, null, null, 1]);
  await backend.close();
});
