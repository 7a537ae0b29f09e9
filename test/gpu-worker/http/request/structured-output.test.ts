/**
 * The official client asks for structured output, of a worker whose model talks noise: only the
 * grammar can be why its answers fit.
 */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createOutputGrammars } from '../../../../gpu-worker/http/request/output-grammar.ts';
import { openChatFormat } from '../../../../gpu-worker/chat-formats/chat-formats.ts';
import type { TokenizerFixture } from '../../tokenizer/fixture.ts';
import { deepseek, deepseekFiles, deepseekV3Files } from '../../tokenizer/fixture.ts';
import { httpWorker } from '../../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../../support/worker/http-worker.ts';
import { noiseEngine } from '../../../support/worker/noise-engine.ts';
import { conditional, faultOf } from '../../../support/schemas/random-schema.ts';
import type { Schema } from '../../../support/schemas/random-schema.ts';

const vocabSize = 129_280;
const engine = noiseEngine(deepseek, vocabSize);
const idOf = (text: string): number => deepseek.encode(text)[0] ?? -1;
const callsBegin = deepseek.controlToken('<｜tool▁calls▁begin｜>') ?? -1;

/** Noise alone would hardly ever close a string. */
const bias = Object.fromEntries(['"', '}', ']', '",', '"}'].map((text) => [idOf(text), 10]));
const question = {
  model: 'tiny',
  messages: [{ role: 'user' as const, content: 'Where is it warm?' }],
  seed: 5,
  max_tokens: 600,
  logit_bias: bias,
};

const place: Record<string, unknown> = {
  type: 'object',
  properties: {
    city: { type: 'string', maxLength: 20 },
    unit: { enum: ['C', 'F'] },
    days: { anyOf: [{ type: 'integer', minimum: 1, maximum: 14 }, { type: 'null' }] },
  },
  required: ['city', 'unit', 'days'],
  additionalProperties: false,
};
const clock: Record<string, unknown> = {
  type: 'object',
  properties: { zone: { type: 'string', pattern: '^[A-Z]{3}$' } },
  required: ['zone'],
  additionalProperties: false,
};
const schemas: Record<string, Schema> = { weather: place, clock };
const tools = [
  { type: 'function' as const, function: { name: 'weather', parameters: place } },
  { type: 'function' as const, function: { name: 'clock', parameters: clock } },
];
const strictTools = tools.map((tool) => ({
  ...tool,
  function: { ...tool.function, strict: true },
}));
const format = {
  type: 'json_schema' as const,
  json_schema: { name: 'place', schema: place, strict: true },
};

async function workerOf(files: TokenizerFixture): Promise<HttpWorker> {
  const text = {
    tokenizer: deepseek,
    chatFormat: openChatFormat({ tokenizerConfig: files.tokenizerConfig, tokenizer: deepseek }),
  };
  return httpWorker({ script: { answer: () => [] }, model: { engine, ...text } });
}

function clientOf(worker: HttpWorker): OpenAI {
  return new OpenAI({
    baseURL: 'http://worker/v1',
    apiKey: 'none',
    maxRetries: 0,
    fetch: async (url, init) => worker.app.request(String(url), init),
  });
}

let worker: HttpWorker;
let client: OpenAI;
beforeAll(async () => {
  worker = await workerOf(deepseekFiles);
  client = clientOf(worker);
});
afterAll(() => worker[Symbol.asyncDispose]());

const chatAnswer = z.looseObject({
  choices: z.tuple([z.looseObject({ message: z.looseObject({ content: z.string() }) })]),
});

type Calls = readonly { function: { name: string; arguments: string } }[];

function expectValidCalls(calls: Calls): void {
  expect(calls.length).toBeGreaterThan(0);
  for (const call of calls) {
    const schema = schemas[call.function.name] ?? false;
    expect(faultOf(schema, JSON.parse(call.function.arguments)), call.function.arguments).toBe(
      null,
    );
  }
}

function functionCalls(message: OpenAI.ChatCompletionMessage): Calls {
  return (message.tool_calls ?? []).flatMap((call) => (call.type === 'function' ? [call] : []));
}

describe('response_format', () => {
  test('a schema: the client parses an answer that fits', async () => {
    const answer = await client.chat.completions.parse({ ...question, response_format: format });
    expect(faultOf(place, answer.choices[0]?.message.parsed)).toBe(null);
    expect(answer.choices[0]?.finish_reason).toBe('stop');
  });

  test('a schema, streamed, several choices at once', async () => {
    const stream = client.chat.completions.stream({ ...question, n: 3, response_format: format });
    const { choices } = await stream.finalChatCompletion();
    expect(choices).toHaveLength(3);
    for (const { message } of choices) expect(faultOf(place, message.parsed)).toBe(null);
    expect(new Set(choices.map(({ message }) => message.content)).size).toBe(3);
  });

  test.each([
    { type: 'json_schema', schema: place },
    { type: 'json_object', schema: place },
    { type: 'json_schema', json_schema: { schema: place } },
  ])('a schema in another spelling: %j', async (spelled) => {
    const response = await worker.app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...question, response_format: spelled }),
    });
    expect(response.status).toBe(200);
    const [choice] = chatAnswer.parse(await response.json()).choices;
    expect(faultOf(place, JSON.parse(choice.message.content))).toBe(null);
  });

  test('any object', async () => {
    const answer = await client.chat.completions.create({
      ...question,
      response_format: { type: 'json_object' },
    });
    expect(faultOf({ type: 'object' }, JSON.parse(answer.choices[0]?.message.content ?? ''))).toBe(
      null,
    );
  });

  test('text lets anything be said', async () => {
    const free = { ...question, max_tokens: 5 };
    const plain = await client.chat.completions.create(free);
    const asked = await client.chat.completions.create({
      ...free,
      response_format: { type: 'text' },
    });
    expect(asked.choices).toEqual(plain.choices);
  });

  test('after reasoning, which itself is free', async () => {
    const think = deepseek.controlToken('</think>') ?? -1;
    const answer = await client.chat.completions.create({
      ...question,
      reasoning_effort: 'high',
      logit_bias: { ...bias, [think]: 11 },
      response_format: format,
    });
    const message: unknown = answer.choices[0]?.message;
    expect(message).toMatchObject({ reasoning_content: expect.stringMatching(/./) });
    expect(faultOf(place, JSON.parse(answer.choices[0]?.message.content ?? ''))).toBe(null);
  });

  test('a completion too', async () => {
    const body = { model: 'tiny', prompt: 'Warm:', seed: 1, max_tokens: 600, logit_bias: bias };
    const asked = { ...body, response_format: format };
    const answer = await client.completions.create(asked);
    expect(faultOf(place, JSON.parse(answer.choices[0]?.text ?? ''))).toBe(null);
  });

  test('an answer that is cut says so', async () => {
    const answer = await client.chat.completions.create({
      ...question,
      max_tokens: 3,
      response_format: format,
    });
    expect(answer.choices[0]?.finish_reason).toBe('length');
  });

  test.for([
    [{ type: 'string', pattern: '(?<=a)b' }, 'pattern', 'unsupported_parameter'],
    [{ type: 'string', pattern: '(' }, 'pattern', 'unsupported_parameter'],
    [{ type: 'string', pattern: 'a{5000}' }, 'pattern', 'unsupported_parameter'],
    [{ type: 'number', multipleOf: 0.123456 }, 'multipleOf', 'unsupported_parameter'],
    [{ type: 'array', uniqueItems: true }, 'uniqueItems', 'unsupported_parameter'],
    [
      { type: 'array', items: { enum: [0, 1, 2, 3, 4, 5, 6, 7, 8] }, uniqueItems: true },
      'uniqueItems',
      'unsupported_parameter',
    ],
    [{ oneOf: [{ type: 'string' }, { format: 'date' }] }, 'oneOf', 'unsupported_parameter'],
    [{ not: { format: 'date' } }, 'not', 'unsupported_parameter'],
    [conditional({ multipleOf: 2 }, { minimum: 1 }, true), 'if', 'unsupported_parameter'],
    [{ type: 'object', minProperties: 2 }, 'minProperties', 'unsupported_parameter'],
    [
      { type: 'object', anyOf: [{ required: ['a'] }], unevaluatedProperties: false },
      'unevaluatedProperties',
      'unsupported_parameter',
    ],
    [{ extends: {} }, 'extends', 'unsupported_parameter'],
    [{ not: {} }, '', 'invalid_value'],
    [{ allOf: [{ type: 'string' }, { type: 'null' }] }, '', 'invalid_value'],
    [
      { anyOf: Array.from({ length: 300 }, (_, each) => ({ const: each })) },
      'anyOf',
      'unsupported_parameter',
    ],
    [{ $ref: 'https://example.com/a.json' }, '$ref', 'unsupported_parameter'],
    [{ type: 'string', maxLength: 5000 }, '', 'unsupported_parameter'],
    [{ type: 'array', items: { type: 'null' }, maxItems: 1e6 }, '', 'invalid_value'],
    [{ $ref: '#/$defs/none' }, '$ref', 'invalid_value'],
    [{ type: 'text' }, 'type', 'invalid_value'],
    [{ type: 'string', minLength: 3, maxLength: 2 }, '', 'invalid_value'],
    [{ $ref: '#' }, '', 'invalid_value'],
    [{ anyOf: [{ $ref: '#' }, { type: 'null' }] }, '', 'invalid_value'],
    [{ type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] }, '', 'invalid_value'],
  ] as const)('what can’t be kept is refused by name: %j', async ([schema, keyword, code]) => {
    const json_schema = { name: 'x', strict: true, schema: { ...schema } };
    const asked = client.chat.completions.create({
      ...question,
      response_format: { type: 'json_schema', json_schema },
    });
    const param = ['response_format.json_schema.schema', keyword]
      .filter((each) => each !== '')
      .join('.');
    await expect(asked).rejects.toMatchObject({ status: 400, code, param });
  });

  test.for([
    { type: 'array', items: { type: 'integer', maximum: 9, minimum: 0 }, uniqueItems: true },
    { type: 'array', items: { enum: [0, 1, 2, 3, 4, 5, 6, 7, 8] }, uniqueItems: true },
    { type: 'object', additionalProperties: { type: 'boolean' }, minProperties: 2 },
  ])('what can’t be counted has no effect where the schema is not strict: %j', async (listed) => {
    const schema = { type: 'object', properties: { listed }, required: ['listed'] };
    const item = z.union([z.array(z.int().min(0).max(9)), z.record(z.string(), z.boolean())]);
    const nested = { type: 'json_schema', json_schema: { name: 'x', schema } } as const;
    // Together's spelling, which OpenAI's types lack.
    const beside = { type: 'json_schema', schema } as unknown as typeof nested;
    for (const response_format of [nested, beside]) {
      const { choices } = await client.chat.completions.create({
        ...question,
        max_tokens: 600,
        response_format,
      });
      const [{ finish_reason: finish, message } = {}] = choices;
      expect(finish).toBe('stop');
      z.object({ listed: item }).parse(JSON.parse(message?.content ?? ''));
    }
  });

  test('what takes too long to compile is refused before it does', async () => {
    const schema = { type: 'string', pattern: '^(a|b)*a(a|b){20}$' };
    const started = performance.now();
    const asked = client.chat.completions.create({
      ...question,
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema } },
    });
    await expect(asked).rejects.toMatchObject({ status: 400 });
    // No timing, but a guard against a compiler that does not stop: its bound is about a second.
    expect(performance.now() - started).toBeLessThan(30_000);
  });
});

test('the schemas of one request share what they may take, and what they have in common', () => {
  const of = (strict: boolean, stringOf: (index: number) => object) =>
    worker.text.outputGrammars.of({
      format: null,
      tools: Array.from({ length: 128 }, (_, index) => ({
        type: 'function',
        function: {
          name: `f${index}`,
          strict,
          parameters: { type: 'object', properties: { a: stringOf(index) } },
        },
      })),
      choice: 'required',
      parallelCalls: true,
    });
  expect(of(true, () => ({ type: 'string', maxLength: 1000 }))).not.toBe(null);
  const costly = (index: number): object => ({ type: 'string', pattern: `a.{11}${index}$` });
  expect(() => of(false, costly)).toThrow('it takes too long to compile');
});

describe('tool calls', () => {
  test('required: one or more calls and no text, all valid', async () => {
    const answer = await client.chat.completions.create({
      ...question,
      tools,
      tool_choice: 'required',
    });
    const [choice] = answer.choices;
    expect(choice?.finish_reason).toBe('tool_calls');
    expect(choice?.message.content).toBe(null);
    expectValidCalls(choice ? functionCalls(choice.message) : []);
  });

  test('a named function is called once, also in a stream', async () => {
    const stream = client.chat.completions.stream({
      ...question,
      tools,
      tool_choice: { type: 'function', function: { name: 'clock' } },
    });
    const { choices } = await stream.finalChatCompletion();
    const calls = choices[0] ? functionCalls(choices[0].message) : [];
    expect(calls.map((call) => call.function.name)).toEqual(['clock']);
    expectValidCalls(calls);
    expect(choices[0]?.finish_reason).toBe('tool_calls');
  });

  test('strict functions: the model may call or not; what it calls is valid', async () => {
    const answer = await client.chat.completions.create({
      ...question,
      logit_bias: { ...bias, [callsBegin]: 9 },
      tools: strictTools,
      tool_choice: 'auto',
      n: 6,
    });
    const calls = answer.choices.map(({ message }) => functionCalls(message));
    for (const each of calls) if (each.length > 0) expectValidCalls(each);
    expect(calls.flat().length).toBeGreaterThan(0);
    expect(answer.choices.some(({ message }) => (message.content ?? '') !== '')).toBe(true);
  });

  test('arguments that look like the end of a call are still whole', async () => {
    const mark = '<｜tool▁call▁end｜>';
    const quoting: Record<string, unknown> = {
      type: 'object',
      properties: { [mark]: { enum: [mark, `${mark}2`] }, text: { type: 'string', maxLength: 9 } },
      required: [mark, 'text'],
      additionalProperties: false,
    };
    const towards = { ...bias, [idOf('｜')]: 30, [idOf('<｜')]: 30 };
    const answer = await client.chat.completions.create({
      ...question,
      logit_bias: towards,
      tools: [{ type: 'function', function: { name: 'quote', parameters: quoting, strict: true } }],
      tool_choice: 'required',
      parallel_tool_calls: false,
    });
    const [call] = answer.choices[0] ? functionCalls(answer.choices[0].message) : [];
    expect(faultOf(quoting, JSON.parse(call?.function.arguments ?? ''))).toBe(null);
  });

  test('parallel_tool_calls false leaves it at one call', async () => {
    const callAgain = deepseek.controlToken('<｜tool▁call▁begin｜>') ?? -1;
    const eager = { ...question, tools, tool_choice: 'required' as const };
    const again = { ...bias, [callAgain]: 5 };
    const many = await client.chat.completions.create({ ...eager, logit_bias: again });
    expect(many.choices[0]?.message.tool_calls?.length).toBeGreaterThan(1);
    const one = await client.chat.completions.create({
      ...eager,
      logit_bias: again,
      parallel_tool_calls: false,
    });
    expect(one.choices[0]?.message.tool_calls).toHaveLength(1);
  });

  test('a schema beside tools: a call or an answer that fits', async () => {
    const both = { ...question, tools: strictTools, response_format: format };
    const answer = await client.chat.completions.create({
      ...both,
      logit_bias: { ...bias, [callsBegin]: -100 },
    });
    expect(faultOf(place, JSON.parse(answer.choices[0]?.message.content ?? ''))).toBe(null);
    const called = await client.chat.completions.create({
      ...both,
      logit_bias: { ...bias, [callsBegin]: 50 },
    });
    expectValidCalls(called.choices[0] ? functionCalls(called.choices[0].message) : []);
  });

  test('a forced call comes after the reasoning', async () => {
    const think = deepseek.controlToken('</think>') ?? -1;
    // Through a variable, because OpenAI's types have no such parameter.
    const thinking = { ...question, thinking: { type: 'enabled' } };
    const answer = await client.chat.completions.create({
      ...thinking,
      logit_bias: { ...bias, [think]: 11 },
      tools,
      tool_choice: 'required',
    });
    const message = answer.choices[0]?.message;
    expect(message).toMatchObject({ reasoning_content: expect.stringMatching(/./) });
    expectValidCalls(message ? functionCalls(message) : []);
  });

  test('a function that is not strict and says more than can be kept gets an object', async () => {
    const loose = { type: 'object', minProperties: 1, properties: { a: { type: 'boolean' } } };
    const answer = await client.chat.completions.create({
      ...question,
      tools: [{ type: 'function', function: { name: 'loose', parameters: loose } }],
      tool_choice: 'required',
      parallel_tool_calls: false,
    });
    const [call] = answer.choices[0] ? functionCalls(answer.choices[0].message) : [];
    expect(JSON.parse(call?.function.arguments ?? '')).toEqual(expect.any(Object));
  });

  test('the first V3 models write their calls in fences', async () => {
    await using older = await workerOf(deepseekV3Files);
    const answer = await clientOf(older).chat.completions.create({
      ...question,
      tools,
      tool_choice: 'required',
    });
    expectValidCalls(answer.choices[0] ? functionCalls(answer.choices[0].message) : []);
  });

  test.for([
    [{ tool_choice: 'required' }, 'tool_choice', 'invalid_value'],
    [
      { tools, tool_choice: { type: 'function', function: { name: 'none' } } },
      'tool_choice.function.name',
      'invalid_value',
    ],
    [
      {
        tools: [
          {
            type: 'function',
            function: { name: 'f', strict: true, parameters: { type: 'array' } },
          },
        ],
      },
      'tools[0].function.parameters.type',
      'invalid_value',
    ],
    [
      {
        tools: [
          ...tools,
          {
            type: 'function',
            function: {
              name: 'f',
              strict: true,
              parameters: {
                type: 'object',
                properties: { a: { type: 'array', uniqueItems: true } },
              },
            },
          },
        ],
      },
      'tools[2].function.parameters.properties.a.uniqueItems',
      'unsupported_parameter',
    ],
    [
      { response_format: { type: 'json_object' }, ignore_eos: true },
      'ignore_eos',
      'unsupported_parameter',
    ],
    [
      {
        response_format: { type: 'json_object' },
        messages: [...question.messages, { role: 'assistant', content: '{', prefix: true }],
      },
      'response_format',
      'unsupported_parameter',
    ],
  ] as const)('%j is refused by name', async ([fields, param, code]) => {
    const response = await worker.app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...question, ...fields }),
    });
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { param, code } },
    ]);
  });
});

test('a grammar that is asked for again is not built again', () => {
  const { chatFormat, tokenizer } = worker.text;
  const grammars = createOutputGrammars({ chatFormat, tokenizer });
  const rules = { format, tools: [], choice: 'auto', parallelCalls: true } as const;
  expect(grammars.of(rules)).toBe(grammars.of({ ...rules }));
  expect(grammars.of({ ...rules, format: null })).toBe(null);
});
