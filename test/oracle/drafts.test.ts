import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { argmax } from '../support/worker/golden.ts';
import { loadOracle } from './checkpoint.ts';
import { oracleDrafts } from './forward.ts';

const directory = join(import.meta.dirname, '../../gpu-worker/models/tiny');
const casesSchema = z.array(z.object({ input_ids: z.array(z.int()), greedy: z.array(z.int()) }));
/** A case of thousands of tokens takes minutes in float64. */
const tokensMax = 64;

test('the demo model drafts the tokens of its own short answers', () => {
  const text = readFileSync(join(directory, 'expected.json'), 'utf8');
  const cases = casesSchema.parse(JSON.parse(text));
  const oracle = loadOracle(directory);
  const short = cases.filter(({ input_ids: ids }) => ids.length < tokensMax);
  expect(short.length).toBeGreaterThan(1);
  const isRight = short.flatMap(({ input_ids: prompt, greedy }) => {
    const tokens = [...prompt, ...greedy];
    const drafts = oracleDrafts(oracle, tokens).map(argmax);
    // The draft at t is of token t + 2; those of the answer but for its first two are asked about.
    return greedy.slice(2).map((token, index) => drafts[prompt.length + index] === token);
  });
  expect(isRight.length).toBeGreaterThan(20);
  expect(isRight).toEqual(isRight.map(() => true));
});
