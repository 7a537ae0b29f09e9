import { Tokenizer as PublishedTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createBpe } from '../../../gpu-worker/tokenizer/bpe.ts';
import { byteAlphabet } from '../../../gpu-worker/tokenizer/byte-alphabet.ts';
import { TokenizerError } from '../../../gpu-worker/tokenizer/tokenizer-files.ts';
import { deepseek, deepseekFiles, tiny, tinyFiles } from './fixture.ts';

const bytes = Object.fromEntries(byteAlphabet.map((character, byte) => [character, byte]));

/** Merges by the definition: again and again the first of the pairs with the lowest rank. */
function mergeNaively(word: string, merges: readonly [string, string][]): string[] {
  let symbols = [...word];
  for (;;) {
    const found = merges.find(([a, b]) => symbols.some((s, i) => s === a && symbols[i + 1] === b));
    if (found === undefined) return symbols;
    const at = symbols.findIndex((s, i) => s === found[0] && symbols[i + 1] === found[1]);
    symbols = [...symbols.slice(0, at), found.join(''), ...symbols.slice(at + 2)];
  }
}

/** Merges over the letters a to c, each of tokens that are there by then, in a shuffled order. */
const merges = fc
  .array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 12 })
  .chain((choices) => {
    const tokens = ['a', 'b', 'c'];
    const pairs = new Map<string, [string, string]>();
    for (const [i, j] of choices) {
      const pair: [string, string] = [
        tokens[i % tokens.length] ?? 'a',
        tokens[j % tokens.length] ?? 'a',
      ];
      pairs.set(pair.join(' '), pair);
      if (!tokens.includes(pair.join(''))) tokens.push(pair.join(''));
    }
    const list = [...pairs.values()];
    return fc.shuffledSubarray(list, { minLength: list.length });
  });

function openBpe(list: readonly [string, string][]) {
  const tokens = [...new Set(list.map((pair) => pair.join('')))];
  const vocab = { ...bytes, ...Object.fromEntries(tokens.map((token, i) => [token, 256 + i])) };
  const textOf = new Map(Object.entries(vocab).map(([token, id]) => [id, token]));
  const bpe = createBpe({ vocab, merges: list });
  return (word: string): (string | undefined)[] => {
    const ids: number[] = [];
    bpe.encode(word, ids);
    return ids.map((id) => textOf.get(id));
  };
}

test.each([
  ['short', 24],
  ['long', 80],
])('%s words merge as the definition says, the second time too', (_, maxLength) => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength });
  fc.assert(
    fc.property(merges, fc.array(word, { maxLength: 5 }), (list, words) => {
      const encode = openBpe(list);
      for (const each of [...words, ...words]) {
        expect(encode(each)).toEqual(mergeNaively(each, list));
      }
    }),
    { numRuns: 300 },
  );
});

test('more words than are remembered are encoded alike', () => {
  const encode = openBpe([['a', 'b']]);
  for (let i = 0; i < 40_000; i++) encode(`ab${i}`);
  expect(encode('ab7')).toEqual(['ab', '7']);
});

describe.each([
  ['the tiny model', tiny, tinyFiles.tokenizerJson],
  ['DeepSeek', deepseek, deepseekFiles.tokenizerJson],
])('with the merges of %s', (_name, tokenizer, json) => {
  const published = new PublishedTokenizer(
    { ...json, added_tokens: [], post_processor: null, normalizer: null },
    {},
  );

  const encoded = (text: string) => [...tokenizer.encode(text, { controlTokens: false })];
  const expected = (text: string) => published.encode(text, { add_special_tokens: false }).ids;

  test('any text has the tokens that the published library gives it', () => {
    const letters = fc.string({ unit: fc.constantFrom(...'etaoin shrdlu.,\nETA09') });
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), letters), (text) => {
        fc.pre(text !== '');
        expect(encoded(text)).toEqual(expected(text));
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    ['one letter', 'a'.repeat(5_000)],
    ['spaces', ' '.repeat(5_000)],
    ['ideographs', '中文字符测试这是一个例子'.repeat(400)],
    ['letters of no language', Buffer.from('seed'.repeat(999)).toString('base64').repeat(2)],
  ])('a long run of %s does too', (_run, text) => {
    expect(encoded(text)).toEqual(expected(text));
  });
});

test('a vocabulary may lack the bytes that no text has', () => {
  const free = new Set([0xc0, 0xc1, 0xf5, 0xff].map((byte) => byteAlphabet[byte]));
  const present = Object.fromEntries(Object.entries(bytes).filter(([token]) => !free.has(token)));
  const ids: number[] = [];
  createBpe({ vocab: present, merges: [] }).encode('aÃ', ids);
  expect(ids).toEqual([97, 0xc3]);
});

test.each([
  ['a token that the vocabulary lacks', ['a z'], { ...bytes, b: 98 }, 'model.merges.0: "a z"'],
  ['a result that the vocabulary lacks', [['a', 'b']], bytes, 'model.merges.0: ["a","b"]'],
  ['no pair', ['a b', 7], { ...bytes, ab: 256 }, 'model.merges.1: 7'],
  ['every byte but one', [], { ...bytes, a: undefined }, 'no token for the byte 97'],
])('a vocabulary with merges of %s is refused', (_, list, vocab, problem) => {
  const present = Object.fromEntries(
    Object.entries(vocab).flatMap(([token, id]) => (id === undefined ? [] : [[token, id]])),
  );
  expect(() => createBpe({ vocab: present, merges: list })).toThrow(TokenizerError);
  expect(() => createBpe({ vocab: present, merges: list })).toThrow(problem);
});
