/**
 * Calls that a model without any sense writes under the grammar of its format: they parse, and
 * their arguments fit the schema.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { argumentTypes } from '../../../gpu-worker/chat-formats/argument-types.ts';
import { addToCalls, markBegunLength } from '../../../gpu-worker/chat-formats/call-parser.ts';
import type { ChatFormat } from '../../../gpu-worker/chat-formats/chat-format.ts';
import { openChatFormat } from '../../../gpu-worker/chat-formats/chat-formats.ts';
import { v32Marks } from '../../../gpu-worker/chat-formats/deepseek-v32.ts';
import { createOutputGrammars } from '../../../gpu-worker/http/request/output-grammar.ts';
import type {
  OutputGrammars,
  OutputRules,
} from '../../../gpu-worker/http/request/output-grammar.ts';
import type { Matcher } from '../../../gpu-worker/grammar/matcher.ts';
import type { Tool, ToolCall } from '../../../gpu-worker/protocol/messages.ts';
import { dsmlMark } from '../../../gpu-worker/tokenizer/call-marks.ts';
import { openTokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../../gpu-worker/tokenizer/tokenizer.ts';
import { seededRandom } from '../../support/random.ts';
import { matcherOf, tokensOfMask } from '../../support/schemas/grammar-walk.ts';
import { faultOf } from '../../support/schemas/random-schema.ts';
import type { Schema } from '../../support/schemas/random-schema.ts';
import { formatModel } from '../../support/worker/format-models.ts';
import type { FormatModel } from '../../support/worker/format-models.ts';
import { tinyFiles } from '../tokenizer/fixture.ts';

/** The bytes of a text, a character each: tokens may hold parts of a character. */
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

/** The tiny model's words with the marks of V3.2; of small vocabularies masks are soon read. */
function tinyV32(marks: readonly string[]) {
  const { added_tokens: added } = tinyFiles.tokenizerJson;
  const known = new Set(added.map((token) => ('content' in token ? token.content : '')));
  const tokens = marks
    .filter((content) => !known.has(content))
    .map((content, index) => ({ id: 4_096 + index, content, special: true }));
  const tokenizerConfig = { ...tinyFiles.tokenizerConfig, chat_template: null };
  const tokenizer = openTokenizer({
    tokenizerJson: { ...tinyFiles.tokenizerJson, added_tokens: [...added, ...tokens] },
    tokenizerConfig,
  });
  const chatFormat = openChatFormat({ tokenizerConfig, tokenizer, forced: 'deepseek-v32' });
  return { tokenizer, chatFormat };
}

interface Model {
  readonly tokenizer: Tokenizer;
  readonly chatFormat: ChatFormat;
  readonly grammars: OutputGrammars;
  readonly matcher: Matcher;
  /** [tokens] */
  readonly texts: readonly string[];
}

function modelOf({ tokenizer, chatFormat }: FormatModel): Model {
  return {
    tokenizer,
    chatFormat,
    grammars: createOutputGrammars({ tokenizer, chatFormat }),
    matcher: matcherOf(tokenizer, tokenizer.vocabSize),
    texts: Array.from({ length: tokenizer.vocabSize }, (_, token) =>
      latin1(tokenizer.tokenBytes(token)),
    ),
  };
}

const models = {
  'deepseek-v32': modelOf(tinyV32([...Object.values(v32Marks), dsmlMark])),
  'deepseek-v32, its mark as text': modelOf(tinyV32(Object.values(v32Marks))),
  glm: modelOf(formatModel('glm')),
};

const valueEnd = latin1(Buffer.from('</｜DSML｜parameter>'));

/** Picks tokens at random, and after a while those that lead to an end. */
function writeAnswer(model: Model, { rules, seed }: { rules: OutputRules; seed: number }): string {
  const { tokenizer, texts } = model;
  const grammar = model.grammars.of(rules);
  if (grammar === null) throw new Error('the rules ask for a form');
  const cursor = model.matcher.startPacked(grammar);
  const control = new Set(tokenizer.controlTokens.values());
  const random = seededRandom(seed);
  const written: number[] = [];
  let tail = '';
  for (let step = 0; step < 2_000; step++) {
    const allowed = tokensOfMask(cursor.mask() ?? new Uint32Array());
    const hurries = step > 40 || random.uniform() < 0.3;
    if (hurries && allowed.some((token) => tokenizer.endTokens.includes(token))) break;
    const begun = markBegunLength(tail, [valueEnd]);
    const goesOn = (token: number): boolean => {
      const after = (tail + texts[token]).slice(-64);
      return after.endsWith(valueEnd) || markBegunLength(after, [valueEnd]) > begun;
    };
    const wanted = [
      (token: number): boolean => control.has(token),
      goesOn,
      (token: number): boolean => /["\]}]$/.test(texts[token] ?? ''),
    ];
    const choices =
      (hurries ? wanted : [])
        .map((fits) => allowed.filter(fits))
        .find((fitting) => fitting.length > 0) ?? allowed;
    const token = choices[Math.floor(random.uniform() * choices.length)];
    if (token === undefined) throw new Error(`nothing may follow ${tail}`);
    if (tokenizer.endTokens.includes(token)) break;
    if (!cursor.advance(token, tokenizer.tokenBytes(token))) throw new Error(`not ${token}`);
    written.push(token);
    tail = (tail + texts[token]).slice(-64);
  }
  expect(cursor.isComplete, tail).toBe(true);
  return tokenizer.decode(written, { skipSpecial: true });
}

function callsOf(
  { chatFormat }: { chatFormat: ChatFormat },
  { text, tools }: { text: string; tools: readonly Tool[] },
): { calls: ToolCall['function'][]; rest: string } {
  const form = tools.map(({ function: { name, parameters } }) => ({
    name,
    types: argumentTypes(parameters),
  }));
  const parser = chatFormat.calls?.createParser('c', form);
  if (!parser) throw new Error('the format calls no tools');
  const calls: ToolCall[] = [];
  const outputs = [...text].map((piece) => parser.push(piece)).concat(parser.flush('complete'));
  for (const output of outputs) addToCalls(calls, output.calls);
  return {
    calls: calls.map((call) => call.function),
    rest: outputs.map((each) => each.text).join(''),
  };
}

function toolOf(name: string, parameters: object | null, strict = false): Tool {
  return { type: 'function', function: { name, parameters: { ...parameters }, strict } };
}

const object = (properties: object, more: object = {}): Record<string, unknown> => ({
  type: 'object',
  properties,
  additionalProperties: false,
  ...more,
});

const parameterSchemas: Record<string, Record<string, unknown>> = {
  'a text': object({ a: { type: 'string' } }, { required: ['a'] }),
  'a text of a length': object(
    { a: { type: 'string', minLength: 2, maxLength: 5 } },
    { required: ['a'] },
  ),
  'a text of a pattern': object(
    { a: { type: 'string', pattern: '^["\\\\<]{2}$' } },
    { required: ['a'] },
  ),
  'one of some texts': object({ a: { enum: ['1', '"x"', 'é\n'] } }, { required: ['a'] }),
  'a number': object({ a: { type: 'integer', minimum: -3, maximum: 40 } }, { required: ['a'] }),
  'a text or null': object({ a: { type: ['string', 'null'], maxLength: 4 } }, { required: ['a'] }),
  'any of two': object(
    { a: { anyOf: [{ enum: ['x', 'y'] }, { type: 'boolean' }] } },
    { required: ['a'] },
  ),
  'lists and objects': object(
    {
      list: { type: 'array', items: { type: 'string', maxLength: 3 }, maxItems: 3 },
      inner: object({ deep: { type: 'number' } }, { required: ['deep'] }),
    },
    { required: ['list', 'inner'] },
  ),
  'some that may be missing': object({
    a: { type: 'string', maxLength: 3 },
    b: { type: 'boolean' },
    c: { type: 'null' },
  }),
  'a reference': object(
    { a: { $ref: '#/$defs/place' }, b: { $ref: '#/$defs/word' } },
    {
      required: ['a', 'b'],
      $defs: { place: object({ x: { type: 'integer' } }), word: { type: 'string', maxLength: 3 } },
    },
  ),
  'one or the other': {
    type: 'object',
    anyOf: [
      object({ a: { const: 'x' } }, { required: ['a'] }),
      object({ b: { const: 1 } }, { required: ['b'] }),
    ],
  },
  'others of a kind': {
    type: 'object',
    properties: { a: { type: 'boolean' } },
    additionalProperties: { type: 'string', maxLength: 3 },
  },
  anything: { type: 'object' },
  nothing: object({}),
};

const answers = fc.record({ seed: fc.integer(), strict: fc.boolean() });

describe.each(Object.entries(models))('%s', (name, model) => {
  test.each(Object.entries(parameterSchemas))('forced to call with %s', (_, schema) => {
    const check = ({ seed, strict }: { seed: number; strict: boolean }): void => {
      const tools = [toolOf('look', schema, strict), toolOf('other', schema, strict)];
      const rules: OutputRules = { format: null, tools, choice: 'required', parallelCalls: true };
      const text = writeAnswer(model, { rules, seed });
      const { calls, rest } = callsOf(model, { text, tools });
      expect(rest, text).toBe('');
      expect(calls.length).toBeGreaterThan(0);
      for (const call of calls) {
        expect(['look', 'other']).toContain(call.name);
        // The schema is one of the list above.
        const fault = faultOf(schema as Schema, JSON.parse(call.arguments));
        expect(fault, `${text} -> ${call.arguments}`).toBe(null);
      }
    };
    fc.assert(fc.property(answers, check), { numRuns: 3 });
  });

  test('a named function is called once', () => {
    const tools = [toolOf('look', parameterSchemas['a text'] ?? null), toolOf('f', null)];
    const rules: OutputRules = { format: null, tools, choice: { name: 'f' }, parallelCalls: true };
    const text = writeAnswer(model, { rules, seed: 1 });
    expect(callsOf(model, { text, tools })).toEqual({
      calls: [{ name: 'f', arguments: '{}' }],
      rest: '',
    });
  });

  test('a strict function may be called behind any text, and its call fits', () => {
    const tools = [toolOf('look', parameterSchemas['a number'] ?? null, true)];
    const rules: OutputRules = { format: null, tools, choice: 'auto', parallelCalls: true };
    const found = Array.from({ length: 10 }, (_, seed) => {
      const text = writeAnswer(model, { rules, seed });
      return callsOf(model, { text, tools }).calls;
    }).flat();
    for (const call of found) {
      expect(JSON.parse(call.arguments)).toEqual({ a: expect.any(Number) });
    }
  });

  test('the same rules give one grammar, which reasoning can not begin', () => {
    const tools = [toolOf('f', null)];
    const grammar = model.grammars.of({
      format: null,
      tools,
      choice: 'required',
      parallelCalls: true,
    });
    const marks = grammar?.answerTokens.map((token) =>
      model.tokenizer.decode([token], { skipSpecial: false }),
    );
    const expected = name === 'glm' ? ['<tool_call>'] : [dsmlMark];
    expect(marks).toEqual(name.includes('text') ? [] : expected);
  });
});
