/** Webhooks as an account's own admin key manages them, and the operator. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mounts } from '../../../edge/edge.ts';
import { webhookSchema, webhookWithSecretSchema } from '../../../edge/account/webhook-wire.ts';
import { startHarness } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
let adminKey: string;
beforeEach(async () => {
  edge = await startHarness({ mounts, scripts: [] });
  adminKey = await edge.addKey('acme', { scopes: ['admin'] });
});
afterEach(() => edge.close());

async function call(
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
) {
  const answer = await edge.app.request(path, {
    method,
    headers: {
      authorization: `Bearer ${adminKey}`,
      'content-type': 'application/json',
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answer.status, json: await answer.json() };
}

const hook = { url: 'https://hooks.example/sift', events: ['top_up.received'] };
const create = async (change: object = {}) => {
  const { status, json } = await call('POST', '/v1/webhooks', { ...hook, ...change });
  expect([status, json]).toEqual([201, expect.anything()]);
  return json;
};

test('a webhook is made, shown without its secret, changed and deleted', async () => {
  const made = await create({ label: 'billing' });
  expect(webhookWithSecretSchema.strict().safeParse(made).error).toBeUndefined();
  expect(made.secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  const path = `/v1/webhooks/${made.id}`;
  const shown = await call('GET', path);
  expect(webhookSchema.strict().safeParse(shown.json).error).toBeUndefined();
  expect((await call('GET', '/v1/webhooks')).json.webhooks).toEqual([shown.json]);
  const change = { events: ['balance.low'], low_balance_nano_usd: 5, status: 'disabled' };
  expect((await call('PATCH', path, change)).json).toMatchObject({
    ...change,
    url: hook.url,
    disabled_reason: 'disabled by its owner',
  });
  expect((await call('PATCH', path, { status: 'active' })).json.disabled_reason).toBeNull();
  expect((await call('DELETE', path)).json).toEqual({ id: made.id, deleted: true });
  expect((await call('GET', path)).status).toBe(404);
});

test('a rotation shows a new secret once', async () => {
  const made = await create();
  const rotated = await call('POST', `/v1/webhooks/${made.id}/secret`);
  expect(rotated.json.secret).not.toBe(made.secret);
  expect(rotated.json.previous_secret_until_ms).toBe(edge.services.clock.nowMs() + 86_400_000);
  expect(JSON.stringify((await call('GET', '/v1/webhooks')).json)).not.toContain('whsec_');
});

test('the same request under one idempotency key makes one webhook and shows one secret', async () => {
  const key = { 'idempotency-key': 'once' };
  const first = await call('POST', '/v1/webhooks', hook, key);
  const second = await call('POST', '/v1/webhooks', hook, key);
  expect(second).toEqual(first);
  const other = await call('POST', '/v1/webhooks', { ...hook, url: 'https://b.example' }, key);
  expect(other.json.error.code).toBe('idempotency_key_reused');
  const long = await call('POST', '/v1/webhooks', hook, { 'idempotency-key': 'x'.repeat(256) });
  expect(long.status).toBe(422);
  expect((await call('GET', '/v1/webhooks')).json.webhooks).toHaveLength(1);
  const rotate = `/v1/webhooks/${first.json.id}/secret`;
  const rotated = await call('POST', rotate, undefined, key);
  expect(await call('POST', rotate, undefined, key)).toEqual(rotated);
});

test('tests, the log and re-sending', async () => {
  const { id } = await create();
  const sent = await call('POST', `/v1/webhooks/${id}/test`);
  const second = await call('POST', `/v1/webhooks/${id}/test`);
  const log = await call('GET', `/v1/webhooks/${id}/deliveries?limit=1`);
  expect(log.json.deliveries).toEqual([
    expect.objectContaining({ event_id: second.json.event_id, status: 'pending', tries: [] }),
  ]);
  const before = `before=${second.json.event_id}`;
  const next = await call('GET', `/v1/webhooks/${id}/deliveries?${before}`);
  expect(next.json.deliveries).toMatchObject([
    { event_id: sent.json.event_id, type: 'webhook.test' },
  ]);
  const resend = `/v1/webhooks/${id}/deliveries/${sent.json.event_id}/resend`;
  expect((await call('POST', resend)).json).toEqual(sent.json);
  await call('PATCH', `/v1/webhooks/${id}`, { status: 'disabled' });
  for (const path of [resend, `/v1/webhooks/${id}/test`]) {
    expect((await call('POST', path)).json.error).toMatchObject({ code: 'conflict' });
  }
});

test.each([
  [{ url: 'http://hooks.example/' }, 422, 'url'],
  [{ url: 'https://127.0.0.1/' }, 422, 'url'],
  [{ url: 'https://hooks.example/#a' }, 422, 'url'],
  [{ url: 'nonsense' }, 422, 'url'],
  [{ url: `https://hooks.example/${'x'.repeat(2_000)}` }, 422, 'url'],
  [{ url: 5 }, 400, 'url'],
  [{ events: [] }, 422, 'events'],
  [{ events: ['webhook.test'] }, 422, 'events[0]'],
  [{ events: undefined }, 400, 'events'],
  [{ events: ['balance.low'] }, 422, 'low_balance_nano_usd'],
  [{ low_balance_nano_usd: 0 }, 422, 'low_balance_nano_usd'],
  [{ low_balance_nano_usd: 1.5 }, 400, 'low_balance_nano_usd'],
  [{ budget_percents: [101] }, 422, 'budget_percents[0]'],
  [{ secret: 'whsec_bWluZQ==' }, 400, 'secret'],
])('a new webhook with %o is refused with %i', async (change, status, param) => {
  const answer = await call('POST', '/v1/webhooks', { ...hook, ...change });
  expect([answer.status, answer.json.error.param]).toEqual([status, param]);
});

test('a change is held to the same terms, together with what stays', async () => {
  const { id } = await create();
  const change = (body: object) => call('PATCH', `/v1/webhooks/${id}`, body);
  expect((await change({ url: 'http://hooks.example/' })).json.error.param).toBe('url');
  const low = await change({ events: ['balance.low'] });
  expect(low.json.error.param).toBe('low_balance_nano_usd');
  expect((await change({ status: 'paused' })).json.error.param).toBe('status');
});

test.each([
  ['GET', ''],
  ['PATCH', ''],
  ['DELETE', ''],
  ['POST', '/test'],
  ['POST', '/secret'],
  ['GET', '/deliveries'],
  ['POST', '/deliveries/msg_1/resend'],
])('%s of a webhook that does not exist is a 404', async (method, path) => {
  const body = method === 'PATCH' ? {} : undefined;
  expect((await call(method, `/v1/webhooks/wh_none${path}`, body)).status).toBe(404);
});

test('keys without the scope admin, and other accounts, reach no webhook', async () => {
  const { id } = await create();
  const plain = { authorization: `Bearer ${edge.apiKey}` };
  expect((await call('GET', '/v1/webhooks', undefined, plain)).status).toBe(403);
  expect((await call('POST', '/v1/webhooks', hook, plain)).status).toBe(403);
  await edge.addTenant('other');
  const other = await edge.addKey('other', { scopes: ['admin'] });
  const foreign = { authorization: `Bearer ${other}` };
  expect((await call('GET', '/v1/webhooks', undefined, foreign)).json.webhooks).toEqual([]);
  expect((await call('DELETE', `/v1/webhooks/${id}`, undefined, foreign)).status).toBe(404);
});

test('the operator manages the same webhooks', async () => {
  const { id } = await create();
  const operator = { authorization: 'Bearer admin-token' };
  const path = '/admin/tenants/acme/webhooks';
  const listed = await call('GET', path, undefined, operator);
  expect(listed.json.webhooks).toMatchObject([{ id }]);
  expect((await call('PATCH', `${path}/${id}`, { label: 'x' }, operator)).json.label).toBe('x');
  expect((await call('DELETE', `${path}/${id}`, undefined, operator)).status).toBe(200);
});
