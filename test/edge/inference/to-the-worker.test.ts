/** The body that a worker is sent for a client's request. */
import { afterEach, expect, test } from 'vitest';
import {
  chatCompletionRequestSchema,
  completionRequestSchema,
} from '../../../gpu-worker/protocol/requests.ts';
import { dataOf, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const chat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };
const sent = async (path: string, body: unknown) => {
  const response = await edge.post(path, body);
  expect(response.status).toBe(200);
  await response.text();
  const request = edge.worker.requests.at(-1);
  if (!request) throw new Error('the worker was sent nothing');
  return request;
};

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

const schema = { type: 'object', properties: { a: { type: 'null' } } };
const format = {
  type: 'json_schema',
  json_schema: { name: 'answer', schema, strict: true },
};
const strictTools = [
  { type: 'function', function: { name: 'f', parameters: schema, strict: true } },
];

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
  [{ thinking: { type: 'enabled' } }, { chat_template_kwargs: { thinking: true } }],
  [{ thinking: { type: 'disabled' } }, { chat_template_kwargs: { thinking: false } }],
  [
    { reasoning_effort: 'max' },
    { chat_template_kwargs: { thinking: true }, reasoning_effort: 'high' },
  ],
  [
    { reasoning_effort: 'minimal' },
    { chat_template_kwargs: { thinking: true }, reasoning_effort: 'low' },
  ],
  [{ reasoning_effort: 'none' }, { chat_template_kwargs: { thinking: false } }],
  [
    { reasoning_effort: 'high', thinking: { type: 'disabled' } },
    { chat_template_kwargs: { thinking: false } },
  ],
  [{ chat_template_kwargs: { thinking: true } }, { chat_template_kwargs: { thinking: true } }],
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

test('a history may hold what OpenAI’s client parsed, and the model is shown the texts alone', async () => {
  edge = await startHarness();
  const called = { name: 'look', arguments: '{"city":"Bergen"}' };
  const call = { id: 'call-1', type: 'function', function: called };
  const parsedCall = { ...call, function: { ...called, parsed_arguments: { city: 'Bergen' } } };
  const result = { role: 'tool', tool_call_id: 'call-1', content: 'Rain.' };
  const history = (calls: object[], parsed: object) => [
    { role: 'user', content: 'Weather?' },
    { role: 'assistant', content: null, tool_calls: calls, ...parsed },
    result,
    { role: 'assistant', content: '{"rain":true}', ...parsed },
    { role: 'user', content: 'Sure?' },
  ];
  const messages = history([parsedCall], { parsed: { rain: true } });
  const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
  expect(body.messages).toEqual(history([call], {}));
});

test('a refusal in the history is what its assistant said', async () => {
  edge = await startHarness();
  const user = { role: 'user', content: 'Why?' };
  for (const content of [null, 'Rather not.']) {
    const refused = { role: 'assistant', content, refusal: 'I cannot.' };
    const messages = [user, refused, { ...refused, content: 'Yes.', refusal: null }, user];
    const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
    const said = [content ?? 'I cannot.', 'Yes.'].map((text) => ({
      role: 'assistant',
      content: text,
      refusal: null,
    }));
    expect(body.messages).toEqual([user, ...said, user]);
  }
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

test('a conversation that grows is sent where its prefix is, and the index learns the reply', async () => {
  edge = await startHarness({ scripts: [{}, {}, {}] });
  const messages = [{ role: 'user', content: 'A long story. '.repeat(800) }];
  const served = new Set<string>();
  for (let turn = 0; turn < 4; turn++) {
    const response = await edge.post('/v1/chat/completions', { model: testModel, messages });
    const { choices, usage } = await response.json();
    expect(usage.prompt_cache_hit_tokens > 0).toBe(turn > 0);
    await edge.idle();
    messages.push(choices[0].message, { role: 'user', content: 'Go on. '.repeat(400) });
    served.add(edge.settles.at(-1)?.worker ?? '');
    expect((edge.settles.at(-1)?.predictedCachedBytes ?? 0) > 0).toBe(turn > 0);
  }
  expect(served.size).toBe(1);
});

/** A call as each engine's answers hold it, whole or collected from a stream. */
const emitted = {
  vllm: {
    role: 'assistant',
    content: null,
    refusal: null,
    annotations: null,
    audio: null,
    function_call: null,
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
    reasoning: 'hm',
    reasoning_content: 'hm',
  },
  sglang: {
    role: 'assistant',
    content: null,
    reasoning_content: 'hm',
    tool_calls: [
      { id: 'c1', index: 0, type: 'function', function: { name: 'f', arguments: '{}' } },
    ],
  },
  'TensorRT-LLM': {
    role: 'assistant',
    content: '',
    reasoning_content: null,
    reasoning: 'hm',
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
  },
  'llama.cpp': {
    role: 'assistant',
    content: null,
    reasoning_content: 'hm',
    tool_calls: [{ id: 'c1', index: null, function: { name: 'f', arguments: {} } }],
  },
  'a gateway': {
    role: 'assistant',
    content: null,
    reasoning: 'hm',
    reasoning_details: [{ type: 'reasoning.text', text: 'hm' }],
    refusal: null,
    tool_calls: [
      { id: 'c1', index: 0, type: 'function', function: { name: 'f', arguments: '{}' } },
    ],
  },
};

test.each(Object.entries(emitted))('a history of %s is taken', async (_, said) => {
  const messages = [
    { role: 'user', content: 'Hello.' },
    { ...said },
    { role: 'tool', tool_call_id: 'c1', content: 'ok' },
    { role: 'assistant', content: 'Hi.', tool_calls: [], reasoning: null },
    { role: 'user', content: 'And now?' },
  ];
  const call = { id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } };
  const taken = { role: 'assistant', reasoning_content: 'hm', tool_calls: [call] };
  for (const hasJournal of [true, false]) {
    edge = await startHarness({ hasJournal });
    const { body } = await sent('/v1/chat/completions', { model: testModel, messages });
    const history = body.messages as object[];
    expect(history[1]).toMatchObject({ ...taken, ...(!hasJournal && { reasoning: 'hm' }) });
    expect(history[1]).not.toHaveProperty('reasoning_details');
    expect(history[3]).not.toHaveProperty('tool_calls');
    if (hasJournal) expect(chatCompletionRequestSchema.safeParse(body).success).toBe(true);
    await edge.close();
  }
  // Fields that a client may send to a worker itself are taken as well.
  const direct = chatCompletionRequestSchema.parse({ model: testModel, messages });
  expect(direct.messages[1]).toMatchObject(taken);
  expect(direct.messages[1]).not.toHaveProperty('reasoning');
});
