import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import { operator } from '../../support/edge/tenant-samples.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
let admin: string;
beforeEach(async () => {
  edge = await startHarness();
  admin = await edge.addKey('acme', { scopes: ['admin', 'read'] });
});
afterEach(() => edge.close());

const messages = [{ role: 'user', content: 'Hi.' }];
const chat = { model: testModel, messages, max_tokens: 100 };
const bodies = [
  ['/v1/chat/completions', chat],
  ['/v1/completions', { model: testModel, prompt: 'Hi.', max_tokens: 100 }],
  ['/anthropic/v1/messages', chat],
  ['/v1/responses', { model: testModel, input: 'Hi.', max_output_tokens: 100 }],
] as const;

async function put(name: string, body: unknown, key = admin) {
  const response = await edge.app.request(`/v1/budgets/${name}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, json: await response.json() };
}

const ever = (limit: number) => ({ windows: [{ window: 'ever', limit_nano_usd: limit }] });
const ask = (headers: Record<string, string>, path = '/v1/chat/completions', body: object = chat) =>
  edge.post(path, body, { headers });

/** The id of the key that `ask` uses. */
async function callersKey(): Promise<string> {
  const keys = await edge.tenant.keys();
  return keys.find(({ scopes }) => scopes.includes('inference'))?.keyId ?? '';
}

test('a budget is made, shown, changed and deleted by a key of scope admin', async () => {
  const made = await put('agent-7', ever(5_000_000));
  expect(made.json).toMatchObject({
    object: 'budget',
    name: 'agent-7',
    zone: 'UTC',
    windows: [{ window: 'ever', limit_nano_usd: 5_000_000, left_nano_usd: 5_000_000 }],
  });
  expect(await (await edge.get('/v1/budgets/agent-7')).json()).toEqual(made.json);
  const answer = await ask({ 'x-sift-budget': 'agent-7' });
  const cost = Number(answer.headers.get('x-sift-cost-nano-usd'));
  const changed = await put('agent-7', ever(6_000_000));
  expect(changed.json.windows).toMatchObject([
    { spent_nano_usd: cost, held_nano_usd: 0, left_nano_usd: 6_000_000 - cost },
  ]);
  const listed = await (await edge.get('/v1/budgets')).json();
  expect(listed).toEqual({ object: 'list', data: [changed.json] });
  const removed = await edge.app.request('/v1/budgets/agent-7', {
    method: 'DELETE',
    headers: { authorization: `Bearer ${admin}` },
  });
  expect(await removed.json()).toEqual({ object: 'budget', name: 'agent-7', deleted: true });
  expect((await edge.get('/v1/budgets/agent-7')).status).toBe(404);
});

test('a key without the scope admin sees budgets and changes none', async () => {
  const refused = await put('b', ever(1), edge.apiKey);
  expect([refused.status, refused.json.error.code]).toEqual([403, 'insufficient_scope']);
  expect((await edge.get('/v1/budgets')).status).toBe(200);
});

test.each([
  [{}, 'windows'],
  [{ windows: [] }, 'windows'],
  [{ windows: [{ window: 'year', limit_nano_usd: 1 }] }, 'windows[0].window'],
  [{ windows: [{ window: 'day', limit_nano_usd: 1.5 }] }, 'windows[0].limit_nano_usd'],
  [{ windows: [{ window: 'day', limit_nano_usd: -1 }] }, 'windows[0].limit_nano_usd'],
  [{ windows: [{ window: 'day', limit_nano_usd: 2 ** 53 }] }, 'windows[0].limit_nano_usd'],
  [{ ...ever(1), zone: 'Mars/Base' }, 'zone'],
  [{ ...ever(1), extra: 1 }, 'extra'],
])('a budget of %j is refused by name', async (body, param) => {
  const { status, json } = await put('b', body);
  expect([400, 422]).toContain(status);
  expect(json.error.param).toBe(param);
});

test.each(['-a', 'a b', 'é', 'x'.repeat(65)])('%j is no name of a budget', async (name) => {
  expect((await put(encodeURIComponent(name), ever(1))).status).toBe(422);
});

test.each(bodies)(
  '%s counts in the budgets that it names, whole and streamed',
  async (path, body) => {
    await put('session', ever(5_000_000));
    for (const stream of [false, true]) {
      const answer = await ask({ 'x-sift-budget': 'session' }, path, { ...body, stream });
      expect(answer.status).toBe(200);
      await answer.text();
    }
    await edge.idle();
    const [window] = (await (await edge.get('/v1/budgets/session')).json()).windows;
    const spent = 10_000_000_000 - (await edge.tenant.balance()).granted;
    expect([window.held_nano_usd, window.spent_nano_usd]).toEqual([0, spent]);
    expect(spent).toBeGreaterThan(0);
  },
);

test.each(bodies)('%s beyond its budget is refused with what is left', async (path, body) => {
  await put('session', ever(7));
  const refused = await ask({ 'x-sift-budget': 'session' }, path, body);
  expect(refused.status).toBe(402);
  const { error } = await refused.json();
  expect(error.details).toMatchObject({
    error_code: 'budget_exhausted',
    budget: { name: 'session', window: 'ever', left_nano_usd: 7, resets_at_ms: null },
  });
  expect(error.message).toContain("'session' has 0.000000007 USD left");
  expect((await edge.tenant.balance()).held).toBe(0);
});

test.each(bodies)('%s is cut to what is left where the caller allows it', async (path, body) => {
  const quoted = path === '/anthropic/v1/messages' ? chat : body;
  const { prompt_tokens_max: promptMax } = await (await edge.post('/v1/quote', quoted)).json();
  // A dialect adds some bytes to the prompt's, which are far less than 20 tokens.
  const limit = ((promptMax + 20) * testPrice.inputUncached + 60 * testPrice.output) / 1e6;
  await put('session', ever(limit));
  const asked = { 'x-sift-budget': 'session', 'x-sift-budget-mode': 'trim' };
  const answer = await ask(asked, path, body);
  expect(answer.status).toBe(200);
  const cut = Number(answer.headers.get('x-sift-max-tokens'));
  expect(cut).toBeGreaterThanOrEqual(60);
  expect(cut).toBeLessThan(100);
  expect(edge.worker.requests.at(-1)?.body.max_tokens).toBe(cut);
  await put('session', ever(1));
  expect((await ask(asked, path, body)).status).toBe(402);
});

test('answers of one request are cut to one length', async () => {
  const { prompt_tokens_max: promptMax } = await (await edge.post('/v1/quote', chat)).json();
  await put('b', ever((promptMax * testPrice.inputUncached + 61 * testPrice.output) / 1e6));
  const headers = { 'x-sift-budget': 'b', 'x-sift-budget-mode': 'trim' };
  const answer = await ask(headers, '/v1/chat/completions', { ...chat, n: 2 });
  expect(answer.headers.get('x-sift-max-tokens')).toBe('30');
});

test('a budget that does not exist is named with the nearest one', async () => {
  await put('session-7', ever(1));
  const refused = await ask({ 'x-sift-budget': 'sesion-7' });
  expect(refused.status).toBe(404);
  expect((await refused.json()).error).toMatchObject({
    code: 'not_found',
    param: 'x-sift-budget',
    message: "The budget 'sesion-7' does not exist. The nearest one is 'session-7'.",
  });
});

test.each([
  [{ 'x-sift-budget': '' }, 'x-sift-budget'],
  [{ 'x-sift-budget': 'a,' }, 'x-sift-budget'],
  [{ 'x-sift-budget': 'a b' }, 'x-sift-budget'],
  [{ 'x-sift-budget': 'a,b,c,d,e,f,g,h,i' }, 'x-sift-budget'],
  [{ 'x-sift-budget': 'a', 'x-sift-budget-mode': 'cut' }, 'x-sift-budget-mode'],
])('headers %j are refused by name', async (headers, param) => {
  const refused = await ask(headers);
  expect(refused.status).toBe(422);
  expect((await refused.json()).error.param).toBe(param);
});

test("a key's own budget binds whatever is named, and the key shows what is left", async () => {
  const keyId = await callersKey();
  const windows = [{ period: 'ever' as const, limitNanoUsd: 7 }];
  await edge.tenant.updateKey(keyId, { budget: { zone: 'UTC', windows } }, operator);
  const refused = await ask({});
  expect(refused.status).toBe(402);
  const { error } = await refused.json();
  expect([error.code, error.details.budget.name]).toEqual(['budget_exhausted', null]);
  expect(await (await edge.get('/v1/key')).json()).toMatchObject({
    key_id: keyId,
    budget: { windows: [{ limit_nano_usd: 7, left_nano_usd: 7 }] },
  });
});

test('an expired key is refused, and told so', async () => {
  await edge.tenant.updateKey(await callersKey(), { expiresAtMs: Date.UTC(2026, 0, 1) }, operator);
  for (const refused of [await ask({}), await edge.get('/v1/models')]) {
    expect(refused.status).toBe(401);
    expect((await refused.json()).error).toMatchObject({
      code: 'expired_api_key',
      message: 'The API key expired at 2026-01-01T00:00:00.000Z.',
    });
  }
});

test('a key may not use another model, by no alias of it either', async () => {
  await edge.tenant.updateKey(await callersKey(), { models: ['other', 'my-alias'] }, operator);
  await edge.directory.putAlias({ name: 'my-alias', models: [testModel], createdAtMs: 0 });
  for (const model of [testModel, 'my-alias']) {
    const refused = await ask({}, '/v1/chat/completions', { ...chat, model });
    expect(refused.status).toBe(403);
    expect((await refused.json()).error).toMatchObject({
      code: 'model_not_allowed',
      param: 'model',
    });
  }
});

test("a key's weight goes with its requests to the queue in front of the workers", async () => {
  const keyId = await callersKey();
  await edge.tenant.updateKey(keyId, { weight: 7 }, operator);
  const place = vi.spyOn(edge.fleet, 'place');
  await ask({});
  expect(place.mock.calls[0]?.[0].turn).toMatchObject({ key: keyId, keyWeight: 7 });
});
