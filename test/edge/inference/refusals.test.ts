/** Refusals that cost nothing: by status, code and the parameter at fault. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
beforeAll(async () => {
  edge = await startHarness({ settings: { bodyBytesMax: 100_000 } });
});
afterAll(() => edge.close());

const chat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };
const text = { model: testModel, prompt: 'Hello' };
const claude = { ...chat, max_tokens: 16 };
/** OpenAI's tools have names of at most 64 characters. */
const longName = 'n'.repeat(65);

const errorOf = async (path: string, body: unknown, headers: Record<string, string> = {}) => {
  const response = await edge.post(path, body, { headers });
  const json = await response.json();
  expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f]{32}$/);
  return { status: response.status, ...json.error, type: json.error.type };
};

describe('a chat completion', () => {
  test.each([
    ['{"model":', 400, 'invalid_json', null],
    ['[1]', 400, 'invalid_json', null],
    ['"x"', 400, 'invalid_json', null],
    [{ messages: chat.messages }, 400, 'missing_required_parameter', 'model'],
    [{ model: testModel }, 400, 'missing_required_parameter', 'messages'],
    [{ ...chat, temprature: 1 }, 400, 'unknown_parameter', 'temprature'],
    [{ ...chat, reasoning_effort: 'much' }, 422, 'invalid_value', 'reasoning_effort'],
    [{ ...chat, guided_json: {} }, 400, 'unsupported_parameter', 'guided_json'],
    [
      { ...chat, response_format: { type: 'json_schema' } },
      400,
      'missing_required_parameter',
      'response_format.json_schema',
    ],
    [{ ...chat, response_format: { type: 'yaml' } }, 422, 'invalid_value', 'response_format.type'],
    [{ ...chat, tool_choice: 'always' }, 422, 'invalid_value', 'tool_choice'],
    [{ ...chat, stream: 'yes' }, 400, 'invalid_type', 'stream'],
    [{ ...chat, temperature: 2.1 }, 422, 'invalid_value', 'temperature'],
    [{ ...chat, max_tokens: 0 }, 422, 'invalid_value', 'max_tokens'],
    [
      { ...chat, max_tokens: 5, max_completion_tokens: 6 },
      422,
      'invalid_value',
      'max_completion_tokens',
    ],
    [{ ...chat, user_id: 'a b' }, 422, 'invalid_value', 'user_id'],
    [
      { ...chat, tools: [{ type: 'function', function: { name: longName } }] },
      422,
      'invalid_value',
      'tools[0].function.name',
    ],
    [
      { ...chat, tool_choice: { type: 'function', function: { name: longName } } },
      422,
      'invalid_value',
      'tool_choice.function.name',
    ],
    [
      {
        ...chat,
        messages: [
          ...chat.messages,
          {
            role: 'assistant',
            tool_calls: [
              { id: 'c', type: 'function', function: { name: longName, arguments: '{}' } },
            ],
          },
        ],
      },
      422,
      'invalid_value',
      'messages[1].tool_calls[0].function.name',
    ],
    [{ ...chat, store: true }, 422, 'invalid_value', 'store'],
    [{ ...chat, stream_options: { include_usage: true } }, 422, 'invalid_value', 'stream_options'],
    [{ ...chat, messages: [] }, 422, 'invalid_value', 'messages'],
    [
      { ...chat, messages: [{ content: 'x' }] },
      400,
      'missing_required_parameter',
      'messages[0].role',
    ],
    [
      { ...chat, messages: [{ role: 'assistant', content: 'x', audio: { id: 'a' } }] },
      400,
      'invalid_type',
      'messages[0].audio',
    ],
    [{ ...chat, service_tier: 'gold' }, 422, 'invalid_value', 'service_tier'],
    [{ ...chat, prompt_cache_retention: '24h' }, 422, 'invalid_value', 'prompt_cache_retention'],
    [{ ...chat, modalities: ['text', 'audio'] }, 422, 'invalid_value', 'modalities'],
    [{ ...chat, verbosity: 'low' }, 422, 'invalid_value', 'verbosity'],
    [{ ...chat, metadata: { a: 1 } }, 400, 'invalid_type', 'metadata.a'],
    [
      { ...chat, stream: true, stream_options: { include_obfuscation: true } },
      422,
      'invalid_value',
      'stream_options.include_obfuscation',
    ],
    [
      { ...chat, messages: [{ role: 'wizard', content: 'x' }] },
      422,
      'invalid_value',
      'messages[0].role',
    ],
    [{ ...chat, model: 'none' }, 404, 'model_not_found', 'model'],
  ])('%j is refused', async (body, status, code, param) => {
    const error = await errorOf('/v1/chat/completions', body);
    expect(error).toMatchObject({ status, code, param });
    if (param !== null) expect(error.message).toContain(status === 404 ? 'none' : param);
  });

  test('a part that is no text is refused by name', async () => {
    const messages = [
      { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] },
    ];
    const error = await errorOf('/v1/chat/completions', { ...chat, messages });
    expect(error.param).toMatch(/^messages\[0\]\.content\[0\]/);
    expect(error.message).toContain('the model reads and writes text only');
  });

  test('what is nested too deeply is refused, wherever it stands', async () => {
    const deep = `${'{"a":'.repeat(9_000)}1${'}'.repeat(9_000)}`;
    const format = `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":${deep}}}`;
    const tool = `"tools":[{"type":"function","function":{"name":"f","parameters":${deep}}}]`;
    const use = `{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":${deep}}]}`;
    const result = `{"role":"user","content":[{"type":"tool_result","tool_use_id":"a"}]}`;
    const hello = `"model":"${testModel}","messages":[{"role":"user","content":"x"}]`;
    const bodies = [
      ['/v1/chat/completions', `{${hello},${tool}}`],
      ['/v1/chat/completions', `{${hello},${format}}`],
      ['/v1/completions', `{"model":"${testModel}","prompt":"x",${format}}`],
      ['/v1/quote', `{${hello},${tool}}`],
      [
        '/anthropic/v1/messages',
        `{"model":"${testModel}","max_tokens":1,"messages":[{"role":"user","content":"x"},${use},${result}],"tools":[{"name":"f","input_schema":{"type":"object"}}]}`,
      ],
      [
        '/v1/chat/completions',
        `{"model":"${testModel}","messages":${'['.repeat(40_000)}${']'.repeat(40_000)}}`,
      ],
    ] as const;
    for (const [path, body] of bodies) {
      const { status, message } = await errorOf(path, body);
      expect({ path, status, message }).toMatchObject({
        status: 422,
        message: 'The request is nested deeper than 256 levels.',
      });
    }
  });

  test('a body beyond the limit is refused, stated or not', async () => {
    const long = { ...chat, messages: [{ role: 'user', content: 'x'.repeat(200_000) }] };
    const bytes = new TextEncoder().encode(JSON.stringify(long));
    expect((await errorOf('/v1/chat/completions', long)).code).toBe('request_too_large');
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(bytes.subarray(0, 60_000));
        controller.enqueue(bytes.subarray(60_000));
        controller.close();
      },
    });
    const init = {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.apiKey}` },
      body: stream,
      duplex: 'half',
    };
    const request = new Request('http://edge/v1/chat/completions', init);
    expect((await edge.app.request(request)).status).toBe(413);
  });

  test('a compressed body is said to be one', async () => {
    const headers = { 'content-encoding': 'gzip' };
    const answer = await edge.post('/v1/chat/completions', chat, { headers });
    expect(answer.status).toBe(415);
    expect(await answer.json()).toMatchObject({ error: { code: 'unsupported_encoding' } });
  });

  test('a client that breaks its request off is no fault of ours, and costs nothing', async () => {
    const body = new ReadableStream({
      pull: (controller) => controller.error(new Error('connection reset')),
    });
    const headers = { authorization: `Bearer ${edge.apiKey}` };
    // The types are those of Node's fetch, and not those of the web.
    const init = { method: 'POST', headers, body, duplex: 'half' } as RequestInit;
    const answer = await edge.app.request('/v1/chat/completions', init);
    expect(answer.status).toBe(499);
    expect(edge.logged).toEqual([]);
  });

  test('bytes that are no UTF-8 are no JSON', async () => {
    const response = await edge.app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { authorization: `Bearer ${edge.apiKey}` },
      body: new Uint8Array([0x7b, 0xff, 0x7d]),
    });
    expect(response.status).toBe(400);
  });
});

const longLogprobs = { n: 8, max_tokens: 6_242 };

test.each([
  ['/v1/chat/completions', { ...chat, logprobs: true, top_logprobs: 20 }, 'top_logprobs'],
  ['/v1/completions', { ...text, logprobs: 20 }, 'logprobs'],
])('log-probabilities of %s that a whole answer could not keep', async (path, body, param) => {
  const error = await errorOf(path, { ...body, ...longLogprobs });
  expect(error).toMatchObject({ status: 422, code: 'invalid_value', param });
  for (const shorter of [{ stream: true }, { max_tokens: 6_241 }]) {
    const response = await edge.post(path, { ...body, ...longLogprobs, ...shorter });
    expect(response.status, await response.text()).toBe(200);
  }
});

describe('a completion', () => {
  test.each([
    [{ model: testModel }, 400, 'prompt'],
    [{ ...text, prompt: 5 }, 422, 'prompt'],
    [{ ...text, prompt: ['a', 1] }, 422, 'prompt[1]'],
    [{ ...text, best_of: 3 }, 422, 'best_of'],
    [{ ...text, messages: [] }, 400, 'messages'],
  ])('%j is refused', async (body, status, param) => {
    const error = await errorOf('/v1/completions', body);
    expect(error).toMatchObject({ param });
    expect([400, status]).toContain(error.status);
  });
});

describe("a message in Anthropic's protocol", () => {
  test.each([
    [chat, 400, "'max_tokens'"],
    [{ ...claude, temperature: 2.5 }, 422, "'temperature'"],
    [{ ...claude, compaction: { type: 'summarize' } }, 400, 'shortens its own conversation'],
    [{ ...claude, workspace_id: 'w' }, 400, 'a key belongs to one account'],
    [{ ...claude, inference_geo: 'us' }, 400, 'the operator decides where the workers are'],
    [{ ...claude, top_n: 3 }, 400, "'top_n'"],
    [
      { ...claude, messages: [{ role: 'user', content: [{ type: 'image', source: {} }] }] },
      422,
      "'messages[0].content[0].type': the model reads text and the results of tools",
    ],
    [{ ...claude, messages: [{ role: 'developer', content: 'x' }] }, 422, 'messages[0].role'],
  ])('%j is refused', async (body, status, message) => {
    const response = await edge.post('/anthropic/v1/messages', body);
    expect(response.status).toBe(status);
    const json = await response.json();
    expect(json).toMatchObject({ type: 'error', error: { type: 'invalid_request_error' } });
    expect(json.request_id).toBe(response.headers.get('x-request-id'));
    expect(json.error.message).toContain(message);
  });
});

test('a balance that does not cover the request is 402, and says what is missing', async () => {
  const key = await edge.addTenant('poor', 1_000_000);
  const headers = { authorization: `Bearer ${key}` };
  const error = await errorOf('/v1/chat/completions', { ...chat, max_tokens: 60_000 }, headers);
  expect(error).toMatchObject({ status: 402, code: 'insufficient_balance' });
  expect(error.message).toContain('0.001 USD are available');
  const small = await edge.post('/v1/chat/completions', { ...chat, max_tokens: 8 }, { headers });
  expect(small.status).toBe(200);
});

test('a model without a price or a worker is said to be unavailable', async () => {
  const model = {
    contextLength: 1024,
    revision: 'r',
    tokenizer: 't',
    ownedBy: 'sift',
    createdAtMs: 0,
  };
  await edge.directory.putModel({ ...model, id: 'free' });
  expect(await errorOf('/v1/chat/completions', { ...chat, model: 'free' })).toMatchObject({
    status: 503,
    code: 'price_missing',
  });
  await edge.directory.addPrice({
    id: 'p2',
    model: 'free',
    inputCached: 1,
    inputUncached: 1,
    output: 1,
    fromMs: 0,
    window: null,
  });
  expect(await errorOf('/v1/chat/completions', { ...chat, model: 'free' })).toMatchObject({
    status: 503,
    code: 'no_worker',
  });
});

test('an unknown route and a wrong method have the shape that their clients know', async () => {
  const unknown = await edge.get('/v2/nothing');
  expect(unknown.status).toBe(404);
  expect((await unknown.json()).error.code).toBe('unknown_url');
  const misspelt = await (await edge.get('/v1/chat/completion')).json();
  expect(misspelt.error.message).toBe(
    'There is no GET /v1/chat/completion. The nearest one is /v1/chat/completions.',
  );
  const long = await (await edge.get(`/${'x'.repeat(4_000)}`)).json();
  expect(long.error.message).not.toContain('nearest');
  const wrong = await edge.get('/v1/chat/completions');
  expect(wrong.status).toBe(405);
  expect(wrong.headers.get('allow')).toBe('POST');
  const claudes = await edge.get('/anthropic/v1/nothing');
  expect(await claudes.json()).toMatchObject({ type: 'error', error: { type: 'not_found_error' } });
  for (const response of [unknown, wrong, claudes]) {
    expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f]{32}$/);
  }
});

test('a fault of ours tells the client nothing, and the log why', async () => {
  const broken = await startHarness();
  broken.tenant.admit = () => Promise.reject(new Error('secret table is gone'));
  const response = await broken.post('/v1/chat/completions', chat);
  expect(response.status).toBe(500);
  expect(await response.text()).not.toContain('secret');
  expect(JSON.stringify(broken.logged)).toContain('secret table is gone');
  await broken.close();
});
