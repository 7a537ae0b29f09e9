import { sql } from 'drizzle-orm';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { adminEndpoints } from '../../../edge/admin/routes.ts';
import { createApp } from '../../../edge/app.ts';
import { mounts } from '../../../edge/edge.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { heartbeatOf } from '../../support/edge/fleet-of-runtime.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness({ mounts });
});
afterEach(() => harness.close());

async function call(method: string, path: string, body?: unknown, token = 'admin-token') {
  const response = await harness.app.request(`/admin${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, text, json: isJson ? JSON.parse(text) : null };
}

const hello = { model: testModel, messages: [{ role: 'user', content: 'Hi.' }] };

async function askWith(key: string): Promise<Response> {
  return harness.post('/v1/chat/completions', hello, {
    headers: { authorization: `Bearer ${key}` },
  });
}

test('no route answers without the admin token, nor does a tenant key of scope admin open it', async () => {
  const key = await harness.addKey('acme', { scopes: ['admin'] });
  for (const { method, path } of adminEndpoints) {
    for (const token of ['', 'wrong', 'admin-token2', 'worker-token', key]) {
      const answer = await call(
        method.toUpperCase(),
        path,
        method === 'get' ? undefined : {},
        token,
      );
      expect([path, answer.status]).toEqual([path, 401]);
    }
  }
});

test('a tenant is created once, credited once per source, and pays for what it asks', async () => {
  const created = await call('POST', '/tenants', { id: 'new', name: 'New Ltd' });
  expect(created.status).toBe(201);
  expect((await call('POST', '/tenants', { id: 'new' })).status).toBe(409);
  const credit = { kind: 'granted', amount_nano_usd: 5_000_000, source: 'invoice 1' };
  expect((await call('POST', '/tenants/new/credits', credit)).json).toEqual({ credited: true });
  expect((await call('POST', '/tenants/new/credits', credit)).json).toEqual({ credited: false });
  const { json: key } = await call('POST', '/tenants/new/keys', { label: 'first' });
  const answer = await askWith(key.key);
  expect(answer.status).toBe(200);
  const paid = Number(answer.headers.get('x-sift-cost-nano-usd'));
  const { json: shown } = await call('GET', '/tenants/new');
  expect(shown).toMatchObject({
    name: 'New Ltd',
    balance: { granted_nano_usd: 5_000_000 - paid, topped_up_nano_usd: 0, held_nano_usd: 0 },
  });
});

test('the full key is shown when it is made and never again', async () => {
  const { json: made, text } = await call('POST', '/tenants/acme/keys', {});
  expect(made.key).toMatch(/^sk-sift-acme\./);
  expect(text).toContain(made.key);
  const listed = await call('GET', '/tenants/acme/keys');
  expect(listed.text).not.toContain('sk-sift-');
  expect(listed.json.keys.map((each: { key_id: string }) => each.key_id)).toContain(made.key_id);
  expect(JSON.stringify(harness.logged)).not.toContain(made.key);
});

test('a revoked key and a suspended tenant are refused at the next request', async () => {
  const { json: made } = await call('POST', '/tenants/acme/keys', {});
  expect((await askWith(made.key)).status).toBe(200);
  const revoked = await call('PATCH', `/tenants/acme/keys/${made.key_id}`, { status: 'revoked' });
  expect(revoked.json.status).toBe('revoked');
  expect((await askWith(made.key)).status).toBe(401);
  expect((await call('PATCH', '/tenants/acme', { status: 'suspended' })).status).toBe(200);
  expect((await askWith(harness.apiKey)).status).toBe(403);
  await call('PATCH', '/tenants/acme', { status: 'active' });
  expect((await askWith(harness.apiKey)).status).toBe(200);
});

test('limits of a key act at the next request', async () => {
  const { json: made } = await call('POST', '/tenants/acme/keys', {});
  const limits = { requests_per_minute: 1, tokens_per_minute: null, concurrent_requests: null };
  await call('PATCH', `/tenants/acme/keys/${made.key_id}`, { limits });
  const statuses = [await askWith(made.key), await askWith(made.key)].map((each) => each.status);
  expect(statuses).toEqual([200, 429]);
});

test('limits are shown wherever their tenant or key is', async () => {
  const none = { requests_per_minute: null, tokens_per_minute: null, concurrent_requests: null };
  const limits = { ...none, requests_per_minute: 1, concurrent_requests: 7 };
  expect((await call('POST', '/tenants', { id: 'poor' })).json.limits).toEqual(none);
  expect((await call('PATCH', '/tenants/poor', { limits })).json.limits).toEqual(limits);
  const suspended = await call('PATCH', '/tenants/poor', { status: 'suspended' });
  expect(suspended.json).toMatchObject({ status: 'suspended', limits });
  expect((await call('GET', '/tenants/poor')).json.limits).toEqual(limits);
  const { json: all } = await call('GET', '/tenants');
  expect(all.tenants).toMatchObject([
    { id: 'acme', limits: none },
    { id: 'poor', limits },
  ]);

  const { json: made } = await call('POST', '/tenants/poor/keys', { limits });
  expect(made.limits).toEqual(limits);
  const path = `/tenants/poor/keys/${made.key_id}`;
  expect((await call('GET', path)).json).toMatchObject({ key_id: made.key_id, limits });
  expect((await call('PATCH', path, { label: 'a' })).json.limits).toEqual(limits);
  expect((await call('GET', '/tenants/poor/keys')).json.keys).toMatchObject([{ limits }]);
  const { status, json } = await call('GET', '/tenants/poor/keys/none');
  expect([status, json.error.message]).toEqual([404, 'The tenant poor has no key none.']);
});

test('a tenant whose database cannot be read does not hide the others', async () => {
  await harness.addTenant('sound');
  const limits = () => Promise.reject(new Error('the database is damaged'));
  const tenant = (id: string) =>
    id === 'acme' ? { ...harness.tenant, limits } : harness.services.tenant(id);
  const app = createApp({ ...harness.services, tenant }, mounts);
  const answer = await app.request('/admin/tenants', {
    headers: { authorization: 'Bearer admin-token' },
  });
  expect(await answer.json()).toMatchObject({
    tenants: [
      { id: 'acme', limits: null },
      { id: 'sound', limits: { requests_per_minute: null } },
    ],
  });
  expect(harness.logged).toContainEqual(
    expect.objectContaining({ event: 'tenant-read-failed', tenant: 'acme' }),
  );
});

test('a model that a worker serves and nobody can use is shown with the command that mends it', async () => {
  const said = heartbeatOf({ id: 'w9' });
  const [model] = said.models;
  await harness.fleet.heartbeat({ ...said, models: [{ ...model, id: 'new one' }] });
  const unlisted = {
    model: 'new one',
    lacks: 'directory entry',
    command: `npm run --silent admin -- models put 'new one' ${model?.context_length} ${model?.revision} ${model?.tokenizer}`,
  };
  const { json: before } = await call('GET', '/workers');
  const unsoldBy = (id: string, { workers }: { workers: { id: string; unsold: unknown[] }[] }) =>
    workers.find((worker) => worker.id === id)?.unsold;
  expect(unsoldBy('w9', before)).toEqual([unlisted]);
  expect(unsoldBy('worker-0', before)).toEqual([]);
  expect((await call('GET', '/models')).json.unsold).toEqual([unlisted]);

  await call('POST', '/models', {
    id: 'new one',
    context_length: 1024,
    revision: 'r',
    tokenizer: 't',
  });
  const unpriced = {
    model: 'new one',
    lacks: 'price',
    command: "npm run --silent admin -- prices add 'new one' CACHED_USD INPUT_USD OUTPUT_USD",
  };
  expect(unsoldBy('w9', (await call('GET', '/workers')).json)).toEqual([unpriced]);
  const { json: models } = await call('GET', '/models');
  expect(models.unsold).toEqual([unpriced]);
  expect(models.models).toMatchObject([
    { id: 'new one', price: null, workers: 1 },
    { id: testModel, price: { id: 'price-1', input: 280_000_000 }, workers: 1 },
  ]);

  await call('POST', '/prices', { model: 'new one', input_cached: 1, input: 1, output: 1 });
  expect(unsoldBy('w9', (await call('GET', '/workers')).json)).toEqual([]);
  expect((await call('GET', '/models')).json.unsold).toEqual([]);
});

test('a correction names its entry, and one that the books do not allow is refused with why', async () => {
  await askWith(harness.apiKey);
  const { json } = await call('GET', '/tenants/acme/entries');
  const posted = json.entries.find((each: { kind: string }) => each.kind === 'posted');
  const back = { entry_id: posted.id, amount_nano_usd: -posted.amount_nano_usd, note: 'sorry' };
  const corrected = await call('POST', '/tenants/acme/corrections', back);
  expect(corrected.json).toMatchObject({ kind: 'correction', refers_to: posted.id });
  const twice = await call('POST', '/tenants/acme/corrections', back);
  expect(twice.status).toBe(409);
  expect(twice.json.error.message).toMatch(/the entry took 0.00 USD/);
  const none = await call('POST', '/tenants/acme/corrections', { ...back, entry_id: 999 });
  expect(none.status).toBe(404);
  expect((await call('GET', '/audit')).json).toMatchObject({ ok: true, findings: [] });
});

test('the audit says which tenant has a balance that its entries do not explain', async () => {
  await harness.addTenant('sound');
  const { db, tenant: unsound } = openTestTenant();
  // Nothing of ours writes so; this is what a damaged file or a stranger's hand would leave.
  db.run(sql`UPDATE account SET granted_nano_usd = granted_nano_usd + 1`);
  const tenant = (id: string) => (id === 'acme' ? unsound : harness.services.tenant(id));
  const app = createApp({ ...harness.services, tenant }, mounts);
  const headers = { authorization: 'Bearer admin-token' };
  const report = JSON.parse(await (await app.request('/admin/audit', { headers })).text());
  expect(report).toMatchObject({ ok: false, tenants: 2 });
  const found = report.findings.map((each: { tenant: string }) => each.tenant);
  expect(new Set(found)).toEqual(new Set(['acme']));
});

test('a price acts from its time on, and inside its window', async () => {
  const price = { model: testModel, input_cached: 1, input: 2_000_000_000, output: 0 };
  const noon = harness.services.clock.nowMs();
  const later = await call('POST', '/prices', { ...price, from_ms: noon + 60_000 });
  expect(later.status).toBe(201);
  const cost = async () =>
    Number((await askWith(harness.apiKey)).headers.get('x-sift-cost-nano-usd'));
  const before = await cost();
  harness.advance(60_000);
  expect(await cost()).toBeGreaterThan(before);
  const window = { start_minute: 720, end_minute: 740 };
  await call('POST', '/prices', { ...price, input: 0, window });
  expect(await cost()).toBe(0);
  harness.advance(20 * 60_000);
  expect(await cost()).toBeGreaterThan(before);
});

test('of two prices none can begin at one moment of one day', async () => {
  const from_ms = harness.services.clock.nowMs() + 3_600_000;
  const price = { model: testModel, input_cached: 1, input: 2, output: 3, from_ms };
  const add = async (window?: [number, number]) => {
    const [start_minute, end_minute] = window ?? [];
    const body = { ...price, ...(window && { window: { start_minute, end_minute } }) };
    return (await call('POST', '/prices', body)).status;
  };
  expect(await add()).toBe(201);
  expect(await add()).toBe(409);
  expect(await add([1_380, 120])).toBe(201);
  expect(await add([60, 240])).toBe(409);
  expect(await add([1_439, 1_440])).toBe(409);
  expect(await add([120, 240])).toBe(201);
  expect((await call('POST', '/prices', { ...price, from_ms: from_ms + 1 })).status).toBe(201);
});

test('prices of the past, of unknown models and of a taken id are refused', async () => {
  const price = { id: 'mine', model: testModel, input_cached: 1, input: 2, output: 3 };
  expect((await call('POST', '/prices', { ...price, from_ms: 0 })).status).toBe(422);
  expect((await call('POST', '/prices', { ...price, model: 'x' })).status).toBe(404);
  expect((await call('POST', '/prices', { ...price, input: -1 })).status).toBe(422);
  expect((await call('POST', '/prices', { ...price, input: 0.5 })).status).toBe(400);
  expect((await call('POST', '/prices', price)).status).toBe(201);
  expect((await call('POST', '/prices', price)).status).toBe(409);
});

test('the prefix index is judged by what workers had, and usage is exported whole', async () => {
  const ask = (text: string) =>
    harness.post('/v1/chat/completions', {
      model: testModel,
      messages: [{ role: 'user', content: text.repeat(200) }],
    });
  const told = async () => {
    const { unavailable, ...figures } = (await call('GET', '/prefixes?tenant=acme')).json;
    expect(unavailable).toEqual([]);
    return figures;
  };
  expect(await told()).toEqual({
    requests: 0,
    promised: 0,
    broken: 0,
    mismatch_rate: null,
  });
  for (let turn = 0; turn < 2; turn++) await (await ask('A long story. ')).text();
  await harness.idle();
  expect(await told()).toEqual({ requests: 2, promised: 1, broken: 0, mismatch_rate: 0 });
  harness.worker.script = { ...harness.worker.script, cachedTokens: 0 };
  await (await ask('A long story. ')).text();
  await harness.idle();
  expect(await told()).toEqual({ requests: 3, promised: 2, broken: 1, mismatch_rate: 0.5 });
  const { text } = await call('GET', '/export/usage');
  expect(JSON.parse(text)).toMatchObject({ requests: 3, prefix_promised: 2, prefix_broken: 1 });

  // More rows than a page: one per key.
  const { db, tenant: large } = openTestTenant();
  db.run(sql`INSERT INTO usage_daily (day, model, key_id, requests, input_uncached, input_cached,
      output_text, output_reasoning, cost_nano_usd)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20001)
    SELECT '2026-01-15', 'm', printf('k%06d', i), 1, 0, 0, 0, 0, 0 FROM n`);
  const authorize: typeof large.authorize = async () => null;
  const tenant = () => ({ ...large, authorize });
  const app = createApp({ ...harness.services, tenant }, mounts);
  const headers = { authorization: 'Bearer admin-token' };
  const lines = await (await app.request('/admin/export/usage?tenant=acme', { headers })).text();
  expect(lines.trimEnd().split('\n')).toHaveLength(20_001);
  const own = { authorization: `Bearer ${harness.apiKey}` };
  const report = await app.request('/v1/usage', { headers: own });
  expect([report.status, await report.text()]).toEqual([
    422,
    expect.stringContaining('more than 20000 rows'),
  ]);
});

test('a credit beyond what a balance can be is refused, and changes nothing', async () => {
  const credit = (source: string, amount: number) =>
    call('POST', '/tenants/acme/credits', { kind: 'granted', amount_nano_usd: amount, source });
  const before = await harness.tenant.balance();
  const { status, json } = await credit('huge', Number.MAX_SAFE_INTEGER);
  expect(status).toBe(409);
  expect(json.error.message).toContain('9,007,199 USD');
  expect(await harness.tenant.balance()).toEqual(before);
  expect((await credit('huge', 5)).json).toEqual({ credited: true });
});

test('a day that there is not is refused', async () => {
  expect((await call('GET', '/export/usage?from=2026-02-30')).status).toBe(422);
  expect((await call('GET', '/export/usage?from=2026-13-01')).status).toBe(422);
  expect((await call('GET', '/export/usage?from=2028-02-29')).status).toBe(200);
});

test('an engine is added, changed and removed, and no answer holds its token', async () => {
  const engine = { id: 'vllm', url: 'http://vllm.test:8000/', token: 'secret-of-vllm' };
  const made = await call('POST', '/workers', engine);
  expect(made.status).toBe(201);
  expect(made.json).toEqual({
    id: 'vllm',
    url: 'http://vllm.test:8000',
    own_token: true,
    slots: null,
  });
  expect(harness.fleet.staticWorkers()).toMatchObject([{ ownToken: { bearer: 'secret-of-vllm' } }]);
  await call('POST', '/workers', { ...engine, token: null });
  expect(harness.fleet.staticWorkers()).toMatchObject([{ ownToken: { bearer: null } }]);
  const { id, url } = engine;
  await call('POST', '/workers', { id, url });
  expect(harness.fleet.staticWorkers()).toMatchObject([{ ownToken: null }]);
  expect((await call('POST', '/workers', { id, url, slots: 3 })).json).toMatchObject({ slots: 3 });
  expect(harness.fleet.staticWorkers()).toMatchObject([{ id, slots: 3 }]);
  for (const slots of [0, -1, 1.5, 1_000_000, '3', null]) {
    const { status } = await call('POST', '/workers', { id, url, slots });
    expect([400, 422]).toContain(status);
  }
  expect((await call('POST', '/workers', { ...engine, token: 'two words' })).status).toBe(422);
  expect((await call('POST', '/workers', { ...engine, url: 'ftp://x' })).status).toBe(422);
  expect((await call('POST', '/workers', { ...engine, id: 'worker-0' })).status).toBe(409);
  expect((await call('DELETE', '/workers/worker-0')).status).toBe(404);
  expect((await call('DELETE', '/workers/vllm')).json).toEqual({ worker: 'vllm', removed: true });
  expect(harness.fleet.staticWorkers()).toEqual([]);
});

test('workers are listed and drained', async () => {
  const { json } = await call('GET', '/workers');
  expect(json.workers).toMatchObject([{ id: 'worker-0', state: 'ready' }]);
  await call('POST', '/workers/worker-0/drain', { draining: true });
  expect((await askWith(harness.apiKey)).status).toBe(503);
  expect((await call('POST', '/workers/nobody/drain', { draining: true })).status).toBe(404);
  await call('POST', '/workers/worker-0/drain', { draining: false });
  expect((await askWith(harness.apiKey)).status).toBe(200);
});

test('usage is exported as JSON lines and as CSV, of one tenant or of all', async () => {
  const other = await harness.addTenant('other');
  for (const key of [harness.apiKey, harness.apiKey, other]) await askWith(key);
  const lines = (await call('GET', '/export/usage')).text.trimEnd().split('\n');
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { tenant: 'acme', model: testModel, requests: 2 },
    { tenant: 'other', model: testModel, requests: 1 },
  ]);
  const csv = (await call('GET', '/export/usage?format=csv&tenant=other')).text.split('\r\n');
  expect(csv[0]).toMatch(/^tenant,day,model,key_id,requests/);
  expect(csv[1]).toMatch(/^other,2026-01-15,sift-test,/);
  expect(csv).toHaveLength(3);
  expect((await call('GET', '/export/usage?from=2026-01-16')).text).toBe('');
  expect((await call('GET', '/export/usage?from=yesterday')).status).toBe(422);
  expect((await call('GET', '/export/usage?tenant=nobody')).status).toBe(404);
});

test('a ledger of more than one page is exported whole, and no text becomes a formula', async () => {
  for (let index = 0; index < 501; index++) {
    const source = `s${index}`;
    await harness.tenant.credit({ kind: 'granted', amountNanoUsd: 1, source, note: '=1+"1"' });
  }
  const csv = (await call('GET', '/export/entries?format=csv&tenant=acme')).text.trimEnd();
  const rows = csv.split('\r\n');
  expect(rows).toHaveLength(1 + 502);
  expect(rows.at(-1)).toContain(`"'=1+""1"""`);
  const ids = rows.slice(1).map((row) => Number(row.split(',')[1]));
  expect(ids).toEqual(Array.from({ length: 502 }, (_, index) => index + 1));
});

test('what is wrong with a request is said by name', async () => {
  const cases: [string, string, unknown, number, string][] = [
    ['POST', '/tenants', { id: 'UPPER' }, 422, 'id'],
    ['POST', '/tenants', { id: '../etc' }, 422, 'id'],
    ['POST', '/tenants', { name: 'x' }, 400, 'id'],
    ['POST', '/tenants', { id: 'x', colour: 'red' }, 400, 'colour'],
    [
      'POST',
      '/tenants/acme/credits',
      { kind: 'granted', amount_nano_usd: 0.5, source: 'x' },
      400,
      'amount_nano_usd',
    ],
    [
      'POST',
      '/tenants/acme/credits',
      { kind: 'granted', amount_nano_usd: 0, source: 'x' },
      422,
      'amount_nano_usd',
    ],
    ['POST', '/tenants/acme/keys', { scopes: ['root'] }, 422, 'scopes[0]'],
    ['GET', '/tenants/acme/entries?limit=0', undefined, 422, 'limit'],
    ['GET', '/tenants/acme/entries?page=2', undefined, 400, 'page'],
  ];
  for (const [method, path, body, status, param] of cases) {
    const answer = await call(method, path, body);
    expect([path, answer.status, answer.json.error.param]).toEqual([path, status, param]);
  }
  const nobody = await call('GET', '/tenants/nobody');
  expect([nobody.status, nobody.json.error.code]).toEqual([404, 'not_found']);
  expect((await call('POST', '/tenants/nobody/keys', {})).status).toBe(404);
});

test('the reference names every route, its fields and what it answers, without a token', async () => {
  const response = await harness.app.request('/admin/openapi.json');
  const document = JSON.parse(await response.text());
  for (const { method, path, status } of adminEndpoints) {
    const operation = document.paths[`/admin${path}`]?.[method];
    expect([path, Object.keys(operation.responses)]).toEqual([path, [String(status), 'default']]);
  }
  const key = document.paths['/admin/tenants/{tenant}/keys'].post;
  const fields = key.requestBody.content['application/json'].schema.properties;
  expect(Object.keys(fields)).toEqual([
    'label',
    'scopes',
    'priority',
    'weight',
    'expires_at_ms',
    'models',
    'budget',
    'limits',
  ]);
  expect(key.parameters[0]).toMatchObject({ name: 'tenant', in: 'path', required: true });
  const page = await (await harness.app.request('/admin/docs')).text();
  expect(page).toContain('/admin/tenants/{tenant}/credits');
  expect(page).not.toMatch(/<script|<link|<img|@import|url\(|\b(src|href)="(https?:)?\/\//);
});

test('what a key may is set when it is made and later, and lifted with null', async () => {
  const budget = { windows: [{ window: 'day', limit_nano_usd: 5_000_000_000 }] };
  const terms = { weight: 3, expires_at_ms: 4_000_000_000_000, models: [testModel], budget };
  const { json: made } = await call('POST', '/tenants/acme/keys', terms);
  expect(made).toMatchObject({
    ...terms,
    budget: {
      zone: 'UTC',
      windows: [{ window: 'day', left_nano_usd: 5_000_000_000, spent_nano_usd: 0 }],
    },
  });
  const path = `/tenants/acme/keys/${made.key_id}`;
  const berlin = { zone: 'Europe/Berlin', windows: [{ window: 'ever', limit_nano_usd: 1 }] };
  const changed = await call('PATCH', path, { budget: berlin });
  expect(changed.json).toMatchObject({
    weight: 3,
    budget: { zone: 'Europe/Berlin', windows: [{ window: 'ever', resets_at_ms: null }] },
  });
  const lifted = { expires_at_ms: null, models: null, budget: null };
  expect((await call('PATCH', path, lifted)).json).toMatchObject(lifted);
  expect((await call('GET', path)).json).toMatchObject({ ...lifted, weight: 3 });
});

test('budgets that requests name are made, listed and removed', async () => {
  const terms = { windows: [{ window: 'month', limit_nano_usd: 7 }] };
  const made = await call('PUT', '/tenants/acme/budgets/agent-7', terms);
  expect(made.json).toMatchObject({ object: 'budget', name: 'agent-7', zone: 'UTC' });
  const listed = await call('GET', '/tenants/acme/budgets');
  expect(listed.json.data).toEqual([made.json]);
  const removed = await call('DELETE', '/tenants/acme/budgets/agent-7');
  expect(removed.json).toMatchObject({ name: 'agent-7', deleted: true });
  expect((await call('DELETE', '/tenants/acme/budgets/agent-7')).status).toBe(404);
});

test.each([
  ['POST', 'keys', { weight: 0 }, 'weight'],
  ['POST', 'keys', { models: [] }, 'models'],
  ['POST', 'keys', { expires_at_ms: -1 }, 'expires_at_ms'],
  ['PUT', 'budgets/b', { windows: [] }, 'windows'],
  ['PUT', 'budgets/b', { windows: [{ window: 'day', limit_nano_usd: -1 }] }, 'windows[0]'],
  [
    'PUT',
    'budgets/b',
    { zone: 'Mars/Base', windows: [{ window: 'day', limit_nano_usd: 1 }] },
    'zone',
  ],
  ['PUT', 'budgets/-', { windows: [{ window: 'day', limit_nano_usd: 1 }] }, 'name'],
])('%s %s with %j is refused by name', async (method, path, body, param) => {
  const { status, json } = await call(method, `/tenants/acme/${path}`, body);
  expect([400, 422]).toContain(status);
  expect(json.error.param).toContain(param);
});

test('a window that is named twice is refused', async () => {
  const window = { window: 'day', limit_nano_usd: 1 };
  const { status } = await call('PUT', '/tenants/acme/budgets/b', { windows: [window, window] });
  expect(status).toBe(422);
});
