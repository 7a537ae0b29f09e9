/**
 * Tokens drawn on the GPU are those of the cpu backend, to the bit, whatever the row and the
 * filters.
 */
import { createDrawScratch, drawToken } from '../../../../../gpu-worker/backend/draw.ts';
import type { Draw } from '../../../../../gpu-worker/backend/draw.ts';
import { test } from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import type { Random } from '../../../../support/random.ts';
import { f32Numerics } from '../../../../support/gpu/backends.ts';
import { isSmall, openCudaTested } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const cuda = await openCudaTested(f32Numerics);

/** Rows that a model could give, and some that only a broken one could. */
const kinds: Readonly<Record<string, (random: Random, i: number) => number>> = {
  'a bell': (random) => random.normal() * 3,
  'a peaked bell': (random, i) => random.normal() * 2 + (i % 1000 === 3 ? 15 : 0),
  'many ties': (random) => Math.floor(random.normal() * 3) / 2,
  'all equal': () => 1.25,
  'two values': (_random, i) => (i % 3 === 0 ? 2 : -2),
  'a crowd in one place': (random, i) =>
    i % 50 === 0 ? random.normal() : 5 + random.uniform() / 1e5,
  'mostly impossible': (random) => (random.uniform() < 0.99 ? -Infinity : random.normal()),
  'huge values': (random) => random.normal() * 1e38,
  'signed zeros': (_random, i) => (i % 2 === 0 ? -0 : 0),
  'one not a number': (random, i) => (i === 4 ? Number.NaN : random.normal()),
  'one infinite': (random, i) => (i === 2 ? Infinity : random.normal()),
  'all impossible': () => -Infinity,
};

function randomDraw(random: Random, vocabSize: number): Draw {
  return {
    temperature: random.choose([0, 1e-300, 0.01, 0.6, 0.7, 1, 1, 1.3, 2, 100]),
    topK: random.choose([0, 0, 1, 2, 20, 50, vocabSize - 1, vocabSize, vocabSize + 5]),
    topP: random.choose([1, 1, 0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999999, 1 - 2 ** -53]),
    minP: random.choose([0, 0, 0, 1e-12, 0.01, 0.1, 1]),
    unit: random.choose([0, 1 - 2 ** -53, random.uniform(), random.uniform(), random.uniform()]),
  };
}

for (const vocabSize of isSmall ? [5, 4097] : [1, 2, 5, 97, 4096, 4097, 8190, 129_280]) {
  for (const [kind, value] of Object.entries(kinds)) {
    await test(`${vocabSize} tokens, ${kind}`, () => {
      const random = seededRandom(seed + vocabSize);
      const rows = isSmall ? 8 : vocabSize > 10_000 ? 24 : 96;
      const one = Float32Array.from({ length: vocabSize }, (_, i) => value(random, i));
      const values = new Float32Array(rows * vocabSize);
      // Rotated rows: the same values at other indices.
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < vocabSize; i++) {
          values[r * vocabSize + i] = one[(i + r * 37) % vocabSize] ?? 0;
        }
      }
      const draws = Array.from({ length: rows }, () => randomDraw(random, vocabSize));
      const logits = cuda.filled(values, vocabSize, 'f32');
      const actual = cuda.backend.sampling.sample(logits, draws);
      const scratch = createDrawScratch(vocabSize);
      const expected = draws.map((draw, r) =>
        drawToken(values.subarray(r * vocabSize, (r + 1) * vocabSize), draw, scratch),
      );
      const wrong = expected.findIndex((token, r) => token !== actual[r]);
      if (wrong >= 0) {
        throw new Error(
          `row ${wrong}: ${actual[wrong]}, not ${expected[wrong]}, by ${JSON.stringify(draws[wrong])}`,
        );
      }
      if (cuda.backend.sampling.sample(logits, draws).join() !== actual.join()) {
        throw new Error('a second run drew other tokens');
      }
    });
  }
}
await cuda.backend.close();
