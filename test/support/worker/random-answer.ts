/** Random answers of the tiny model's tokens in a grammar, led to an end once they are long. */
import { expect } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import type { Grammar } from '../../../gpu-worker/grammar/grammar.ts';
import type { Matcher } from '../../../gpu-worker/grammar/matcher.ts';
import { tiny } from '../../gpu-worker/tokenizer/fixture.ts';
import { tokensOfMask } from '../schemas/grammar-walk.ts';

const [endToken] = tiny.endTokens;

/** Null if it does not come to an end. */
export function randomAnswer(
  matcher: Matcher,
  grammar: Grammar,
  draws: readonly number[],
): string | null {
  const cursor = matcher.start(grammar);
  const bytes: number[] = [];
  for (let step = 0; step < 600; step++) {
    const mask = cursor.mask();
    if (mask === null) return null;
    const tokens = tokensOfMask(mask);
    expect(tokens.length, 'there is always a token to go on with').toBeGreaterThan(0);
    const draw = draws[step];
    const token = draw === undefined ? closing(tokens) : at(tokens, draw % tokens.length);
    if (token === endToken) return Buffer.from(bytes).toString();
    expect(cursor.advance(token, tiny.tokenBytes(token))).toBe(true);
    bytes.push(...tiny.tokenBytes(token));
  }
  return null;
}

/** Low for tokens that most likely lead to an end. */
const ranks = Float64Array.from({ length: 4096 }, (_, token) => {
  if (token === endToken) return 0;
  const [first = 0, ...others] = tiny.tokenBytes(token);
  const place = '}]"'.indexOf(String.fromCharCode(first));
  return place >= 0 ? 1 + place : first > 0x20 ? 100 + others.length : 1000;
});

function closing(tokens: readonly number[]): number {
  return tokens.reduce((best, token) => (at(ranks, token) < at(ranks, best) ? token : best));
}
