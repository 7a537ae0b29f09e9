/**
 * Whatever the tokens are, the answer fits: random schemas, random choices among the tokens that the
 * grammar allows, and an independent validator. Random answers are led to an end once they are long.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Grammar } from '../../../gpu-worker/grammar/grammar.ts';
import { faultOf, randomSchema } from '../../support/random-schema.ts';
import { keptGrammar, matcherOf, tokensOfMask } from '../../support/grammar-walk.ts';
import { tiny } from '../tokenizer/fixture.ts';

const matcher = matcherOf(tiny, 4096);
const [endToken] = tiny.endTokens;

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
        const text = randomAnswer(grammar, draws);
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

/** Null if it does not come to an end. */
function randomAnswer(grammar: Grammar, draws: readonly number[]): string | null {
  const cursor = matcher.start(grammar);
  const bytes: number[] = [];
  for (let step = 0; step < 600; step++) {
    const mask = cursor.mask();
    if (mask === null) return null;
    const tokens = tokensOfMask(mask);
    expect(tokens.length, 'there is always a token to go on with').toBeGreaterThan(0);
    const token = step < draws.length ? tokens[draws[step] % tokens.length] : closing(tokens);
    if (token === endToken) return Buffer.from(bytes).toString();
    expect(cursor.advance(token, tiny.tokenBytes(token))).toBe(true);
    bytes.push(...tiny.tokenBytes(token));
  }
  return null;
}

/** Low for tokens that most likely lead to an end. */
const ranks = Float64Array.from({ length: 4096 }, (_, token) => {
  if (token === endToken) return 0;
  const [first, ...others] = tiny.tokenBytes(token);
  const at = '}]"'.indexOf(String.fromCharCode(first ?? 0));
  return at >= 0 ? 1 + at : first > 0x20 ? 100 + others.length : 1000;
});

function closing(tokens: readonly number[]): number {
  return tokens.reduce((best, token) => (ranks[token] < ranks[best] ? token : best));
}
