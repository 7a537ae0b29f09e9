/** Masks against a plain reading of every token, and JSON of all kinds against the grammars. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import {
  grammarBytes,
  GrammarBuilder,
  RecentGrammars,
} from '../../../gpu-worker/grammar/grammar.ts';
import type { Grammar } from '../../../gpu-worker/grammar/grammar.ts';
import { JsonWriter } from '../../../gpu-worker/grammar/json-schema.ts';
import { Vocabulary } from '../../../gpu-worker/grammar/vocabulary.ts';
import { Matcher } from '../../../gpu-worker/grammar/matcher.ts';
import {
  matcherOf,
  objectGrammar,
  keptGrammar,
  schemaGrammar,
  tokensOfMask,
} from '../../support/schemas/grammar-walk.ts';
import { randomSchema } from '../../support/schemas/random-schema.ts';
import { tiny } from '../tokenizer/fixture.ts';

const vocabSize = 4096;
const matcher = matcherOf(tiny, vocabSize);
const [endToken] = tiny.endTokens;

/** Counts the tokens that the grammar lets through, and tells if it may end there. */
function follow(
  grammar: Grammar,
  tokens: Iterable<number>,
): { taken: number; isComplete: boolean } {
  const cursor = matcher.start(grammar);
  let taken = 0;
  for (const token of tokens) {
    const mask = cursor.mask();
    const isAllowed = mask !== null && ((at(mask, token >>> 5) >>> (token & 31)) & 1) === 1;
    expect(cursor.advance(token, tiny.tokenBytes(token))).toBe(isAllowed);
    if (!isAllowed) return { taken, isComplete: false };
    taken++;
  }
  return { taken, isComplete: cursor.isComplete };
}

function takes(grammar: Grammar, text: string): boolean {
  return follow(grammar, tiny.encode(text)).isComplete;
}

function grammarOf(schema: object): Grammar {
  const grammar = schemaGrammar(schema);
  if (grammar === null || grammar === 'endless') throw new Error('the schema allows something');
  return grammar;
}

test('a mask has exactly the tokens that can be read, byte by byte', () => {
  const seed = Date.now();
  let states = 0;
  fc.assert(
    fc.property(randomSchema, fc.array(fc.nat(2 ** 30), { maxLength: 8 }), (schema, draws) => {
      const grammar = keptGrammar(schema);
      if (grammar === null) return;
      const prefix: number[] = [];
      const cursor = matcher.start(grammar);
      for (const draw of draws) {
        const tokens = tokensOfMask(cursor.mask() ?? new Uint32Array());
        const token = at(tokens, draw % tokens.length);
        if (token === endToken) break;
        cursor.advance(token, tiny.tokenBytes(token));
        prefix.push(token);
      }
      const readable = Array.from({ length: vocabSize }, (_, token) => token).filter((token) => {
        if (token === endToken) return cursor.isComplete;
        if ([...tiny.controlTokens.values()].includes(token)) return false;
        const other = matcher.start(grammar);
        for (const each of prefix) other.advance(each, tiny.tokenBytes(each));
        return other.advance(token, tiny.tokenBytes(token));
      });
      expect(tokensOfMask(cursor.mask() ?? new Uint32Array())).toEqual(readable);
      states++;
    }),
    { seed, numRuns: 60 },
  );
  expect(states, `seed ${seed}`).toBeGreaterThan(30);
});

describe('an object', () => {
  test('is every object, however JSON.stringify is told to write it', () => {
    const grammar = objectGrammar();
    const seed = Date.now();
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.string({ unit: 'grapheme' }),
          fc.jsonValue({ stringUnit: 'grapheme', maxDepth: 6 }),
        ),
        fc.constantFrom(undefined, 1, 2, '\t'),
        (value, indent) => {
          const isNear = (each: unknown): boolean =>
            typeof each !== 'number' || Math.abs(each) < 1e279;
          fc.pre(everyLeaf(value, isNear));
          expect(takes(grammar, JSON.stringify(value, null, indent))).toBe(true);
        },
      ),
      { seed, numRuns: 120 },
    );
  });

  test('has white space of one kind, and little of it', () => {
    const grammar = objectGrammar();
    for (const space of ['', ' ', '\n', '\r\n', `\n${' '.repeat(16)}`, `\n${'\t'.repeat(16)}`]) {
      const text = `{${space}"a":${space}[1,${space}2${space}]${space}}`;
      expect(takes(grammar, text), JSON.stringify(space)).toBe(true);
    }
    for (const space of ['  ', '\n\n', `\n${' '.repeat(17)}`, '\n\t ', '\n \t']) {
      for (const text of [`{${space}"a":1}`, `{"a":${space}1}`, `{"a":1${space}}`]) {
        expect(takes(grammar, text), JSON.stringify(text)).toBe(false);
      }
    }
  });

  test('is nothing else', () => {
    const grammar = objectGrammar();
    const others = [
      '',
      '[]',
      '"a"',
      '{',
      '{}}',
      '{"a"}',
      '{"a":1,}',
      '{a:1}',
      "{'a':1}",
      ' {}',
      '{} ',
    ];
    for (const text of [...others, '{"a":1 "b":2}', '{"a":01}', '{"a":\n\n1}', '{"a":  1}']) {
      expect(takes(grammar, text), text).toBe(false);
    }
    expect(takes(grammar, '{"a": 1, "b": [ true,\n      null]}')).toBe(true);
  });

  test('has its properties in their order, and the optional ones or not', () => {
    const grammar = grammarOf({
      type: 'object',
      properties: { a: { type: 'null' }, b: { type: 'null' }, c: { type: 'null' } },
      required: ['b'],
      additionalProperties: false,
    });
    for (const names of ['b', 'ab', 'bc', 'abc'])
      expect(takes(grammar, objectOf(names)), names).toBe(true);
    for (const names of ['', 'a', 'c', 'ac', 'ba', 'cb', 'bb', 'bd']) {
      expect(takes(grammar, objectOf(names)), names).toBe(false);
    }
  });

  test('takes other properties last, and none twice in another name', () => {
    const grammar = grammarOf({
      type: 'object',
      properties: { a: { type: 'null' } },
      required: ['z'],
      additionalProperties: { type: 'null' },
    });
    for (const names of ['z', 'az', 'zb', 'azbc'])
      expect(takes(grammar, objectOf(names)), names).toBe(true);
    expect(takes(grammar, '{"a":null,"z":null,"\\u0061":null}')).toBe(false);
    expect(takes(grammar, objectOf('ab'))).toBe(false);
  });

  function objectOf(names: string): string {
    return `{${[...names].map((name) => `"${name}":null`).join(',')}}`;
  }
});

describe('an array', () => {
  test.each([
    [{}, [0, 1, 2, 3, 5]],
    [{ minItems: 2 }, [2, 3, 5]],
    [{ maxItems: 2 }, [0, 1, 2]],
    [{ minItems: 1, maxItems: 3 }, [1, 2, 3]],
    [{ minItems: 2, maxItems: 2 }, [2]],
    [{ maxItems: 0 }, [0]],
  ])('of %j has as many items', (count, lengths) => {
    const grammar = grammarOf({ type: 'array', items: { type: 'null' }, ...count });
    const fitting = [0, 1, 2, 3, 5].filter((length) =>
      takes(grammar, JSON.stringify(Array.from({ length }, () => null))),
    );
    expect(fitting).toEqual(lengths);
  });
});

test('values may refer to themselves, and to one another', () => {
  const grammar = grammarOf({
    $ref: '#/$defs/list~1of%20all',
    $defs: {
      'list/of all': { type: 'array', items: { anyOf: [{ $ref: '#' }, { $ref: '#/$defs/n' }] } },
      n: { type: 'integer' },
    },
  });
  expect(takes(grammar, '[[1,[]],2,[[[3]]]]')).toBe(true);
  expect(takes(grammar, '[[1,null]]')).toBe(false);
});

test('what nests too deeply is not let through, and the rest can still be closed', () => {
  const grammar = objectGrammar();
  const { taken } = follow(grammar, [...tiny.encode('{"a":'), ...repeat(tiny.encode('['), 2000)]);
  expect(taken).toBeGreaterThan(500);
  expect(taken).toBeLessThan(600);
  const deep = 400;
  expect(takes(grammar, `{"a":${'['.repeat(deep)}${']'.repeat(deep)}}`)).toBe(true);
});

test('many ways of reading one text do not multiply', () => {
  // At each depth the list may be of either kind, which only its end decides.
  const list = (end: object): object => ({
    type: 'array',
    items: { anyOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/b' }, end] },
  });
  const grammar = grammarOf({
    anyOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/b' }],
    $defs: { a: list({ type: 'integer' }), b: list({ type: 'string' }) },
  });
  const deep = 200;
  expect(takes(grammar, `${'['.repeat(deep)}1${']'.repeat(deep)}`)).toBe(true);
});

test('tokens of equal bytes are allowed together, and those without bytes never', () => {
  const words = ['', '"', 'a', 'ab', 'a', '"a', 'b"', ''];
  const vocabulary = new Vocabulary({
    size: words.length,
    tokenBytes: (token) => Buffer.from(at(words, token)),
    isControl: (token) => token === 3,
  });
  const own = new Matcher(vocabulary, [7]);
  const cursor = own.start(grammarOf({ type: 'string', pattern: '^[ab]+$' }));
  const next = (token: number): number[] => {
    expect(cursor.advance(token, Buffer.from(at(words, token)))).toBe(true);
    return tokensOfMask(cursor.mask() ?? new Uint32Array());
  };
  expect(tokensOfMask(cursor.mask() ?? new Uint32Array())).toEqual([1, 5]);
  expect(next(1)).toEqual([2, 4, 6]);
  expect(next(4)).toEqual([1, 2, 4, 6]);
  expect(next(6)).toEqual([7]);
});

test('control tokens stand only where the grammar has them', () => {
  const builder = new GrammarBuilder();
  const [start, inside, end] = [builder.node(), builder.node(), builder.node({ isFinal: true })];
  const json = new JsonWriter(builder);
  json.textWithout(start, 'mark', inside);
  builder.token(inside, 6, end);
  const grammar = builder.build(start);
  if (grammar === null || grammar === 'endless') throw new Error('there is a way through');
  const cursor = matcher.start(grammar);
  const allowed = new Set(tokensOfMask(cursor.mask() ?? new Uint32Array()));
  expect([0, 1, 2, 3, 4, 5, 6, 7].filter((token) => allowed.has(token))).toEqual([6]);
  expect(allowed.size).toBeGreaterThan(vocabSize - 20);
  expect(cursor.advance(6, tiny.tokenBytes(6))).toBe(true);
  expect(tokensOfMask(cursor.mask() ?? new Uint32Array())).toEqual([endToken]);
});

test('of grammars the latest are kept, as many and as large as may be', () => {
  const [small, large] = [
    grammarOf({ enum: ['a'] }),
    grammarOf({ type: 'string', maxLength: 300 }),
  ];
  const room = { countMax: 2, bytesMax: 2 * grammarBytes(large) };
  const recent = new RecentGrammars<string>(room);
  const made: string[] = [];
  const ask = (key: string, grammar = small): void => {
    const value = recent.get(key, () => {
      made.push(key);
      return { value: key, grammar };
    });
    expect(value).toBe(key);
  };
  for (const key of ['a', 'b', 'a', 'c', 'a', 'b']) ask(key);
  expect(made.splice(0)).toEqual(['a', 'b', 'c', 'b']);
  const bytes = new RecentGrammars<number>({ countMax: 9, bytesMax: grammarBytes(large) });
  const sizes = [1, 2, 1].map((each) =>
    bytes.get(String(each), () => ({ value: made.push(''), grammar: large })),
  );
  expect(sizes).toEqual([1, 2, 3]);
});

function everyLeaf(value: unknown, holds: (leaf: unknown) => boolean): boolean {
  if (typeof value !== 'object' || value === null) return holds(value);
  return Object.values(value).every((each) => everyLeaf(each, holds));
}

function repeat(tokens: Int32Array, times: number): number[] {
  return Array.from({ length: times }, () => [...tokens]).flat();
}
