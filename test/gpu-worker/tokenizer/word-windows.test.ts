import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { eachWords } from '../../../gpu-worker/tokenizer/word-windows.ts';
import { TooManyTokensError } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { deepseek, deepseekFiles, tiny, tinyFiles } from './fixture.ts';
import type { TokenizerFixture } from './fixture.ts';

function preTokenizerOf({ tokenizerJson }: TokenizerFixture): (text: string) => string[] {
  const { pre_tokenizer: preTokenizer } = new Tokenizer(
    {
      model: { type: 'BPE', vocab: {}, merges: [] },
      // The files are published ones, which the library reads.
      pre_tokenizer: tokenizerJson.pre_tokenizer as { type: string },
      added_tokens: [],
      normalizer: null,
      post_processor: null,
      decoder: null,
    },
    {},
  );
  if (preTokenizer === null) throw new Error('the file has a pre-tokenizer');
  return (text) => preTokenizer.pre_tokenize(text);
}

function inWindows(text: string, preTokenize: (text: string) => string[]) {
  const words: string[] = [];
  let longest = 0;
  eachWords(
    text,
    (part) => {
      longest = Math.max(longest, part.length);
      return preTokenize(part);
    },
    { take: (some) => void words.push(...some), restart: () => void (words.length = 0) },
  );
  return { words, longest };
}

/** Runs of one kind after the other, some of them longer than a window. */
const run = fc
  .tuple(
    fc.constantFrom(
      'a',
      '7',
      ' ',
      '\n',
      '中',
      '.',
      '😀',
      '\ud83d',
      'é',
      'e\u0301',
      "it's ",
      ' \n',
      '\t',
      'x1 ',
    ),
    fc.oneof(fc.nat(40), fc.nat(40), fc.nat(3_000), fc.nat(30_000)),
  )
  .map(([text, count]) => text.repeat(count));
const longText = fc.array(run, { minLength: 3, maxLength: 30 }).map((runs) => runs.join(''));

test.each([
  ['the tiny model', tinyFiles],
  ['DeepSeek', deepseekFiles],
])('the words of windows are those of the whole text: %s', (_, files) => {
  const preTokenize = preTokenizerOf(files);
  const seed = Date.now();
  fc.assert(
    fc.property(longText, (text) => {
      expect(inWindows(text, preTokenize).words).toEqual(preTokenize(text));
    }),
    { seed, numRuns: 15 },
  );
});

test('a long text of short words is never read as a whole', () => {
  const text = 'the quick brown fox '.repeat(20_000);
  expect(inWindows(text, preTokenizerOf(tinyFiles)).longest).toBeLessThan(text.length / 10);
});

test('a text whose words depend on all of it is read as a whole', () => {
  const preTokenize = (text: string) => {
    const first = text.slice(0, text.length % 5);
    const rest = text.slice(first.length).match(/.{5}/gs) ?? [];
    return first === '' ? rest : [first, ...rest];
  };
  const text = 'abcdefg'.repeat(10_001);
  expect(inWindows(text, preTokenize).words).toEqual(preTokenize(text));
});

test.each([
  ['the tiny model', tiny],
  ['DeepSeek', deepseek],
])('a text with too many tokens is not encoded to its end: %s', (_, tokenizer) => {
  const text = 'The quick brown fox, 1234567 times. '.repeat(4_000);
  const tokens = tokenizer.encode(text);
  expect(tokenizer.encode(text, { tokensMax: tokens.length })).toEqual(tokens);
  const tooMany = (tokensMax: number) => {
    try {
      tokenizer.encode(text, { tokensMax });
    } catch (error) {
      if (error instanceof TooManyTokensError) return error.tokens;
      throw error;
    }
    return null;
  };
  expect(tooMany(1_000)).toBeGreaterThan(1_000);
  expect(tooMany(1_000)).toBeLessThanOrEqual(tokens.length);
  // So short a limit is passed by the bytes alone.
  expect(tooMany(10)).toBeLessThan(tokens.length);
});
