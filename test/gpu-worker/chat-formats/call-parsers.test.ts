/** The parsers of calls: published answers, every way to cut them, and what is no call. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { argumentTypes } from '../../../gpu-worker/chat-formats/argument-types.ts';
import { addToCalls } from '../../../gpu-worker/chat-formats/call-parser.ts';
import type { OutputEnd, ToolOutput } from '../../../gpu-worker/chat-formats/call-parser.ts';
import { callSyntaxes } from '../../../gpu-worker/chat-formats/call-syntaxes.ts';
import type { CallSyntaxName } from '../../../gpu-worker/chat-formats/chat-format.ts';
import type { ToolCall } from '../../../gpu-worker/protocol/messages.ts';

const published = z
  .object({
    parse: z.array(
      z.object({
        thinking: z.boolean(),
        completion: z.string(),
        message: z.object({
          content: z.string(),
          reasoning_content: z.string(),
          tool_calls: z.array(z.unknown()),
        }),
      }),
    ),
  })
  .parse(
    JSON.parse(
      readFileSync(new URL('../../goldens/dsv32-encoding/cases.json', import.meta.url), 'utf8'),
    ),
  ).parse;

const parameters = {
  type: 'object',
  properties: {
    text: { type: 'string' },
    count: { type: 'integer' },
    maybe: { anyOf: [{ type: 'string' }, { type: 'null' }] },
    place: { $ref: '#/$defs/place' },
    mode: { enum: ['1', 'two'] },
  },
  additionalProperties: { type: 'string' },
  $defs: { place: { type: 'object' } },
};
const tools = [{ name: 'look', types: argumentTypes(parameters) }];

function parse(syntax: CallSyntaxName, pieces: readonly string[], end: OutputEnd = 'complete') {
  const parser = callSyntaxes[syntax].createParser('c', tools);
  let text = '';
  const calls: ToolCall[] = [];
  const take = (output: ToolOutput): void => {
    text += output.text;
    addToCalls(calls, output.calls);
  };
  for (const piece of pieces) take(parser.push(piece));
  take(parser.flush(end));
  return { text, calls: calls.map((call) => call.function), isCut: parser.isCut };
}

const answers = published.map(({ thinking, completion, message }) => {
  const said = completion.replace('<｜end▁of▁sentence｜>', '');
  return { text: thinking ? said.slice(said.indexOf('</think>') + 8) : said, message };
});

test.each(answers.map((each, index) => ({ ...each, index })))(
  'the published answer $index is read exactly, in pieces of every size',
  ({ text, message }) => {
    for (const size of [text.length || 1, 1, 2, 3, 7]) {
      const pieces = text.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? [];
      const { text: content, calls } = parse('deepseek-v32', pieces);
      const read = calls.map(({ name, arguments: json }) => ({
        name,
        arguments: JSON.parse(json),
      }));
      expect([content, read]).toEqual([message.content, message.tool_calls]);
    }
  },
);

test('a published answer that is cut anywhere tells the beginning of the same', () => {
  for (const { text } of answers) {
    const whole = parse('deepseek-v32', [text]);
    for (let at = 0; at < text.length; at++) {
      const cut = parse('deepseek-v32', [text.slice(0, at)], 'cut');
      expect(whole.text.startsWith(cut.text), cut.text).toBe(true);
      for (const [index, call] of cut.calls.entries()) {
        expect(whole.calls[index]?.name).toBe(call.name);
        expect(whole.calls[index]?.arguments.startsWith(call.arguments), call.arguments).toBe(true);
      }
    }
  }
});

const dsml = (inside: string) =>
  `\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="look">\n${inside}\n</｜DSML｜invoke>\n</｜DSML｜function_calls>`;
const parameter = (key: string, isText: boolean, value: string) =>
  `<｜DSML｜parameter name="${key}" string="${isText}">${value}</｜DSML｜parameter>`;
const argument = (key: string, value: string) =>
  `<arg_key>${key}</arg_key><arg_value>${value}</arg_value>`;

describe('DSML', () => {
  const argumentsOf = (inside: string): unknown =>
    JSON.parse(parse('deepseek-v32', [dsml(inside)]).calls[0]?.arguments ?? 'null');

  test.each([
    ['a text in quotes', parameter('a', true, '"x"\n\\ 🌊'), { a: '"x"\n\\ 🌊' }],
    ['a number as text', parameter('a', true, '12'), { a: '12' }],
    ['white space around JSON', parameter('a', false, ' [1, 2]\n'), { a: [1, 2] }],
    ['no JSON where it should be', parameter('a', false, 'Bergen'), { a: 'Bergen' }],
    ['an empty text', parameter('a', true, ''), { a: '' }],
    ['no statement of the type', '<｜DSML｜parameter name="a">1</｜DSML｜parameter>', { a: 1 }],
    ['a name with quotes', parameter('a"b', true, 'c'), { 'a"b': 'c' }],
    [
      'a parameter that is there twice',
      parameter('a', true, 'b') + parameter('a', true, 'c'),
      { a: 'b' },
    ],
    [
      'another tag in a text',
      parameter('a', true, '</｜DSML｜invoke> <b>'),
      { a: '</｜DSML｜invoke> <b>' },
    ],
    ['all arguments as one object', '{"a": {"b": [1]}}', { a: { b: [1] } }],
    ['nothing', '', {}],
  ])('%s', (_, inside, expected) => {
    expect(argumentsOf(inside)).toEqual(expected);
  });

  test('texts go out as they come, and what went out begins a JSON object', () => {
    const parser = callSyntaxes['deepseek-v32'].createParser('c', []);
    let json = '';
    const lengths = [...dsml(parameter('a', true, 'one two three'))].map((piece) => {
      for (const call of parser.push(piece).calls) json += call.function.arguments;
      return json.length;
    });
    expect(new Set(lengths).size).toBeGreaterThan(10);
    expect(json).toBe('{"a": "one two three"}');
  });
});

describe('GLM', () => {
  test.each([
    ['a text', argument('text', '12'), { text: '12' }],
    ['a number', argument('count', '12'), { count: 12 }],
    ['a text where a number should be', argument('count', 'twelve'), { count: 'twelve' }],
    ['a text or null', argument('maybe', 'null'), { maybe: null }],
    ['a text or null, a number', argument('maybe', '12'), { maybe: '12' }],
    ['a reference to an object', argument('place', '{"x": 1}'), { place: { x: 1 } }],
    ['one of some texts', argument('mode', '1'), { mode: '1' }],
    ['an argument of no name', argument('other', 'true'), { other: 'true' }],
    ['line breaks between the tags', `\n${argument('count', '1')}\n`, { count: 1 }],
    ['nothing', '', {}],
  ])('%s', (_, inside, expected) => {
    const { text, calls } = parse('glm', [`Hm.<tool_call>look${inside}</tool_call>\n`]);
    expect(text).toBe('Hm.');
    expect(JSON.parse(calls[0]?.arguments ?? 'null')).toEqual(expected);
  });

  test('a tool that is not known takes whatever is JSON as such', () => {
    const { calls } = parse('glm', [
      `<tool_call>f${argument('a', '12')}${argument('b', 'x y')}</tool_call>`,
    ]);
    expect(calls).toEqual([{ name: 'f', arguments: '{"a": 12, "b": "x y"}' }]);
  });
});

describe('what is no call stays text', () => {
  test.each<[CallSyntaxName, string]>([
    ['deepseek-v32', 'a <｜DSML｜function_call> b'],
    ['deepseek-v32', 'Write <｜DSML｜function_calls> before a call.'],
    ['deepseek-v32', '<｜DSML｜function_calls>\n\n<｜DSML｜invoke name="a\nb">'],
    ['deepseek-v32', 'one </｜DSML｜invoke> and </｜DSML｜function_calls> alone'],
    ['deepseek-v32', '<|DSML|function_calls>\n<|DSML|invoke name="look">'],
    ['deepseek-v32', 'a line\n\nand another\n\n'],
    ['glm', 'The <tool_call> tag opens a call, </tool_call> closes it.'],
    ['glm', '<tool_call></tool_call>'],
    ['glm', '<tool_call'],
    ['glm', 'a <arg_key>b</arg_key>'],
  ])('%s: %j', (syntax, text) => {
    for (const pieces of [[text], [...text]]) {
      expect(parse(syntax, pieces)).toEqual({ text, calls: [], isCut: false });
    }
  });

  test('but a call behind it is one', () => {
    const looks = 'Write <｜DSML｜function_calls> so:';
    const { text, calls } = parse('deepseek-v32', [looks + dsml('')]);
    expect([text, calls]).toEqual([looks, [{ name: 'look', arguments: '{}' }]]);
  });
});

/** Outputs that are put together of tags, texts and parts of both. */
const fragments: Record<string, readonly string[]> = {
  'deepseek-v32': [
    ['\n', '\n\n', ' ', 'a', '"', '🌊', '\uFFFD', '{"a": 1}', '<', '</', '｜', '">'],
    ['<｜DSML｜function_calls>', '</｜DSML｜function_calls>', '<｜DSML｜invoke name="', 'look">'],
    ['</｜DSML｜invoke>', '<｜DSML｜parameter name="', 'k" string="true">', 'k" string="false">'],
    ['</｜DSML｜parameter>', dsml(parameter('k', true, 'v') + parameter('n', false, '[1]'))],
  ].flat(),
  glm: [
    ['\n', ' ', 'a', '"', '🌊', '\uFFFD', '12', 'look', '<', '</'],
    ['<tool_call>', '</tool_call>', '<arg_key>', 'text', 'count', '</arg_key>', '<arg_value>'],
    ['</arg_value>'],
    [`<tool_call>look${argument('text', 'v')}${argument('count', '3')}</tool_call>`],
  ].flat(),
};

test.each(['deepseek-v32', 'glm'] as const)('any way to cut says the same: %s', (syntax) => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...(fragments[syntax] ?? [])), { maxLength: 14 }),
      fc.array(fc.nat(40), { maxLength: 30 }),
      fc.constantFrom<OutputEnd>('complete', 'cut', 'stopped'),
      (parts, sizes, end) => {
        const text = parts.join('');
        const pieces: string[] = [];
        let from = 0;
        for (const size of sizes) {
          pieces.push(text.slice(from, from + size));
          from += size;
        }
        pieces.push(text.slice(from));
        const whole = parse(syntax, [text], end);
        expect(parse(syntax, pieces, end)).toEqual(whole);
        expect(parse(syntax, text.split(''), end)).toEqual(whole);
        if (end !== 'complete') return;
        for (const call of whole.calls) expect(JSON.parse(call.arguments)).toBeTypeOf('object');
      },
    ),
    { numRuns: 1_000 },
  );
});
