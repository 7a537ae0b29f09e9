import { afterEach, expect, test, vi } from 'vitest';
import { dataOf, startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const leaseTokens = 8;
/** Near the bound of the prompt, which is held: else that alone would cover much output. */
const promptTokens = 1_000;
const perPrompt = testPrice.inputUncached / 1e6;
const perOutput = testPrice.output / 1e6;
const words = Array.from({ length: 400 }, (_, index) => `w${index} `);

const messages = [{ role: 'user', content: 'Count.' }];
const chat = { model: testModel, messages, max_tokens: 10_000 };

/** An edge with short leases, and a balance of so much beyond the first hold of `chat`. */
async function start(
  options: HarnessOptions & { readonly beyondNanoUsd?: number } = {},
): Promise<number> {
  const { beyondNanoUsd = 1e9, ...others } = options;
  edge = await startHarness({
    balanceNanoUsd: 0,
    ...others,
    settings: { leaseTokens, ...others.settings },
    scripts: [{ words, promptTokens, cachedTokens: 0, ...others.scripts?.[0] }],
  });
  const firstHold = (await promptMax()) * perPrompt + leaseTokens * perOutput;
  const amountNanoUsd = firstHold + beyondNanoUsd;
  await edge.tenant.credit({ kind: 'granted', amountNanoUsd, source: 'a', note: '' });
  return amountNanoUsd;
}

async function promptMax(body: object = chat): Promise<number> {
  return (await (await edge.post('/v1/quote', body)).json()).prompt_tokens_max;
}

const tokensFor = (amount: number) => Math.floor((amount - promptTokens * perPrompt) / perOutput);

async function settledEntry() {
  await edge.idle();
  const entries = await edge.tenant.entries({ afterId: 0, limit: 100 });
  expect(await edge.tenant.audit()).toEqual([]);
  return entries.at(-1);
}

test('a long answer reserves little at first, grows by leases, and is billed as one', async () => {
  const before = await start();
  const answer = await (await edge.post('/v1/chat/completions', chat)).json();
  expect(answer.choices[0]).toMatchObject({ finish_reason: 'stop' });
  expect(answer.choices[0].message.content).toBe(words.join(''));
  expect(answer.usage.stopped_by).toBeUndefined();
  const posted = await settledEntry();
  expect(posted?.extendedNanoUsd).toBeGreaterThan(0);
  const { granted, held } = await edge.tenant.balance();
  expect([granted, held]).toEqual([before - answer.usage.cost_nano_usd, 0]);
  const held10000 = 10_000 * perOutput;
  const { heldNanoUsd } = edge.ended.at(-1) ?? {};
  expect(heldNanoUsd).toBeLessThan(held10000);
  expect(heldNanoUsd).toBeGreaterThanOrEqual(answer.usage.cost_nano_usd);
});

test('an answer within its first lease extends nothing', async () => {
  await start({ scripts: [{ words: ['a', 'b'] }] });
  await edge.post('/v1/chat/completions', chat);
  expect((await settledEntry())?.extendedNanoUsd).toBeUndefined();
});

test.each([0, 1, 419, 420, 5_000, 60_000])(
  'with %i nano-USD beyond the first hold an answer ends with the money, to the token',
  async (beyondNanoUsd) => {
    const before = await start({ beyondNanoUsd });
    const answer = await (await edge.post('/v1/chat/completions', chat)).json();
    const tokens = tokensFor(before);
    expect(answer.choices[0]).toMatchObject({ finish_reason: 'length' });
    expect(answer.choices[0].message.content).toBe(words.slice(0, tokens).join(''));
    expect(answer.usage).toMatchObject({
      completion_tokens: tokens,
      cost_nano_usd: promptTokens * perPrompt + tokens * perOutput,
      stopped_by: 'insufficient_balance',
    });
    expect(await settledEntry()).toMatchObject({
      kind: 'posted',
      amountNanoUsd: -answer.usage.cost_nano_usd,
    });
    expect(edge.ended.at(-1)).toMatchObject({ outcome: 'done', code: 'insufficient_balance' });
  },
);

test.each(['per-event', 'all-at-once'] as const)(
  'a stream whose events come %s ends with the money, to the token',
  async (writes) => {
    const before = await start({ beyondNanoUsd: 5_000, scripts: [{ writes }] });
    const body = { ...chat, stream: true, stream_options: { include_usage: true } };
    const events = dataOf(await (await edge.post('/v1/chat/completions', body)).text());
    expect(events.at(-1)).toBe('[DONE]');
    const chunks = events.slice(0, -1).map((event) => JSON.parse(event));
    const text = chunks.map(({ choices }) => choices[0]?.delta?.content ?? '').join('');
    expect(text).toBe(words.slice(0, tokensFor(before)).join(''));
    expect(chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? [])).toEqual(['length']);
    expect(chunks.at(-1).usage.stopped_by).toBe('insufficient_balance');
    await settledEntry();
  },
);

test.each([
  ['/v1/chat/completions', chat],
  ['/v1/completions', { model: testModel, prompt: 'Count.', max_tokens: 10_000 }],
])('a stream of %s without usage says beside its end that money ran out', async (path, body) => {
  await start({ beyondNanoUsd: 5_000 });
  const chunksOf = async (key: string) => {
    const headers = { 'idempotency-key': key };
    const sent = await edge.post(path, { ...body, stream: true }, { headers });
    const events = dataOf(await sent.text());
    expect(events.at(-1)).toBe('[DONE]');
    return events.slice(0, -1).map((event) => JSON.parse(event));
  };
  const chunks = await chunksOf('a');
  const cut = { finish_reason: 'length', stopped_by: 'insufficient_balance' };
  expect(chunks.at(-1)).toMatchObject({ choices: [{ index: 0, ...cut }] });
  expect(chunks.at(-1)).not.toHaveProperty('usage');
  expect(JSON.stringify(chunks.slice(0, -1))).not.toContain('stopped_by');
  await settledEntry();
  expect(await chunksOf('a')).toEqual(chunks);
});

test('a stream that ends by itself states no such code', async () => {
  await start();
  const ofLimit = { ...chat, stream: true };
  const text = await (await edge.post('/v1/chat/completions', ofLimit)).text();
  expect(text).toContain('"finish_reason":"stop"');
  expect(text).not.toContain('stopped_by');
});

test('a request that is settled while its answer is made lacks no money', async () => {
  await start({ scripts: [{ pauseMs: 1 }] });
  const body = { ...chat, stream: true, stream_options: { include_usage: true } };
  const response = await edge.post('/v1/chat/completions', body);
  const [open] = await edge.tenant.openHolds(0);
  await edge.tenant.settle({
    requestId: open?.requestId ?? '',
    outcome: 'failed',
    usage: null,
    worker: null,
    epoch: null,
    predictedCachedBytes: 0,
    confirmedChain: [],
    answer: null,
  });
  const text = await response.text();
  expect(text).toContain('"finish_reason":"length"');
  expect(text).not.toContain('stopped_by');
  await edge.idle();
  expect(edge.ended.at(-1)?.code ?? null).not.toBe('insufficient_balance');
  expect(await settledEntry()).toMatchObject({ kind: 'voided' });
});

test('every dialect says that its answer was cut, and by what', async () => {
  await start();
  const bodies = {
    '/v1/completions': { model: testModel, prompt: 'Count. '.repeat(150), max_tokens: 300 },
    '/anthropic/v1/messages': { model: testModel, messages, max_tokens: 300 },
    '/v1/responses': { model: testModel, input: 'Count.', max_output_tokens: 300 },
  };
  for (const [path, body] of Object.entries(bodies)) {
    const key = await edge.addTenant(`of${path.replaceAll('/', '-')}`, 0);
    const tenant = edge.tenantOf(`of${path.replaceAll('/', '-')}`);
    const headers = { authorization: `Bearer ${key}` };
    const most = await promptMax(path.includes('anthropic') ? chat : body);
    // A message of this one text has the same bytes, and a little of its own around it.
    const amountNanoUsd = (most + 10) * perPrompt + leaseTokens * perOutput;
    await tenant.credit({ kind: 'granted', amountNanoUsd, source: 'a', note: '' });
    const answer = await (await edge.post(path, body, { headers })).json();
    expect([path, answer.usage?.stopped_by]).toEqual([path, 'insufficient_balance']);
    const end =
      answer.stop_reason ?? answer.incomplete_details?.reason ?? answer.choices[0].finish_reason;
    expect(['max_tokens', 'max_output_tokens', 'length']).toContain(end);
    if (answer.choices) expect(answer.choices[0].stopped_by).toBe('insufficient_balance');
    await edge.idle();
    expect((await tenant.balance()).held).toBe(0);
    expect(await tenant.audit()).toEqual([]);
  }
});

test('answers that have not begun are ended too', async () => {
  await start({ beyondNanoUsd: leaseTokens * perOutput });
  const answer = await (await edge.post('/v1/chat/completions', { ...chat, n: 2 })).json();
  expect(answer.choices).toMatchObject([
    { index: 0, finish_reason: 'length' },
    { index: 1, finish_reason: 'length', message: { content: '' } },
  ]);
});

test('money that comes while an answer is made lets it go on', async () => {
  await start({ beyondNanoUsd: 0, scripts: [{ pauseMs: 1 }] });
  const body = { ...chat, stream: true, stream_options: { include_usage: true } };
  const response = await edge.post('/v1/chat/completions', body);
  await edge.tenant.credit({ kind: 'topped-up', amountNanoUsd: 1e9, source: 'b', note: '' });
  const events = dataOf(await response.text());
  const chunks = events.slice(0, -1).map((event) => JSON.parse(event));
  expect(chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? [])).toEqual(['stop']);
});

test('a budget that others use up while an answer is made ends it', async () => {
  await start();
  const limitNanoUsd = ((await promptMax()) + 1) * perPrompt + 10_000 * perOutput;
  const terms = (limit: number) => ({
    zone: 'UTC',
    windows: [{ period: 'day' as const, limitNanoUsd: limit }],
  });
  await edge.tenant.setBudget('agent', terms(limitNanoUsd));
  edge.worker.script = { ...edge.worker.script, pauseMs: 1 };
  const body = { ...chat, stream: true, stream_options: { include_usage: true } };
  const headers = { 'x-sift-budget': 'agent' };
  const response = await edge.post('/v1/chat/completions', body, { headers });
  await edge.tenant.setBudget('agent', terms(0));
  const events = dataOf(await response.text());
  const last = JSON.parse(events.at(-2) ?? '');
  expect(last.usage.stopped_by).toBe('budget_exhausted');
  const [record] = edge.worker.records.values();
  await vi.waitFor(() => expect(record?.status).toBe('aborted'));
  const window = (await edge.tenant.budget('agent'))?.windows[0];
  expect([window?.heldNanoUsd, window?.spentNanoUsd]).toEqual([0, last.usage.cost_nano_usd]);
  await settledEntry();
});

test('an engine of another make is not asked before all that it may cost is held', async () => {
  await start({ hasJournal: false, beyondNanoUsd: 5_000 });
  const refused = await edge.post('/v1/chat/completions', chat);
  expect(refused.status).toBe(402);
  expect((await refused.json()).error.code).toBe('insufficient_balance');
  await edge.idle();
  expect(edge.worker.requests).toHaveLength(0);
  expect((await edge.tenant.balance()).held).toBe(0);
  await edge.tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'b', note: '' });
  expect((await edge.post('/v1/chat/completions', chat)).status).toBe(200);
  expect((await settledEntry())?.extendedNanoUsd).toBe((10_000 - leaseTokens) * perOutput);
});

test('a client that leaves is billed what was computed, within what is held', async () => {
  await start({ scripts: [{ pauseMs: 1 }] });
  const leaving = new AbortController();
  const response = await edge.post(
    '/v1/chat/completions',
    { ...chat, stream: true },
    { signal: leaving.signal },
  );
  const reader = response.body?.getReader();
  await reader?.read();
  leaving.abort();
  await reader?.cancel().catch(() => {});
  await edge.idle();
  expect(await settledEntry()).toMatchObject({ kind: 'posted' });
  expect((await edge.tenant.balance()).held).toBe(0);
});
