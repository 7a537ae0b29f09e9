/**
 * Whatever the tokens are, the answer fits: random schemas, random choices among the tokens that
 * the grammar allows, and an independent validator. Random answers are led to an end once they are
 * long.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { faultOf, randomSchema } from '../../support/schemas/random-schema.ts';
import { keptGrammar, matcherOf } from '../../support/schemas/grammar-walk.ts';
import { randomAnswer } from '../../support/worker/random-answer.ts';
import { tiny } from '../tokenizer/fixture.ts';

const matcher = matcherOf(tiny, 4096);

test('a random answer is JSON of the schema', () => {
  const seed = Date.now();
  let ended = 0;
  fc.assert(
    fc.property(
      randomSchema,
      fc.array(fc.nat(2 ** 30), { minLength: 60, maxLength: 60 }),
      (schema, draws) => {
        const grammar = keptGrammar(schema);
        if (grammar === null) return;
        const text = randomAnswer(matcher, grammar, draws);
        if (text === null) return;
        ended++;
        const value: unknown = JSON.parse(text);
        expect(faultOf(schema, value), text).toBe(null);
      },
    ),
    { seed, numRuns: 150 },
  );
  expect(ended, `seed ${seed}`).toBeGreaterThan(70);
});
