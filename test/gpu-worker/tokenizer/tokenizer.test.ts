import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TokenizerError } from '../../../gpu-worker/tokenizer/tokenizer-files.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { deepseek, deepseekFiles, tiny, tinyExpected, tinyFiles } from './fixture.ts';

const both = [
  ['the tiny model', tiny],
  ['DeepSeek', deepseek],
] as const;

const anyText = fc.string({ unit: 'binary' });

/** The text of each token. */
function pieces(tokenizer: Tokenizer, text: string): string[] {
  return Array.from(tokenizer.encode(text), (token) =>
    tokenizer.decode([token], { skipSpecial: false }),
  );
}

/** The pieces of text as the tokens arrive, the rest at the end included. */
function stream(tokenizer: Tokenizer, tokens: Iterable<number>): string[] {
  const detokenizer = tokenizer.createDetokenizer({ skipSpecial: true });
  const texts = Array.from(tokens, (token) => detokenizer.push(token));
  return [...texts, detokenizer.flush()];
}

function endTokens(eosTokenId: unknown): readonly number[] {
  return openTokenizer({ ...tinyFiles, generationConfig: { eos_token_id: eosTokenId } }).endTokens;
}

describe.each(both)('the tokenizer of %s', (_, tokenizer) => {
  test('decodes what it encoded, whatever the text', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text), { skipSpecial: false })).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  test('has tokens whose bytes are those of the text', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const tokens = tokenizer.encode(text, { controlTokens: false });
        const bytes = Array.from(tokens, (token) => tokenizer.tokenBytes(token));
        expect(Buffer.concat(bytes).toString()).toBe(text);
      }),
      { numRuns: 100 },
    );
  });

  test.each([
    ['nothing', ''],
    ['a byte order mark in front', '\uFEFFtext'],
    ['only a byte order mark', '\uFEFF'],
    ['emoji joined to one', '👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽'],
    ['accents as marks of their own', 'e\u0301 n\u0303'],
    ['scripts without spaces', '中文字符测试、日本語のテキスト。ภาษาไทย'],
    ['control characters', '\0\u0001\u007F\u0085\u00A0\u2028'],
    ['line ends of all kinds', 'a\r\nb\rc\n\n\n d\t\te  '],
  ])('keeps a text with %s', (_name, text) => {
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecial: true })).toBe(text);
  });

  test.each([
    ['letters', 'a'.repeat(100_000)],
    ['digits', '1234567890'.repeat(10_000)],
    ['spaces', ' '.repeat(100_000)],
    ['line ends', '\n'.repeat(100_000)],
    ['ideographs', '中文字符测试这是一个例子'.repeat(3_000)],
    ['exclamation marks', '!'.repeat(100_000)],
  ])('keeps a long run of %s', (_name, text) => {
    const tokens = tokenizer.encode(text);
    expect(tokenizer.decode(tokens, { skipSpecial: false }) === text).toBe(true);
  });

  test('turns half of a surrogate pair, which UTF-8 has no bytes for, into U+FFFD', () => {
    expect(tokenizer.decode(tokenizer.encode('a\uD83Db'), { skipSpecial: false })).toBe('a\uFFFDb');
  });

  test('finds its end token by the string in the configuration', () => {
    expect(tokenizer.endTokens).toEqual([1]);
  });
});

describe('the tiny tokenizer', () => {
  test('gives the ids of an independent implementation for every expected prompt', () => {
    for (const { prompt, input_ids: ids } of tinyExpected) {
      expect([...tiny.encode(prompt)]).toEqual(ids.slice(2, -1));
    }
  });

  test('takes digits one by one', () => {
    expect(pieces(tiny, 'is 48213.')).toEqual(['is', ' ', '4', '8', '2', '1', '3', '.']);
  });

  test('puts the begin token in front only when asked', () => {
    const plain = [...tiny.encode('Hello')];
    expect([...tiny.encode('Hello', { addSpecialTokens: true })]).toEqual([0, ...plain]);
    expect([...tiny.encode('', { addSpecialTokens: true })]).toEqual([0]);
  });

  test('has 4,096 ids, and control tokens by their strings', () => {
    expect(tiny.vocabSize).toBe(4096);
    expect(tiny.controlToken('</think>')).toBe(7);
    expect(tiny.controlToken('<|nothing|>')).toBeNull();
  });
});

describe('the DeepSeek tokenizer', () => {
  // Each expectation follows from the published pre-tokeniser: digits in threes, ideographs and
  // kana apart from the rest, one punctuation mark with the letters after it.
  test.each([
    ['12345678', ['123', '456', '78']],
    ['x1y22z', ['x', '1', 'y', '22', 'z']],
    ['.test', ['.test']],
    [' hello world', [' hello', ' world']],
    ['a  b', ['a', ' ', ' b']],
    ['a\n\n\nb', ['a', '\n\n\n', 'b']],
    ['end.\n\nNext', ['end', '.\n\n', 'Next']],
    ['你好world', ['你好', 'world']],
  ])('splits %j', (text, expected) => {
    expect(pieces(deepseek, text)).toEqual(expected);
  });

  test('gives the published ids', () => {
    expect([...deepseek.encode('Hello!', { addSpecialTokens: true })]).toEqual([0, 19923, 3]);
    expect(deepseek.controlToken('<｜User｜>')).toBe(128803);
    expect(deepseek.controlToken('<｜Assistant｜>')).toBe(128804);
  });

  test('has no meaning for ids of the padding, which decode to nothing', () => {
    expect(deepseek.vocabSize).toBe(128815);
    expect(deepseek.tokenBytes(129_279)).toHaveLength(0);
    expect(() => deepseek.tokenBytes(-1)).toThrow('not a token id');
    expect(() => deepseek.tokenBytes(0.5)).toThrow('not a token id');
  });
});

describe('control tokens in text', () => {
  test('become those tokens, the longest where several begin', () => {
    expect([...tiny.encode('<|user|>')]).toEqual([3]);
    expect([...tiny.encode('a<|end|>')]).toEqual([...tiny.encode('a'), 1]);
    const nested = openTokenizer({
      ...tinyFiles,
      tokenizerJson: {
        ...tinyFiles.tokenizerJson,
        added_tokens: [...tinyFiles.tokenizerJson.added_tokens, { id: 4096, content: '<|user|>+' }],
      },
    });
    expect([...nested.encode('<|user|>+<|user|>')]).toEqual([4096, 3]);
  });

  test('stay text when the caller says so', () => {
    const tokens = tiny.encode('<|user|>', { controlTokens: false });
    expect(tokens.length).toBeGreaterThan(1);
    expect(tiny.decode(tokens, { skipSpecial: true })).toBe('<|user|>');
  });

  test('make no difference to the text around them, wherever parts are cut', () => {
    const text = 'In the beginning 12345 was the word';
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 5 }), (cuts) => {
        const sorted = [0, ...cuts.toSorted((a, b) => a - b), text.length];
        const parts = sorted.slice(1).map((end, i) => ({
          kind: 'text' as const,
          text: text.slice(sorted[i], end),
        }));
        expect(tiny.encodeParts(parts)).toEqual(tiny.encode(text));
      }),
    );
  });

  test('are left out of text for people only if they are marked special', () => {
    const tokens = deepseek.encode('<｜begin▁of▁sentence｜>a<｜User｜>b<｜end▁of▁sentence｜>');
    expect(deepseek.decode(tokens, { skipSpecial: true })).toBe('a<｜User｜>b');
    expect(deepseek.decode(tokens, { skipSpecial: false })).toBe(
      '<｜begin▁of▁sentence｜>a<｜User｜>b<｜end▁of▁sentence｜>',
    );
  });
});

describe('streamed text', () => {
  /** The tokens of single bytes, so that every character is split as far as it can be. */
  const byteTokens = new Map(
    Array.from({ length: deepseek.vocabSize }, (_, token) => token)
      .filter((token) => deepseek.tokenBytes(token).length === 1)
      .map((token) => [deepseek.tokenBytes(token)[0] ?? 0, token]),
  );

  function tokensOfBytes(bytes: Iterable<number>): number[] {
    return Array.from(bytes, (byte) => byteTokens.get(byte) ?? -1);
  }

  test('comes in whole characters, however the tokens split them', () => {
    expect(byteTokens.size).toBe(256);
    const texts = stream(deepseek, tokensOfBytes(Buffer.from('aé€😀z')));
    expect(texts.filter((text) => text !== '')).toEqual(['a', 'é', '€', '😀', 'z']);
  });

  test('ends with a replacement character if the last character lacks bytes', () => {
    const bytes = Buffer.from('a😀').subarray(0, -1);
    expect(stream(deepseek, tokensOfBytes(bytes))).toEqual(['a', '', '', '', '\uFFFD']);
  });

  test('is the same as decoding all bytes at once, valid or not', () => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const hostile = fc.constantFrom(
      0x61,
      0x80,
      0xbf,
      0xc0,
      0xc3,
      0xe2,
      0xed,
      0xef,
      0xf0,
      0xf4,
      0xff,
    );
    const bytes = fc.uint8Array({ maxLength: 24 });
    fc.assert(
      fc.property(fc.oneof(bytes, fc.array(hostile, { maxLength: 12 })), (raw) => {
        const whole = decoder.decode(Uint8Array.from(raw));
        expect(stream(deepseek, tokensOfBytes(raw)).join('')).toBe(whole);
      }),
      { numRuns: 500 },
    );
  });

  test('keeps a byte order mark at the start, split or whole', () => {
    expect(stream(deepseek, tokensOfBytes(Buffer.from('\uFEFFa'))).join('')).toBe('\uFEFFa');
    expect(stream(deepseek, deepseek.encode('\uFEFFa')).join('')).toBe('\uFEFFa');
  });

  test('goes on over a skipped token inside a character', () => {
    const [first = 0, second = 0] = tokensOfBytes(Buffer.from('é'));
    expect(stream(deepseek, [first, 1, second])).toEqual(['', '', 'é', '']);
  });

  test('of joined emoji shows no broken character on the way', () => {
    const text = '👩‍👩‍👧‍👦🏳️‍🌈';
    for (const [, tokenizer] of both) {
      const texts = stream(tokenizer, tokenizer.encode(text));
      expect(texts.join('')).toBe(text);
      expect(texts.some((piece) => piece.includes('\uFFFD'))).toBe(false);
    }
  });
});

describe('begin and end tokens', () => {
  const json = tinyFiles.tokenizerJson;
  const config = tinyFiles.tokenizerConfig;

  test('come from the post-processor where the configuration says nothing of them', () => {
    const { add_bos_token: _bos, add_eos_token: _eos, ...silent } = config;
    const single = [
      { SpecialToken: { id: '<|begin|>', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: '<|end|>', type_id: 0 } },
    ];
    const template = { type: 'TemplateProcessing', single, pair: [], special_tokens: {} };
    const processors = [{ type: 'ByteLevel' }, template];
    for (const processor of [template, { type: 'Sequence', processors }]) {
      const tokenizer = openTokenizer({
        tokenizerJson: { ...json, post_processor: processor },
        tokenizerConfig: silent,
      });
      expect([...tokenizer.encode('', { addSpecialTokens: true })]).toEqual([0, 1]);
    }
  });

  test('that end a text include those of generation_config.json', () => {
    expect(endTokens([1, 3])).toEqual([1, 3]);
    expect(endTokens(5)).toEqual([1, 5]);
    expect(endTokens(undefined)).toEqual([1]);
  });

  test('that tokenizer.json lacks are refused', () => {
    const tokenizerConfig = { ...config, eos_token: '<|stop|>' };
    expect(() => openTokenizer({ tokenizerJson: json, tokenizerConfig })).toThrow(
      new TokenizerError('the token <|stop|> is not in tokenizer.json'),
    );
    expect(() =>
      openTokenizer({ tokenizerJson: json, tokenizerConfig: { add_bos_token: true } }),
    ).toThrow('add_bos_token is set, but there is no bos_token');
  });
});

test.each([
  ['no object', null, 'tokenizer.json'],
  ['no model', { model: undefined }, 'tokenizer.json: model'],
  ['another model than BPE', { model: { type: 'Unigram', vocab: [] } }, 'only BPE'],
  ['a vocabulary of text ids', { model: { type: 'BPE', vocab: { a: 'b' }, merges: [] } }, 'vocab'],
  ['a decoder that is not byte-level', { decoder: { type: 'Metaspace' } }, 'decoder is Metaspace'],
  ['no decoder', { decoder: null }, 'decoder is missing'],
  [
    'a byte-level decoder among others',
    { decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'ByteLevel' }] } },
    'decoder is Fuse, ByteLevel',
  ],
  [
    'another pre-tokenizer',
    { pre_tokenizer: { type: 'Whitespace' } },
    'pre_tokenizer is Whitespace',
  ],
  ['a normalizer', { normalizer: { type: 'NFC' } }, 'normalizer is not supported'],
  [
    'a token that takes the space before it',
    { added_tokens: [{ id: 1, content: 'x', lstrip: true }] },
    'added_tokens.0.lstrip: is not supported',
  ],
])('a tokenizer.json with %s is refused', (_, change, problem) => {
  const tokenizerJson = change === null ? null : { ...tinyFiles.tokenizerJson, ...change };
  const open = () => openTokenizer({ ...tinyFiles, tokenizerJson });
  expect(open).toThrow(TokenizerError);
  expect(open).toThrow(problem);
});

test('an empty normalizer, as DeepSeek has it, changes nothing', () => {
  expect(deepseekFiles.tokenizerJson.normalizer).toEqual({ type: 'Sequence', normalizers: [] });
});
