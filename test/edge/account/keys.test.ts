/** Keys as an account's own admin key manages them: what it may give, and who did what. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mounts } from '../../../edge/edge.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { noLimits, operator } from '../../support/edge/tenant-samples.ts';

let edge: Harness;
let adminKey: string;
beforeEach(async () => {
  edge = await startHarness({ mounts });
  adminKey = await edge.addKey('acme', { scopes: ['inference', 'admin'] });
});
afterEach(() => edge.close());

async function call(
  method: string,
  path: string,
  body?: unknown,
  options: { readonly key?: string; readonly headers?: Readonly<Record<string, string>> } = {},
) {
  const answer = await edge.app.request(path, {
    method,
    headers: {
      authorization: `Bearer ${options.key ?? adminKey}`,
      'content-type': 'application/json',
      ...options.headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answer.status, json: await answer.json() };
}

const ownId = () => /\.([^.]+)\./.exec(adminKey)?.[1] ?? '';
const chat = { model: testModel, messages: [{ role: 'user', content: 'Hello.' }] };

test('a key is made, works at once, is limited, and is revoked for good', async () => {
  const made = await call('POST', '/v1/keys', { label: 'app' });
  expect(made.status).toBe(201);
  expect(made.json).toMatchObject({ label: 'app', scopes: ['inference', 'read'] });
  const { key, key_id: id } = made.json;
  expect((await call('POST', '/v1/chat/completions', chat, { key })).status).toBe(200);
  const limits = { requests_per_minute: 0, tokens_per_minute: null, concurrent_requests: null };
  expect((await call('PATCH', `/v1/keys/${id}`, { limits })).json.limits).toEqual(limits);
  expect((await call('POST', '/v1/chat/completions', chat, { key })).status).toBe(429);
  expect((await call('GET', `/v1/keys/${id}`)).json).not.toHaveProperty('key');
  expect((await call('PATCH', `/v1/keys/${id}`, { status: 'revoked' })).json.status).toBe(
    'revoked',
  );
  expect((await call('POST', '/v1/chat/completions', chat, { key })).status).toBe(401);
  expect((await call('GET', '/v1/keys')).json.keys).toHaveLength(3);
});

test('the same request under one idempotency key makes one key and shows it again', async () => {
  const headers = { 'idempotency-key': 'once' };
  const first = await call('POST', '/v1/keys', { label: 'a' }, { headers });
  expect(await call('POST', '/v1/keys', { label: 'a' }, { headers })).toEqual(first);
  const other = await call('POST', '/v1/keys', { label: 'b' }, { headers });
  expect(other.json.error.code).toBe('idempotency_key_reused');
  expect((await call('GET', '/v1/keys')).json.keys).toHaveLength(3);
  // Another caller under the same idempotency key gets a key of its own.
  const second = await edge.addKey('acme', { scopes: ['inference', 'admin'] });
  const theirs = await call('POST', '/v1/keys', { label: 'a' }, { headers, key: second });
  expect(theirs.json.key).not.toBe(first.json.key);
});

test('a key of scope admin sees the limits of its account beside its own', async () => {
  const key = await edge.addKey('acme', { scopes: ['admin'] });
  const none = { requests_per_minute: null, tokens_per_minute: null, concurrent_requests: null };
  const before = await call('GET', '/v1/key', undefined, { key });
  expect(before).toMatchObject({ status: 200, json: { account_limits: none } });
  const limits = { requests_per_minute: 50, tokens_per_minute: 9_000, concurrent_requests: 3 };
  await edge.tenant.setLimits({
    requestsPerMinute: 50,
    tokensPerMinute: 9_000,
    concurrentRequests: 3,
  });
  const after = await call('GET', '/v1/key', undefined, { key });
  expect(after.json).toEqual({ ...before.json, account_limits: limits });
  const inference = await edge.addKey('acme', { scopes: ['inference'] });
  expect((await call('GET', '/v1/key', undefined, { key: inference })).status).toBe(403);
});

const day = 86_400_000;
const budgetOf = (limit: number, window = 'day', zone = 'UTC') => ({
  zone,
  windows: [{ window, limit_nano_usd: limit }],
});

test.each([
  [{ scopes: ['inference', 'read', 'admin'] }, null],
  [
    { limits: { requests_per_minute: 61, tokens_per_minute: null, concurrent_requests: 1 } },
    'limits.requests_per_minute',
  ],
  [
    { limits: { requests_per_minute: null, tokens_per_minute: null, concurrent_requests: 1 } },
    'limits.requests_per_minute',
  ],
  [
    { limits: { requests_per_minute: 60, tokens_per_minute: null, concurrent_requests: 3 } },
    'limits.concurrent_requests',
  ],
  [{ expires_at_ms: null }, 'expires_at_ms'],
  [{ expires_at_ms: Date.UTC(2026, 0, 15, 12) + day + 1 }, 'expires_at_ms'],
  [{ models: null }, 'models'],
  [{ models: [testModel, 'other'] }, 'models'],
  [{ budget: null }, 'budget'],
  [{ budget: budgetOf(101) }, 'budget'],
  [{ budget: budgetOf(100, 'month') }, 'budget'],
  [{ budget: budgetOf(100, 'day', 'Asia/Tokyo') }, 'budget'],
])('a bounded key may not give %o beyond its own (%s)', async (change, param) => {
  const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
  await edge.directory.putModel({ ...record, id: 'other', createdAtMs: 0 });
  const own = {
    limits: { requests_per_minute: 60, tokens_per_minute: null, concurrent_requests: 2 },
    expires_at_ms: Date.UTC(2026, 0, 15, 12) + day,
    models: [testModel],
    budget: budgetOf(100),
  };
  const bounded = await call('POST', '/v1/keys', { ...own, scopes: ['inference', 'admin'] });
  expect(bounded.status).toBe(201);
  const { key, key_id: id } = bounded.json;
  const made = await call('POST', '/v1/keys', { ...own, ...change }, { key });
  const expected = param === null ? [201, undefined] : [403, param];
  expect([made.status, made.json.error?.param]).toEqual(expected);
  if (param === null) return;
  expect(made.json.error.code).toBe('insufficient_scope');
  const raised = await call('PATCH', `/v1/keys/${id}`, change, { key });
  expect([raised.status, raised.json.error.param]).toEqual(expected);
  // It may revoke, and what it leaves out is not asked about.
  const child = await call('POST', '/v1/keys', own, { key });
  const path = `/v1/keys/${child.json.key_id}`;
  expect((await call('PATCH', path, { label: 'x' }, { key })).status).toBe(200);
  expect((await call('PATCH', path, { status: 'revoked' }, { key })).status).toBe(200);
});

test.each([8_640_000_000_000_001, Number.MAX_SAFE_INTEGER, -1])(
  'a key does not expire at %i, which no date can say',
  async (expiresAtMs) => {
    const terms = { expires_at_ms: expiresAtMs };
    const answers = [
      await call('POST', '/v1/keys', terms),
      await call('PATCH', `/v1/keys/${ownId()}`, terms),
    ];
    for (const { status, json } of answers) {
      expect([status, json.error.param]).toEqual([422, 'expires_at_ms']);
    }
    const last = await call('POST', '/v1/keys', { expires_at_ms: 8_640_000_000_000_000 });
    expect(last.status).toBe(201);
  },
);

test('a key is given no model that does not exist, and told the nearest', async () => {
  const models = [testModel, `${testModel}s`];
  for (const [method, path, key] of [
    ['POST', '/v1/keys', adminKey],
    ['PATCH', `/v1/keys/${ownId()}`, adminKey],
    ['POST', '/admin/tenants/acme/keys', 'admin-token'],
  ] as const) {
    const refused = await call(method, path, { models }, { key });
    expect([path, refused.status]).toEqual([path, 404]);
    expect(refused.json.error).toMatchObject({
      code: 'not_found',
      param: 'models[1]',
      message: expect.stringContaining(`The nearest one is ${testModel}.`),
    });
  }
  expect((await call('GET', '/v1/keys')).json.keys).toHaveLength(2);
});

test.each(['a\0b', '\ud800', 'x\udc00y'])('the label %j is refused', async (label) => {
  const webhook = { url: 'https://hooks.example/', events: ['webhook.test'], label };
  for (const answer of [
    await call('POST', '/v1/keys', { label }),
    await call('PATCH', `/v1/keys/${ownId()}`, { label }),
    await call('POST', '/v1/webhooks', webhook),
  ]) {
    expect([answer.status, answer.json.error.param]).toEqual([422, 'label']);
  }
  const named = await call(
    'POST',
    '/admin/tenants',
    { id: 'b', name: label },
    { key: 'admin-token' },
  );
  expect([named.status, named.json.error.param]).toEqual([422, 'name']);
  expect((await call('POST', '/v1/keys', { label: 'é 🙂' })).json.label).toBe('é 🙂');
});

test('a key gives no scope that it has not', async () => {
  const manager = await edge.addKey('acme', { scopes: ['admin'] });
  const made = await call('POST', '/v1/keys', {}, { key: manager });
  expect([made.status, made.json.error.param]).toEqual([403, 'scopes']);
  const reader = await call('POST', '/v1/keys', { scopes: ['read'] }, { key: manager });
  expect(reader.status).toBe(201);
});

test('the last admin key is ended by the operator alone', async () => {
  const path = `/v1/keys/${ownId()}`;
  expect((await call('PATCH', path, { status: 'revoked' })).json.error).toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('last key of scope admin'),
  });
  const expired = { expires_at_ms: edge.services.clock.nowMs() };
  expect((await call('PATCH', path, expired)).status).toBe(409);
  const other = await call('POST', '/v1/keys', { scopes: ['admin'] });
  expect((await call('PATCH', path, { status: 'revoked' })).status).toBe(200);
  expect((await call('GET', '/v1/keys')).status).toBe(401);
  const byOperator = await call(
    'PATCH',
    `/admin/tenants/acme/keys/${other.json.key_id}`,
    { status: 'revoked' },
    { key: 'admin-token' },
  );
  expect(byOperator.status).toBe(200);
});

test('keys without the scope admin manage nothing; admin may read', async () => {
  const read = edge.apiKey;
  for (const [method, path] of [
    ['GET', '/v1/keys'],
    ['POST', '/v1/keys'],
    ['GET', `/v1/keys/${ownId()}`],
    ['PATCH', `/v1/keys/${ownId()}`],
    ['GET', '/v1/audit-log'],
    ['POST', '/v1/checkout'],
  ] as const) {
    const body = method === 'GET' ? undefined : {};
    const { status, json } = await call(method, path, body, { key: read });
    expect([path, status, json.error.code]).toEqual([path, 403, 'insufficient_scope']);
  }
  for (const path of ['/v1/usage', '/user/balance']) {
    expect([path, (await call('GET', path)).status]).toEqual([path, 200]);
  }
});

test('a key of another account is out of reach', async () => {
  await edge.addTenant('other');
  const { keys } = (
    await call('GET', '/admin/tenants/other/keys', undefined, { key: 'admin-token' })
  ).json;
  const answer = await call('PATCH', `/v1/keys/${keys[0].key_id}`, { status: 'revoked' });
  expect(answer.status).toBe(404);
});

test.each([
  [{ scopes: [] }, 422, 'scopes'],
  [{ scopes: ['root'] }, 422, 'scopes[0]'],
  [{ label: 5 }, 400, 'label'],
  [{ label: 'x'.repeat(201) }, 422, 'label'],
  [{ limits: { requests_per_minute: -1 } }, 422, 'limits.requests_per_minute'],
  [{ limits: { requests_per_minute: 1 } }, 400, 'limits.tokens_per_minute'],
  [{ tenant: 'other' }, 400, 'tenant'],
  [{ key: 'sk-sift-mine' }, 400, 'key'],
])('a new key with %o is refused with %i', async (body, status, param) => {
  const answer = await call('POST', '/v1/keys', body);
  expect([answer.status, answer.json.error.param]).toEqual([status, param]);
});

test('the log says who did what, without secrets', async () => {
  const made = await call('POST', '/v1/keys', { label: 'app' });
  const hook = { url: 'https://hooks.example/', events: ['top_up.received'] };
  const webhook = await call('POST', '/v1/webhooks', hook);
  await call('DELETE', `/v1/webhooks/${webhook.json.id}`);
  await call('PUT', '/v1/budgets/agent', budgetOf(5));
  await call('DELETE', '/v1/budgets/agent');
  const path = `/admin/tenants/acme/keys/${made.json.key_id}`;
  await call('PATCH', path, { status: 'revoked' }, { key: 'admin-token' });
  const { json } = await call('GET', '/v1/audit-log?limit=6');
  const actor = { type: 'key', key_id: ownId() };
  expect(json.entries).toMatchObject([
    { action: 'key.updated', actor: { type: 'operator', key_id: null }, object: made.json.key_id },
    { action: 'budget.deleted', actor, object: 'agent' },
    { action: 'budget.put', actor, object: 'agent' },
    { action: 'webhook.deleted', actor, object: webhook.json.id },
    { action: 'webhook.created', actor, detail: { url: hook.url } },
    { action: 'key.created', actor, object: made.json.key_id, detail: { label: 'app' } },
  ]);
  const text = JSON.stringify((await call('GET', '/v1/audit-log')).json);
  expect(text).not.toContain(webhook.json.secret);
  expect(text).not.toContain('secretHash');
  const next = await call('GET', `/v1/audit-log?before_id=${json.entries[5].id}&limit=1`);
  expect(next.json.entries[0].id).toBeLessThan(json.entries[5].id);
  expect((await call('GET', '/v1/audit-log?limit=0')).status).toBe(422);
});

test('a key that was revoked in between gives nothing', async () => {
  const key = { tenant: 'acme', keyId: ownId(), secretHash: 'ab'.repeat(32) };
  const input = { keyId: 'new', secretHash: 'cd'.repeat(32), label: '', limits: noLimits };
  const made = await edge.tenant.createKey({ ...input, scopes: ['read'] }, { kind: 'key', key });
  expect(made).toEqual({
    kind: 'refused',
    why: { kind: 'no-right', refusal: { kind: 'bad-key' } },
  });
  expect((await edge.tenant.createKey({ ...input, scopes: ['read'] }, operator)).kind).toBe('done');
});

test('without a Stripe account a checkout is a 404', async () => {
  const body = {
    amount_cents: 2_500,
    success_url: 'https://app.example/paid',
    cancel_url: 'https://app.example/',
  };
  expect((await call('POST', '/v1/checkout', body)).json.error.code).toBe('not_found');
  expect((await call('POST', '/v1/checkout', { ...body, amount_cents: 1 })).status).toBe(422);
  const script = { ...body, success_url: 'javascript:alert(1)' };
  expect((await call('POST', '/v1/checkout', script)).json.error.param).toBe('success_url');
});
