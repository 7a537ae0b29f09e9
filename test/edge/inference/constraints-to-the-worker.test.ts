/** The constraints on an answer (schemas, tools, thinking) as workers of any make are sent them. */
import { afterEach, expect, test } from 'vitest';
import { chatCompletionRequestSchema } from '../../../gpu-worker/protocol/requests.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import {
  format,
  plainChat as chat,
  schema,
  sentToWorker,
  strictTools,
} from '../../support/edge/sent-to-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

const sent = (path: string, body: unknown) => sentToWorker(edge, path, body);

test.each(['/v1/chat/completions', '/beta/chat/completions'])(
  'what constrains the answer reaches the worker from %s',
  async (path) => {
    edge = await startHarness();
    for (const choice of ['required', { type: 'function', function: { name: 'f' } }]) {
      const parameters = {
        response_format: format,
        tools: strictTools,
        tool_choice: choice,
        parallel_tool_calls: false,
        reasoning_effort: 'max',
      };
      const { body } = await sent(path, { ...chat, ...parameters });
      expect(body).toMatchObject(parameters);
      expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
    }
  },
);

test.each([
  [
    { thinking: { type: 'enabled' } },
    { chat_template_kwargs: { thinking: true, enable_thinking: true } },
  ],
  [
    { thinking: { type: 'disabled' } },
    { chat_template_kwargs: { thinking: false, enable_thinking: false } },
  ],
  [
    { reasoning_effort: 'max' },
    { chat_template_kwargs: { thinking: true, enable_thinking: true }, reasoning_effort: 'high' },
  ],
  [
    { reasoning_effort: 'minimal' },
    { chat_template_kwargs: { thinking: true, enable_thinking: true }, reasoning_effort: 'low' },
  ],
  [
    { reasoning_effort: 'none' },
    { chat_template_kwargs: { thinking: false, enable_thinking: false } },
  ],
  [
    { reasoning_effort: 'high', thinking: { type: 'disabled' } },
    { chat_template_kwargs: { thinking: false, enable_thinking: false } },
  ],
  [
    { chat_template_kwargs: { thinking: true } },
    { chat_template_kwargs: { thinking: true, enable_thinking: true } },
  ],
  [
    { response_format: format, tools: strictTools },
    { response_format: format, tools: strictTools },
  ],
  [
    { tools: strictTools, tool_choice: 'required', parallel_tool_calls: false },
    { tools: strictTools, tool_choice: 'required', parallel_tool_calls: false },
  ],
] as const)('a foreign engine is asked for %j in its own terms', async (asked, told) => {
  edge = await startHarness({ hasJournal: false });
  const { body } = await sent('/v1/chat/completions', { ...chat, ...asked });
  expect(body).toEqual({
    ...chat,
    ...told,
    max_tokens: 4_096,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    cache_salt: expect.any(String),
  });
});

test.each(['/v1/chat/completions', '/v1/completions'])(
  'a seed of 64 bits reaches the worker of %s as one that it can count from',
  async (path) => {
    edge = await startHarness();
    const asked = path.includes('chat') ? chat : { model: testModel, prompt: 'a' };
    for (const [seed, told] of [
      [2 ** 63, 2 ** 63 % (Number.MAX_SAFE_INTEGER - 8)],
      [-(2 ** 63), -(2 ** 63 % (Number.MAX_SAFE_INTEGER - 8))],
      [2 ** 53, 9],
      [-5, -5],
    ] as const) {
      const { body } = await sent(path, { ...asked, seed });
      expect(body).toMatchObject({ seed: told });
      expect(Number.isSafeInteger(told + 7)).toBe(true);
    }
    for (const seed of [0.5, 2 ** 64, '1']) {
      const response = await edge.post(path, { ...asked, seed });
      expect([400, 422]).toContain(response.status);
      expect(await response.json()).toMatchObject({ error: { param: 'seed' } });
    }
  },
);

test.each([undefined, 'auto', 'none'])(
  'an empty list of tools is none, with the tool choice %s',
  async (choice) => {
    edge = await startHarness();
    const { body } = await sent('/v1/chat/completions', {
      ...chat,
      tools: [],
      tool_choice: choice,
    });
    expect(body).not.toHaveProperty('tools');
    expect(body).not.toHaveProperty('tool_choice');
    const message = { model: testModel, max_tokens: 5, messages: chat.messages, tools: [] };
    const asked = choice ? { ...message, tool_choice: { type: choice } } : message;
    const { body: translated } = await sent('/anthropic/v1/messages', asked);
    expect(translated).not.toHaveProperty('tools');
    expect(translated).not.toHaveProperty('tool_choice');
  },
);

test('a call that is asked for of no tools is refused by its name', async () => {
  edge = await startHarness();
  const named = { type: 'function', function: { name: 'f' } };
  const answers = [
    await edge.post('/v1/chat/completions', { ...chat, tools: [], tool_choice: 'required' }),
    await edge.post('/v1/chat/completions', { ...chat, tool_choice: named }),
  ];
  for (const answer of answers) {
    expect([400, 422]).toContain(answer.status);
    expect(await answer.json()).toMatchObject({ error: { param: 'tool_choice' } });
  }
  for (const choice of [{ type: 'any' }, { type: 'tool', name: 'f' }]) {
    const answer = await edge.post('/anthropic/v1/messages', {
      model: testModel,
      max_tokens: 5,
      messages: chat.messages,
      tools: [],
      tool_choice: choice,
    });
    expect([400, 422]).toContain(answer.status);
    expect(await answer.text()).toContain("'tool_choice'");
  }
});

const besideType = [
  { type: 'json_schema', schema },
  { type: 'json_object', schema },
  { type: 'json_schema', json_schema: { schema } },
  { type: 'json_schema', json_schema: { name: null, schema } },
];

test.each(besideType)('a schema spelled as %j reaches workers of any make', async (spelled) => {
  edge = await startHarness();
  const own = await sent('/v1/chat/completions', { ...chat, response_format: spelled });
  expect(chatCompletionRequestSchema.safeParse(own.body).success).toBe(true);
  expect(own.body).toMatchObject({ response_format: spelled });
  await edge.close();
  edge = await startHarness({ hasJournal: false });
  const other = await sent('/v1/chat/completions', { ...chat, response_format: spelled });
  expect(other.body).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } },
  });
});

test.each([
  { type: 'json_schema' },
  { type: 'json_schema', schema, json_schema: { name: 'a', schema } },
  { type: 'json_schema', json_schema: { name: 'a' } },
])('the format %j is refused by name', async (spelled) => {
  edge = await startHarness();
  const answer = await edge.post('/v1/chat/completions', { ...chat, response_format: spelled });
  expect([400, 422]).toContain(answer.status);
  expect(await answer.json()).toMatchObject({
    error: { param: expect.stringMatching(/^response_format\./) },
  });
});
