/** Every way to ask wrongly, and the parameter that the error names. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { errorBodySchema } from '../../../../gpu-worker/protocol/errors.ts';
import { answering, httpWorker } from '../../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../../support/worker/http-worker.ts';

let worker: HttpWorker;
beforeAll(async () => {
  worker = await httpWorker({
    script: answering('x'),
    settings: { bodyBytesMax: 4096 },
    contextLength: 64,
  });
});
afterAll(async () => worker[Symbol.asyncDispose]());

const user = { role: 'user', content: 'Hi' };
const chat = { model: 'tiny', messages: [user] };
const completion = { model: 'tiny', prompt: 'Hi' };

async function post(path: string, body: string, headers: Record<string, string> = {}) {
  return worker.app.request(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  });
}

async function refused(path: string, body: unknown) {
  const response = await post(path, JSON.stringify(body));
  const { error } = errorBodySchema.parse(await response.json());
  return { status: response.status, ...error };
}

const badChats: [object, string][] = [
  [{ messages: [user] }, 'model'],
  [{ model: 5, messages: [user] }, 'model'],
  [{ model: 'tiny' }, 'messages'],
  [{ ...chat, messages: [] }, 'messages'],
  [{ ...chat, messages: 'Hi' }, 'messages'],
  [{ ...chat, messages: ['Hi'] }, 'messages[0]'],
  [{ ...chat, messages: [{ content: 'Hi' }] }, 'messages[0].role'],
  [{ ...chat, messages: [{ role: 'robot', content: 'Hi' }] }, 'messages[0].role'],
  [{ ...chat, messages: [user, { role: 'user' }] }, 'messages[1].content'],
  [{ ...chat, messages: [{ role: 'user', content: null }] }, 'messages[0].content'],
  [{ ...chat, messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
  [{ ...chat, messages: [{ role: 'user', content: [] }] }, 'messages[0].content'],
  [
    { ...chat, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
    'messages[0].content[0].type',
  ],
  [
    { ...chat, messages: [{ role: 'user', content: [{ type: 'text', text: 5 }] }] },
    'messages[0].content[0].text',
  ],
  [{ ...chat, messages: [{ ...user, surname: 'Ada' }] }, 'messages[0].surname'],
  [{ ...chat, messages: [{ ...user, extra: 1 }] }, 'messages[0].extra'],
  [{ ...chat, messages: [user, { role: 'assistant' }] }, 'messages[1].content'],
  [{ ...chat, messages: [{ role: 'system', content: 'only' }] }, 'messages'],
  [{ ...chat, messages: [{ role: 'assistant', content: 'x' }] }, 'messages'],
  [{ ...chat, messages: [user, { role: 'tool', content: 'x' }] }, 'messages[1].tool_call_id'],
  [{ ...chat, messages: [user, { role: 'tool', content: 'x', tool_call_id: 'a' }] }, 'messages'],
  [
    { ...chat, messages: [{ role: 'assistant', content: 'x', prefix: true }, user] },
    'messages[0].prefix',
  ],
  [
    {
      ...chat,
      messages: [user, { role: 'assistant', content: 'x', prefix: true, reasoning_content: 'y' }],
    },
    'messages[1].reasoning_content',
  ],
  [{ ...chat, max_tokens: 0 }, 'max_tokens'],
  [{ ...chat, max_tokens: 1.5 }, 'max_tokens'],
  [{ ...chat, max_tokens: '5' }, 'max_tokens'],
  [{ ...chat, max_tokens: 60 }, 'messages'],
  [{ ...chat, max_tokens: 5, max_completion_tokens: 6 }, 'max_completion_tokens'],
  [{ ...chat, messages: [{ role: 'user', content: 'long '.repeat(200) }] }, 'messages'],
  [{ ...chat, logprobs: 1 }, 'logprobs'],
  [{ ...chat, top_logprobs: 5 }, 'top_logprobs'],
  [{ ...chat, logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
  [{ ...chat, thinking: { type: 'enabled' } }, 'thinking'],
  [{ ...chat, thinking: { type: 'sometimes' } }, 'thinking.type'],
  [{ ...chat, chat_template_kwargs: { thinking: true } }, 'chat_template_kwargs.thinking'],
  [{ ...chat, chat_template_kwargs: { other: true } }, 'chat_template_kwargs.other'],
  [
    { ...chat, thinking: { type: 'disabled' }, chat_template_kwargs: { thinking: true } },
    'thinking',
  ],
  [{ ...chat, tools: [{ type: 'function', function: { name: 'a b' } }] }, 'tools[0].function.name'],
  [{ ...chat, tool_choice: 'perhaps' }, 'tool_choice'],
  [{ ...chat, tool_choice: 'required' }, 'tool_choice'],
  [{ ...chat, echo: true }, 'echo'],
];

const badCompletions: [object, string][] = [
  [{ model: 'tiny' }, 'prompt'],
  [{ ...completion, prompt: '' }, 'prompt'],
  [{ ...completion, prompt: null }, 'prompt'],
  [{ ...completion, prompt: {} }, 'prompt'],
  [{ ...completion, prompt: [] }, 'prompt'],
  [{ ...completion, prompt: ['a', ''] }, 'prompt[1]'],
  [{ ...completion, prompt: ['a', 5] }, 'prompt[1]'],
  [{ ...completion, prompt: [1, 'a'] }, 'prompt[1]'],
  [{ ...completion, prompt: [1, -1] }, 'prompt[1]'],
  [{ ...completion, prompt: [1.5] }, 'prompt[0]'],
  [{ ...completion, prompt: [1, 4096] }, 'prompt[1]'],
  [{ ...completion, prompt: [[1], []] }, 'prompt[1]'],
  [{ ...completion, prompt: [[1], [2, 4096]] }, 'prompt[1][1]'],
  [{ ...completion, prompt: [[1], 'a'] }, 'prompt[1]'],
  [{ ...completion, prompt: Array(65).fill('a') }, 'prompt'],
  [{ ...completion, prompt: Array(64).fill(1) }, 'prompt'],
  [{ ...completion, max_tokens: -1 }, 'max_tokens'],
  [{ ...completion, logprobs: true }, 'logprobs'],
  [{ ...completion, logprobs: 21 }, 'logprobs'],
  [{ ...completion, echo: true, suffix: 'x' }, 'echo'],
  [{ ...completion, prompt: [1], suffix: 'x' }, 'suffix'],
  [{ ...completion, best_of: 2 }, 'best_of'],
  [{ ...completion, messages: [] }, 'messages'],
];

const badInBoth: [object, string][] = [
  [{ n: 0 }, 'n'],
  [{ n: 9 }, 'n'],
  [{ temperature: 2.1 }, 'temperature'],
  [{ temperature: -0.1 }, 'temperature'],
  [{ temperature: 'hot' }, 'temperature'],
  [{ top_p: 1.1 }, 'top_p'],
  [{ top_p: -0.1 }, 'top_p'],
  [{ top_k: -2 }, 'top_k'],
  [{ top_k: 1.5 }, 'top_k'],
  [{ min_p: 2 }, 'min_p'],
  [{ seed: 1.5 }, 'seed'],
  [{ seed: 2 ** 64 }, 'seed'],
  [{ seed: '7' }, 'seed'],
  [{ repetition_penalty: 0 }, 'repetition_penalty'],
  [{ frequency_penalty: 2.5 }, 'frequency_penalty'],
  [{ presence_penalty: -2.5 }, 'presence_penalty'],
  [{ logit_bias: { a: 1 } }, 'logit_bias.a'],
  [{ logit_bias: { '1': 101 } }, 'logit_bias.1'],
  [{ logit_bias: { '4096': 1 } }, 'logit_bias.4096'],
  [{ logit_bias: [1] }, 'logit_bias'],
  [{ stop: 5 }, 'stop'],
  [{ stop: '' }, 'stop'],
  [{ stop: ['a', ''] }, 'stop[1]'],
  [{ stop: Array(17).fill('a') }, 'stop'],
  [{ stop: 'a'.repeat(257) }, 'stop'],
  [{ stop_token_ids: [-1] }, 'stop_token_ids[0]'],
  [{ stop_token_ids: [1, 4096] }, 'stop_token_ids[1]'],
  [{ ignore_eos: 'yes' }, 'ignore_eos'],
  [{ stream: 'yes' }, 'stream'],
  [{ stream_options: { include_usage: true } }, 'stream_options'],
  [{ stream: true, stream_options: { other: true } }, 'stream_options.other'],
  [{ stream: true, prompt_logprobs: 1 }, 'prompt_logprobs'],
  [{ prompt_logprobs: 21 }, 'prompt_logprobs'],
  [{ cache_salt: '' }, 'cache_salt'],
  [{ user: 5 }, 'user'],
  [{ response_format: { type: 'json_object' }, ignore_eos: true }, 'ignore_eos'],
  [{ response_format: { type: 'json_schema' } }, 'response_format.json_schema'],
  [
    { response_format: { type: 'json_schema', json_schema: { name: 'a b', schema: {} } } },
    'response_format.json_schema.name',
  ],
  [
    { response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { not: {} } } } },
    'response_format.json_schema.schema',
  ],
  [{ response_format: { type: 'json_object', schema: 5 } }, 'response_format.schema'],
  [{ response_format: { type: 'xml' } }, 'response_format.type'],
  [{ surprise: 1 }, 'surprise'],
  [{ reasoning_effort: 'high' }, 'reasoning_effort'],
  [{ store: true }, 'store'],
];

test.for([
  ...badChats.map(([body, param]) => ['/v1/chat/completions', body, param] as const),
  ...badCompletions.map(([body, param]) => ['/v1/completions', body, param] as const),
  ...badInBoth.flatMap(([fields, param]) => [
    ['/v1/chat/completions', { ...chat, ...fields }, param] as const,
    ['/v1/completions', { ...completion, ...fields }, param] as const,
  ]),
])('%s refuses %j', async ([path, body, param]) => {
  const error = await refused(path, body);
  expect(error).toMatchObject({ status: 400, param });
  expect(error.message).toContain(param.split(/[.[]/)[0]);
});

test('nothing that was refused reached the engine or the journal', () => {
  expect(worker.engine.requests).toEqual([]);
});

test('a prompt that is too long is refused with the numbers', async () => {
  const error = await refused('/v1/completions', { ...completion, prompt: [1, 2], max_tokens: 63 });
  expect(error).toMatchObject({ code: 'context_length_exceeded', param: 'prompt' });
  expect(error.message).toContain('64 tokens');
  expect(error.message).toContain('65 tokens (2 in the prompt, 63 in the completion)');
  const overflow = { prompt_tokens: 2, output_tokens: 63, context_tokens: 64 };
  expect(error).toMatchObject({ overflow });
});

test('a text that is far too long is refused before all of it is tokenised', async () => {
  const text = '4?7!'.repeat(900);
  for (const [path, body, param] of [
    ['/v1/completions', { ...completion, prompt: text }, 'prompt'],
    ['/v1/chat/completions', { ...chat, messages: [{ ...user, content: text }] }, 'messages'],
  ] as const) {
    const error = await refused(path, body);
    expect(error).toMatchObject({ status: 400, param, code: 'context_length_exceeded' });
    expect(error.message).toMatch(/took at least \d+ tokens/);
    expect(error).toMatchObject({ overflow: { output_tokens: null, context_tokens: 64 } });
  }
});

test('more than an answer can tell of its prompts at once is refused', async () => {
  await using large = await httpWorker({ script: answering('a'), contextLength: 8192 });
  const ask = async (body: object) => {
    const response = await large.app.request('/v1/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny', max_tokens: 1, ...body }),
    });
    return [response.status, await response.json()];
  };
  const prompt = Array.from({ length: 4096 }, () => 9);
  expect(await ask({ prompt, prompt_logprobs: 1 })).toMatchObject([200, {}]);
  const refusal = (param: string) => [400, { error: { code: 'invalid_value', param } }];
  expect(await ask({ prompt, prompt_logprobs: 2 })).toMatchObject(refusal('prompt_logprobs'));
  expect(await ask({ prompt, echo: true, logprobs: 1, n: 3 })).toMatchObject(refusal('logprobs'));
  const blanks = Array.from({ length: 64 }, () => ' '.repeat(16_384));
  expect(await ask({ prompt: blanks, echo: true, n: 3 })).toMatchObject(refusal('echo'));
});

test('log-probabilities that a whole answer could not keep are refused, unless streamed', async () => {
  await using large = await httpWorker({ script: answering('a'), contextLength: 131_072 });
  const ask = async (path: string, body: object) => {
    const response = await large.app.request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tiny', n: 8, ...body }),
    });
    const text = await response.text();
    return [response.status, response.ok ? {} : JSON.parse(text)];
  };
  const refusal = (param: string) => [400, { error: { code: 'invalid_value', param } }];
  // 8 choices of 6242 tokens, each with 21 values, are just too many.
  const long = { max_tokens: 6_242 };
  const text = { prompt: 'a', logprobs: 20 };
  const texts = '/v1/completions';
  expect(await ask(texts, { ...text, ...long })).toMatchObject(refusal('logprobs'));
  expect(await ask(texts, { ...text, ...long, stream: true })).toMatchObject([200, {}]);
  expect(await ask(texts, { ...text, max_tokens: 6_241 })).toMatchObject([200, {}]);
  const told = { messages: [user], logprobs: true, top_logprobs: 20 };
  const chats = '/v1/chat/completions';
  expect(await ask(chats, { ...told, ...long })).toMatchObject(refusal('top_logprobs'));
  expect(await ask(chats, { ...told, ...long, stream: true })).toMatchObject([200, {}]);
  expect(await ask(chats, told)).toMatchObject([200, {}]);
});

test('a parameter that is known but not supported is refused with the reason', async () => {
  const error = await refused('/v1/completions', { ...completion, best_of: 2 });
  expect(error.code).toBe('unsupported_parameter');
  expect(error.message).toContain('use n');
});

test('a body that is not an object, or not JSON, is refused as such', async () => {
  for (const body of ['null', '[]', '"text"', '5']) {
    const response = await post('/v1/chat/completions', body);
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { param: null, code: 'invalid_type' } },
    ]);
  }
  for (const body of ['', '{', '{"model": tiny}', 'model=tiny']) {
    const response = await post('/v1/chat/completions', body);
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { type: 'invalid_request_error', code: 'invalid_json' } },
    ]);
  }
});

test('a body of another media type is refused', async () => {
  const form = await post('/v1/completions', 'model=tiny', {
    'content-type': 'application/x-www-form-urlencoded',
  });
  expect(form.status).toBe(415);
  const gzip = await post('/v1/completions', '{}', { 'content-encoding': 'gzip' });
  expect(gzip.status).toBe(415);
});

test('a body over the limit is refused, whether it says its length or not', async () => {
  const long = JSON.stringify({ ...completion, prompt: 'x'.repeat(5000) });
  const stated = await post('/v1/completions', long, { 'content-length': String(long.length) });
  expect(stated.status).toBe(413);
  const streamed = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: new Blob([long]).stream(),
    duplex: 'half',
  };
  const chunked = await worker.app.request('/v1/completions', streamed);
  expect([chunked.status, await chunked.json()]).toMatchObject([
    413,
    { error: { code: 'request_too_large' } },
  ]);
});

test('an unknown model is not found', async () => {
  expect(await refused('/v1/chat/completions', { ...chat, model: 'gpt-4o' })).toMatchObject({
    status: 404,
    param: 'model',
    code: 'model_not_found',
    message: expect.stringMatching(/'gpt-4o' does not exist\. This worker serves '\S+'\.$/),
  });
});

test('unknown paths and wrong methods get errors of the same shape', async () => {
  const unknown = await worker.app.request('/v1/embeddings', { method: 'POST' });
  expect([unknown.status, await unknown.json()]).toMatchObject([
    404,
    { error: { code: 'unknown_url', message: 'Unknown URL: POST /v1/embeddings.' } },
  ]);
  const wrong = await worker.app.request('/v1/completions');
  expect(wrong.headers.get('allow')).toBe('POST');
  expect([wrong.status, await wrong.json()]).toMatchObject([
    405,
    { error: { code: 'method_not_allowed' } },
  ]);
});

test('an x-request-id that is not well-formed is refused, and the answer has a new one', async () => {
  for (const id of ['a b', 'x'.repeat(129), 'é', 'a/b', '']) {
    const response = await post('/v1/completions', JSON.stringify(completion), {
      'x-request-id': id,
    });
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { param: 'x-request-id' } },
    ]);
    expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  }
});

test('errors carry the request id too', async () => {
  const response = await post('/v1/completions', '{', { 'x-request-id': 'bad-one' });
  expect(response.headers.get('x-request-id')).toBe('bad-one');
});
