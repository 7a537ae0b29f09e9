import { afterEach, expect, test } from 'vitest';
import { dataOf, startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const hello = { model: testModel, messages: [{ role: 'user', content: 'Say hello.' }] };

test('a whole answer has the text, the usage in both dialects and its cost', async () => {
  edge = await startHarness({ scripts: [{ promptTokens: 100, cachedTokens: 64 }] });
  const response = await edge.post('/v1/chat/completions', hello);
  expect(response.status).toBe(200);
  const body = await response.json();
  expect(body).toMatchObject({
    id: `chatcmpl-${response.headers.get('x-request-id')}`,
    object: 'chat.completion',
    model: testModel,
    system_fingerprint: 'fp_stub',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: 'Hello wörld 🌍!' },
        finish_reason: 'stop',
      },
    ],
    usage: {
      prompt_tokens: 100,
      completion_tokens: 5,
      prompt_tokens_details: { cached_tokens: 64 },
      prompt_cache_hit_tokens: 64,
      prompt_cache_miss_tokens: 36,
      cost_nano_usd: 64 * 28 + 36 * 280 + 5 * 420,
    },
  });
  expect(response.headers.get('x-sift-cost-nano-usd')).toBe(String(64 * 28 + 36 * 280 + 5 * 420));
  await edge.idle();
  expect(edge.settles).toHaveLength(1);
  expect(await edge.tenant.balance()).toMatchObject({ held: 0, granted: 10_000_000_000 - 13_972 });
});

test('a stream has the events of the worker and ends with [DONE]', async () => {
  edge = await startHarness();
  const response = await edge.post('/chat/completions', { ...hello, stream: true });
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  const events = dataOf(await response.text());
  expect(events.at(-1)).toBe('[DONE]');
  expect(events.slice(0, -1).map((event) => JSON.parse(event))).toEqual(
    [{ role: 'assistant', content: '' }, 'Hel', 'lo', ' wörld', ' 🌍', '!', {}].map(
      (delta, index) => ({
        id: `chatcmpl-${response.headers.get('x-request-id')}`,
        object: 'chat.completion.chunk',
        created: 1_800_000_000,
        model: testModel,
        system_fingerprint: 'fp_stub',
        choices: [
          {
            index: 0,
            delta: typeof delta === 'string' ? { content: delta } : delta,
            logprobs: null,
            finish_reason: index === 6 ? 'stop' : null,
          },
        ],
      }),
    ),
  );
});

test.for<Record<string, string>>([{}, { 'idempotency-key': 'long' }])(
  'a whole answer of megabytes is settled once and written in pieces: %j',
  async (headers) => {
    const words = ['a', 'ö', '\n'].map((word) => word.repeat(500_000));
    edge = await startHarness({ scripts: [{ words }] });
    const response = await edge.post('/v1/chat/completions', hello, { headers });
    expect(response.status).toBe(200);
    expect(Number(response.headers.get('x-sift-cost-nano-usd'))).toBeGreaterThan(0);
    const pieces = await Array.fromAsync(response.body ?? []);
    expect(pieces.length).toBeGreaterThan(5);
    const answer = JSON.parse(Buffer.concat(pieces).toString());
    expect(answer.choices[0].message.content).toBe(words.join(''));
    await edge.idle();
    expect(edge.settles).toHaveLength(1);
  },
);

test('a whole answer that takes long begins with empty lines, which JSON does not mind', async () => {
  edge = await startHarness({
    scripts: [{ pauseMs: 60 }],
    settings: { wholeAnswerQuietMs: 20, keepAliveMs: 10 },
  });
  const response = await edge.post('/v1/chat/completions', hello);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('application/json');
  const text = await response.text();
  expect(text).toMatch(/^\n+\{/);
  expect(JSON.parse(text).usage.cost_nano_usd).toBeGreaterThan(0);
  await edge.idle();
  expect(edge.settles).toHaveLength(1);
});

test('a long whole answer that fails breaks off, and costs nothing', async () => {
  edge = await startHarness({
    scripts: [{ pauseMs: 60, fault: { kind: 'garbage', event: 4 } }],
    settings: { wholeAnswerQuietMs: 20, keepAliveMs: 10 },
  });
  const response = await edge.post('/v1/chat/completions', hello);
  await expect(response.text()).rejects.toThrow('The worker failed');
  await edge.idle();
  expect(await edge.tenant.balance()).toMatchObject({ held: 0, granted: 10_000_000_000 });
});

test('a client that leaves a long whole answer pays for what was generated', async () => {
  edge = await startHarness({
    scripts: [{ pauseMs: 60, fault: { kind: 'stall', event: 3 } }],
    settings: { wholeAnswerQuietMs: 20, keepAliveMs: 10 },
  });
  const response = await edge.post('/v1/chat/completions', hello);
  const reader = response.body?.getReader();
  for (let read = 0; read < 6; read++) await reader?.read();
  await reader?.cancel();
  await edge.idle();
  expect(edge.settles).toMatchObject([{ outcome: 'aborted' }]);
  const [record] = edge.worker.records.values();
  expect(record?.status).toBe('aborted');
  expect(edge.settles[0]?.usage?.outputText).toBe(record?.output);
});
