/** Models, balance, usage and quotes. */
import { afterEach, expect, test } from 'vitest';
import { formatDuration } from '../../../edge/inference/refusal.ts';
import { formatUsd } from '../../../edge/money-text.ts';
import {
  chatCompletionSchema,
  modelListSchema,
} from '../../../edge/dialects/openai/response-schemas.ts';
import { balanceSchema } from '../../../edge/http/balance.ts';
import { quoteSchema } from '../../../edge/http/quote.ts';
import { usageReportSchema } from '../../../edge/http/usage.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge?.close());

const chat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };

test('the answers are what the reference says they are', async () => {
  edge = await startHarness();
  const completion = await (await edge.post('/v1/chat/completions', chat)).json();
  expect(chatCompletionSchema.safeParse(completion).error).toBeUndefined();
  for (const [path, schema] of [
    ['/v1/models', modelListSchema],
    ['/models', modelListSchema],
    ['/user/balance', balanceSchema],
    ['/v1/usage', usageReportSchema],
  ] as const) {
    const body = await (await edge.get(path)).json();
    expect(schema.safeParse(body).error).toBeUndefined();
  }
  const quote = await (await edge.post('/v1/quote', chat)).json();
  expect(quoteSchema.safeParse(quote).error).toBeUndefined();
});

test('the balance is exact, as text', async () => {
  edge = await startHarness({ balanceNanoUsd: 9_500_000_001 });
  await edge.tenant.credit({
    kind: 'topped-up',
    amountNanoUsd: 110_000_000_000,
    source: 's',
    note: '',
  });
  expect(await (await edge.get('/user/balance')).json()).toEqual({
    is_available: true,
    balance_infos: [
      {
        currency: 'USD',
        total_balance: '119.500000001',
        granted_balance: '9.500000001',
        topped_up_balance: '110.00',
      },
    ],
  });
});

test('usage is summed per day, model and key', async () => {
  edge = await startHarness({ scripts: [{ promptTokens: 100, cachedTokens: 64 }] });
  await edge.post('/v1/chat/completions', chat);
  await edge.post('/v1/chat/completions', chat);
  const other = await edge.addKey('acme');
  await edge.post('/v1/chat/completions', chat, { headers: { authorization: `Bearer ${other}` } });
  await edge.idle();
  const report = await (await edge.get('/v1/usage')).json();
  expect(report).toMatchObject({ from: '2025-12-17', to: '2026-01-15' });
  expect(report.data).toHaveLength(2);
  const cost = 64 * 28 + 36 * 280 + 5 * 420;
  expect(report.total).toMatchObject({
    requests: 3,
    usage: { prompt_tokens: 300, prompt_cache_hit_tokens: 192, cost_nano_usd: 3 * cost },
  });
  expect(report.data).toContainEqual(
    expect.objectContaining({ day: '2026-01-15', model: testModel, requests: 2 }),
  );
  const before = await (await edge.get('/v1/usage?from=2026-01-01&to=2026-01-14')).json();
  expect(before.data).toEqual([]);
});

test.each([
  'from=2026-02-30',
  'from=yesterday',
  'to=2026-1-1',
  'from=2026-01-16',
  'from=2020-01-01',
  'day=2026-01-01',
])('usage of %s is refused', async (query) => {
  edge = await startHarness({ scripts: [] });
  const { status } = await edge.get(`/v1/usage?${query}`);
  expect([400, 422]).toContain(status);
});

test('a quote knows what is cached, bounds the cost, and holds nothing', async () => {
  edge = await startHarness();
  const messages = [{ role: 'user', content: 'A long story. '.repeat(800) }];
  const ask = { model: testModel, messages, max_tokens: 10 };
  const quoted = async () => (await edge.post('/v1/quote', ask)).json();
  const cold = await quoted();
  expect(cold).toMatchObject({
    model: testModel,
    prices: { cached_input: 28_000_000, input: 280_000_000, output: 420_000_000 },
    cached_tokens_estimate: 0,
    output_tokens_max: 10,
  });
  const answer = await edge.post('/v1/chat/completions', ask);
  expect(Number(answer.headers.get('x-sift-cost-nano-usd'))).toBeLessThan(cold.max_cost_nano_usd);
  await edge.idle();
  const warm = await quoted();
  expect(warm.cached_tokens_estimate).toBeGreaterThan(0);
  expect(warm.cached_tokens_estimate % 64).toBe(0);
  expect(warm.input_cost_estimate_nano_usd).toBeLessThan(cold.input_cost_estimate_nano_usd);
  expect(edge.worker.requests).toHaveLength(1);
  expect((await edge.tenant.balance()).held).toBe(0);
});

test('a quote of a completion counts its token ids and prompts', async () => {
  edge = await startHarness({ scripts: [] });
  const quote = async (body: object) =>
    (await edge.post('/v1/quote', { model: testModel, ...body })).json();
  expect(await quote({ prompt: [1, 2, 3], max_tokens: 5 })).toMatchObject({
    prompt_tokens_max: 3,
    output_tokens_max: 5,
    max_cost_nano_usd: 3 * 280 + 5 * 420,
  });
  expect(await quote({ prompt: [[1, 2], [3]], max_tokens: 5, n: 2 })).toMatchObject({
    prompt_tokens_max: 3,
    output_tokens_max: 20,
  });
});

test('no request is quoted or held beyond what the context of the model allows', async () => {
  edge = await startHarness({ scripts: [] });
  const body = { ...chat, messages: [{ role: 'user', content: 'x'.repeat(300_000) }] };
  const quote = await (await edge.post('/v1/quote', { ...body, max_tokens: 1_000_000 })).json();
  expect(quote).toMatchObject({ prompt_tokens_max: 65_536, output_tokens_max: 65_536 });
});

test('one model is found by its id, and an unknown one is not', async () => {
  edge = await startHarness({ scripts: [] });
  const record = { contextLength: 8, revision: 'r', tokenizer: 't', ownedBy: 'me', createdAtMs: 0 };
  await edge.directory.putModel({ ...record, id: 'lab/model-1' });
  for (const path of ['/v1/models/lab/model-1', '/models/lab%2Fmodel-1']) {
    expect(await (await edge.get(path)).json()).toEqual({
      id: 'lab/model-1',
      object: 'model',
      created: 0,
      owned_by: 'me',
      context_length: 8,
    });
  }
  expect((await edge.get('/v1/models/none')).status).toBe(404);
  expect((await edge.get('/v1/models/%E0%A4%A')).status).toBe(404);
});

test('amounts and durations are written as their readers expect', () => {
  expect(formatUsd(0)).toBe('0.00');
  expect(formatUsd(28)).toBe('0.000000028');
  expect(formatUsd(1_500_000_000)).toBe('1.50');
  expect(formatUsd(-1)).toBe('-0.000000001');
  expect(formatUsd(Number.MAX_SAFE_INTEGER)).toBe('9007199.254740991');
  const written = [0, 20, 999.2, 1_500, 59_900, 59_940, 60_000, 119_500, 3_661_000];
  expect(written.map((ms) => formatDuration(ms))).toEqual([
    '0ms',
    '20ms',
    '1000ms',
    '1.5s',
    '59.9s',
    '1m0s',
    '1m0s',
    '2m0s',
    '1h1m1s',
  ]);
});

test('a quote of a prompt beyond the context expects no more than the context', async () => {
  edge = await startHarness();
  const messages = [{ role: 'user', content: 'a '.repeat(1_000_000) }];
  const quote = await (await edge.post('/v1/quote', { ...chat, messages })).json();
  expect(quote.prompt_tokens_estimate).toBe(65_536);
  expect(quote.input_cost_estimate_nano_usd).toBeLessThanOrEqual(quote.max_cost_nano_usd);
});

test('the edge says that it is up, to whoever asks', async () => {
  edge = await startHarness({ scripts: [] });
  const answer = await edge.app.request('/health');
  expect([answer.status, await answer.json()]).toEqual([200, { status: 'ok' }]);
});
