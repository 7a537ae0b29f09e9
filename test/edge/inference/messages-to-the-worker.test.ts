/** The chat completion that a worker is sent for Anthropic's messages. */
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

test("Anthropic's messages become a chat completion", async () => {
  edge = await startHarness();
  const cache = { cache_control: { type: 'ephemeral' } };
  const { body } = await sent('/anthropic/v1/messages', {
    model: testModel,
    max_tokens: 50,
    system: [
      { type: 'text', text: 'Be kind.', ...cache },
      { type: 'text', text: 'Be brief.' },
    ],
    messages: [
      { role: 'user', content: 'Weather?' },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'hm', signature: 's' },
          { type: 'redacted_thinking', data: 'x' },
          { type: 'text', text: 'I look.' },
          { type: 'tool_use', id: 't1', name: 'weather', input: { city: 'Rom' } },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 't1', content: 'rain', is_error: true },
          { type: 'text', text: 'And?', ...cache },
        ],
      },
      { role: 'assistant', content: 'It' },
    ],
    stop_sequences: ['END'],
    temperature: 0.2,
    top_p: 0.8,
    top_k: 4,
    thinking: { type: 'enabled', budget_tokens: 1024 },
    tools: [{ name: 'weather', description: 'd', input_schema: { type: 'object' }, ...cache }],
    tool_choice: { type: 'tool', name: 'weather', disable_parallel_tool_use: true },
    metadata: { user_id: 'user one' },
  });
  expect(chatCompletionRequestSchema.safeParse(body).error).toBeUndefined();
  expect(body).toMatchObject({
    messages: [
      {
        role: 'system',
        content: [
          { type: 'text', text: 'Be kind.' },
          { type: 'text', text: 'Be brief.' },
        ],
      },
      { role: 'user', content: 'Weather?' },
      {
        role: 'assistant',
        content: 'I look.',
        reasoning_content: 'hm',
        tool_calls: [
          {
            id: 't1',
            type: 'function',
            function: { name: 'weather', arguments: '{"city":"Rom"}' },
          },
        ],
      },
      { role: 'tool', tool_call_id: 't1', content: 'Error: rain' },
      { role: 'user', content: 'And?' },
      { role: 'assistant', content: 'It', prefix: true },
    ],
    max_tokens: 50,
    stop: ['END'],
    temperature: 0.2,
    top_p: 0.8,
    top_k: 4,
    thinking: { type: 'enabled' },
    tools: [
      {
        type: 'function',
        function: { name: 'weather', description: 'd', parameters: { type: 'object' } },
      },
    ],
    tool_choice: { type: 'function', function: { name: 'weather' } },
    parallel_tool_calls: false,
  });
});

test("Anthropic's structured output and effort are OpenAI's", async () => {
  edge = await startHarness();
  const { body } = await sent('/anthropic/v1/messages', {
    ...chat,
    max_tokens: 50,
    tools: [{ name: 'f', input_schema: schema, strict: true }],
    tool_choice: { type: 'any' },
    output_config: { effort: 'xhigh', format: { type: 'json_schema', schema } },
  });
  expect(body).toMatchObject({
    tools: strictTools,
    tool_choice: 'required',
    reasoning_effort: 'xhigh',
    response_format: format,
  });
  expect(body).not.toHaveProperty('parallel_tool_calls');
  expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
});

test("what a worker can't keep is said in the terms of the client's protocol", async () => {
  const message =
    "'tools[0].function.parameters.not' is not supported: output can’t be held to it.";
  const error = { message, type: 'x', param: 'p', code: 'unsupported_parameter' };
  edge = await startHarness({
    scripts: [{ fault: { kind: 'reject', status: 400, body: { error } } }],
  });
  const openAi = await edge.post('/v1/chat/completions', { ...chat, tools: strictTools });
  expect([openAi.status, await openAi.json()]).toMatchObject([
    400,
    { error: { message, param: 'p', code: 'unsupported_parameter' } },
  ]);
  const tools = [{ name: 'f', input_schema: schema, strict: true }];
  const claude = await edge.post('/anthropic/v1/messages', { ...chat, max_tokens: 5, tools });
  expect([claude.status, await claude.json()]).toMatchObject([
    400,
    { error: { message: expect.stringContaining("'tools[0].input_schema.not'") } },
  ]);
});

test("what Anthropic's protocol knows and what needs nothing done is accepted", async () => {
  edge = await startHarness();
  const search = { type: 'server_tool_use', id: 's1', name: 'web_search', input: { query: 'sea' } };
  const found = {
    type: 'web_search_tool_result',
    tool_use_id: 's1',
    content: [
      {
        type: 'web_search_result',
        title: 'The sea',
        url: 'https://sea.test',
        encrypted_content: 'x',
      },
      { type: 'web_search_result', title: 'Waves', url: 'https://waves.test' },
    ],
  };
  const answer = {
    type: 'text',
    text: 'It is deep.',
    citations: [{ type: 'web_search_result_location' }],
  };
  const { body } = await sent('/anthropic/v1/messages', {
    model: testModel,
    max_tokens: 9,
    temperature: 1.5,
    top_p: 0,
    container: 'c1',
    mcp_servers: [{ type: 'url', name: 'm', url: 'https://m.test' }],
    context_management: null,
    inference_geo: null,
    speed: 'standard',
    tools: [{ name: 'f', input_schema: { type: 'object' }, eager_input_streaming: true }],
    messages: [
      { role: 'user', content: 'Search.' },
      { role: 'assistant', content: [{ type: 'text', text: 'I look.' }, search, found, answer] },
      { role: 'user', content: 'And?' },
      {
        role: 'assistant',
        content: [
          { ...search, id: 's2' },
          { ...found, tool_use_id: 's2', content: { type: 'error', error_code: 'unavailable' } },
        ],
      },
    ],
  });
  const call = (id: string) => ({
    id,
    type: 'function',
    function: { name: 'web_search', arguments: '{"query":"sea"}' },
  });
  expect(body).toMatchObject({ temperature: 1.5, top_p: 0 });
  expect(body.messages).toEqual([
    { role: 'user', content: 'Search.' },
    { role: 'assistant', content: 'I look.', tool_calls: [call('s1')] },
    {
      role: 'tool',
      tool_call_id: 's1',
      content: 'The sea\nhttps://sea.test\n\nWaves\nhttps://waves.test',
    },
    { role: 'assistant', content: 'It is deep.' },
    { role: 'user', content: 'And?' },
    { role: 'assistant', content: null, tool_calls: [call('s2')] },
    { role: 'tool', tool_call_id: 's2', content: 'Error: unavailable' },
  ]);
  expect(body).not.toHaveProperty('mcp_servers');
  expect(body).not.toHaveProperty('speed');
  expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
});
