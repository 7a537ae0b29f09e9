/** The body that a worker is sent for a client's request. */
import { afterEach, expect, test } from 'vitest';
import {
  chatCompletionRequestSchema,
  completionRequestSchema,
} from '../../../gpu-worker/protocol/requests.ts';
import { dataOf, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { plainChat as chat, sentToWorker } from '../../support/edge/sent-to-worker.ts';

let edge: Harness;
afterEach(() => edge.close());

const sent = (path: string, body: unknown) => sentToWorker(edge, path, body);

test('every documented parameter of a chat completion reaches the worker', async () => {
  edge = await startHarness();
  const parameters = {
    n: 2,
    stop: ['a', 'b'],
    stop_token_ids: [1],
    ignore_eos: true,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 5,
    min_p: 0.1,
    seed: 7,
    repetition_penalty: 1.1,
    frequency_penalty: 0.5,
    presence_penalty: 0.5,
    logit_bias: { '5': 1 },
    user: 'bob',
    response_format: { type: 'json_object' },
    max_tokens: 9,
    logprobs: true,
    top_logprobs: 3,
    thinking: { type: 'enabled' },
    tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }],
    tool_choice: 'auto',
  };
  const own = { user_id: 'u-1', store: false, service_tier: 'auto', parallel_tool_calls: true };
  const { path, body, headers } = await sent('/chat/completions', {
    ...chat,
    ...parameters,
    ...own,
  });
  expect(path).toBe('/v1/chat/completions');
  expect(body).toEqual({
    ...chat,
    ...parameters,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    cache_salt: expect.stringMatching(/^[0-9a-f]{64}$/),
    fair_scope: expect.stringMatching(/^[\w-]{43}$/),
  });
  expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
  expect(headers.authorization).toBe('Bearer worker-token');
  expect(headers['x-api-key']).toBeUndefined();
});

test('what OpenAI and DeepSeek document and what needs nothing done is accepted', async () => {
  edge = await startHarness();
  const history = {
    role: 'assistant',
    content: 'Hi.',
    annotations: [],
    audio: null,
    function_call: null,
    refusal: null,
    tool_calls: null,
  };
  const question = { role: 'user', content: 'Who?', name: 'bob' };
  const { body } = await sent('/v1/chat/completions', {
    model: testModel,
    messages: [{ role: 'user', content: 'Hello.' }, history, question],
    metadata: { trace: 't1' },
    modalities: ['text'],
    prompt_cache_key: 'k',
    prompt_cache_retention: 'in_memory',
    safety_identifier: 'user-7',
    verbosity: 'medium',
    stream_options: null,
    // Not supported, and not asked for.
    audio: null,
    functions: null,
    prediction: null,
    web_search_options: null,
  });
  expect(body).toEqual({
    model: testModel,
    messages: [{ role: 'user', content: 'Hello.' }, history, question],
    user: 'user-7',
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    cache_salt: expect.any(String),
    fair_scope: expect.any(String),
  });
  expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
});

test.each(['auto', 'flex', 'priority'])(
  'a client that asks for the tier %s is told which one served it',
  async (tier) => {
    edge = await startHarness();
    const whole = await edge.post('/v1/chat/completions', { ...chat, service_tier: tier });
    expect(await whole.json()).toMatchObject({ service_tier: 'default' });
    const body = { ...chat, service_tier: tier, stream: true };
    const events = dataOf(await (await edge.post('/v1/chat/completions', body)).text());
    expect(events.slice(0, -1).map((event) => JSON.parse(event).service_tier)).toEqual(
      events.slice(0, -1).map(() => 'default'),
    );
    expect(await (await edge.post('/v1/chat/completions', chat)).json()).not.toHaveProperty(
      'service_tier',
    );
    expect(edge.worker.requests.at(0)?.body).not.toHaveProperty('service_tier');
  },
);

test('every documented parameter of a completion reaches the worker', async () => {
  edge = await startHarness();
  const parameters = {
    prompt: 'a',
    suffix: 'b',
    echo: true,
    logprobs: 2,
    max_tokens: 4,
    stop: 'x',
    temperature: 0,
    top_p: 1,
    frequency_penalty: 0,
    presence_penalty: 0,
  };
  const own = { best_of: 1, user_id: 'u-1' };
  const asked = { model: testModel, ...parameters, ...own };
  const { path, body } = await sent('/beta/completions', asked);
  expect(path).toBe('/v1/completions');
  expect(body).toMatchObject(parameters);
  expect(completionRequestSchema.safeParse(body).success).toBe(true);
});

test('a limit that nobody stated is left to a worker that fits it to its context', async () => {
  edge = await startHarness();
  expect((await sent('/v1/chat/completions', chat)).body.max_tokens).toBeUndefined();
  const named = await sent('/v1/chat/completions', { ...chat, max_completion_tokens: 12 });
  expect(named.body.max_tokens).toBe(12);
  expect(named.body.max_completion_tokens).toBeUndefined();
  await edge.close();
  edge = await startHarness({ hasJournal: false });
  expect((await sent('/v1/chat/completions', chat)).body.max_tokens).toBe(4_096);
  await edge.close();
  edge = await startHarness({ settings: { outputTokensDefault: 100 } });
  expect((await sent('/v1/chat/completions', chat)).body.max_tokens).toBe(100);
});

test('salts differ by tenant, user and model secret, and by nothing else', async () => {
  edge = await startHarness();
  const saltOf = async (body: object, key = edge.apiKey) => {
    const headers = { authorization: `Bearer ${key}` };
    expect((await edge.post('/v1/chat/completions', body, { headers })).status).toBe(200);
    return edge.worker.requests.at(-1)?.body.cache_salt;
  };
  const own = await saltOf(chat);
  expect(await saltOf({ ...chat, temperature: 0, user: 'x' })).toBe(own);
  expect(await saltOf(chat, await edge.addKey('acme'))).toBe(own);
  const others = [
    await saltOf(chat, await edge.addTenant('other')),
    await saltOf({ ...chat, user_id: 'u-1' }),
    await saltOf({ ...chat, user_id: 'u-2' }),
    await saltOf({ ...chat, cache_salt: 'u-1' }),
  ];
  expect(new Set([own, ...others]).size).toBe(5);
});
