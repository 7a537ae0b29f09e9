/** The Durable Objects as Cloudflare runs them: alarms, eviction, plain objects over RPC. */
import { env, evictDurableObject, runDurableObjectAlarm } from 'cloudflare:test';
import { Webhook } from 'standardwebhooks';
import { afterEach, expect, test, vi } from 'vitest';
import { fleetMethods } from '../../../edge/fleet/fleet-contract.ts';
import { tenantMethods } from '../../../edge/tenant/tenant-contract.ts';
import { heartbeatOf } from '../../support/edge/fleet-of-runtime.ts';
import { addKey, admitInput, settleInput } from '../../support/edge/tenant-samples.ts';

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function fundedTenant() {
  const stub = env.TENANT.get(env.TENANT.newUniqueId());
  await addKey(stub);
  await stub.credit({ kind: 'granted', amountNanoUsd: 10_000_000, source: 'grant', note: '' });
  return stub;
}

const place = { requestId: 'r1', worker: 'w1', epoch: 1, workerUrl: 'http://w1.test', chain: [] };

function journalOf(status: string, usage: { prompt: number; output: number }): Response {
  return Response.json({
    object: 'request.usage',
    id: 'r1',
    model: 'm',
    status,
    created: 1,
    updated: 2,
    usage: {
      prompt_tokens: usage.prompt,
      completion_tokens: usage.output,
      total_tokens: usage.prompt + usage.output,
      prompt_tokens_details: { cached_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0 },
      prompt_cache_hit_tokens: 0,
      prompt_cache_miss_tokens: usage.prompt,
    },
  });
}

test('an admission sets an alarm, which settles an expired hold from the worker journal', async () => {
  const stub = await fundedTenant();
  expect((await stub.admit(admitInput('r1'))).kind).toBe('admitted');
  await stub.placed(place);
  const asked: string[] = [];
  vi.stubGlobal('fetch', async (url: URL) => {
    asked.push(url.href);
    return journalOf('aborted', { prompt: 100, output: 5 });
  });
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 11 * 60_000 });
  expect(await runDurableObjectAlarm(stub)).toBe(true);
  expect(asked).toEqual(['http://w1.test/v1/requests/r1/usage']);
  expect((await stub.balance()).held).toBe(0);
  const posted = (await stub.entries({ afterId: 0, limit: 10 })).at(-1);
  expect(posted).toMatchObject({ kind: 'posted', usage: { inputUncached: 100, outputText: 5 } });
  expect(await stub.audit()).toEqual([]);
  // Nothing is open, so nothing wakes the object again.
  expect(await runDurableObjectAlarm(stub)).toBe(false);
});

test('an alarm that finds the request running leaves its hold and comes back', async () => {
  const stub = await fundedTenant();
  await stub.admit(admitInput('r1'));
  await stub.placed(place);
  vi.stubGlobal('fetch', async () => journalOf('running', { prompt: 100, output: 5 }));
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 11 * 60_000 });
  expect(await runDurableObjectAlarm(stub)).toBe(true);
  expect((await stub.balance()).held).toBeGreaterThan(0);
  vi.stubGlobal('fetch', async () => journalOf('done', { prompt: 100, output: 6 }));
  expect(await runDurableObjectAlarm(stub)).toBe(true);
  expect((await stub.balance()).held).toBe(0);
});

test('a tenant that is evicted keeps its books, its keys and its alarm', async () => {
  const stub = await fundedTenant();
  await stub.admit(admitInput('r1'));
  const before = await stub.balance();
  await evictDurableObject(stub);
  expect(await stub.balance()).toEqual(before);
  expect((await stub.settle(settleInput('r1'))).first).toBe(true);
  expect((await stub.settle(settleInput('r1'))).first).toBe(false);
  await evictDurableObject(stub);
  expect(await runDurableObjectAlarm(stub)).toBe(true);
});

test('a fleet that is evicted still knows its workers and which of them are drained', async () => {
  const stub = env.FLEET.get(env.FLEET.idFromName('fleet'));
  for (const id of ['a', 'b']) await stub.heartbeat(heartbeatOf({ id }));
  await stub.drain('a', true);
  await evictDurableObject(stub);
  // The order is that of their heartbeats, which may fall into one millisecond.
  const states = new Map((await stub.status()).map(({ id, state }) => [id, state]));
  expect(states).toEqual(
    new Map([
      ['a', 'draining'],
      ['b', 'ready'],
    ]),
  );
  const placed = await stub.place({
    requestId: 'r1',
    model: 'tiny',
    promptTokens: 10,
    outputTokensMax: 10,
    prefixHits: [],
    exclude: [],
    turn: null,
  });
  expect(placed).toMatchObject({ kind: 'placed', worker: 'b', url: 'http://b.test' });
});

test('an engine that the operator adds is probed, also after an eviction, until it is removed', async () => {
  const stub = env.FLEET.get(env.FLEET.idFromName('fleet-with-an-engine'));
  const states = async () => (await stub.status()).map(({ id, state }) => [id, state]);
  // Nobody listens there.
  const engine = { id: 'vllm', url: 'http://127.0.0.1:9', ownToken: { bearer: 'its-token' } };
  expect(await stub.addStatic(engine)).toEqual({ accepted: true, reason: null });
  await expect.poll(states).toEqual([['vllm', 'failing']]);
  await evictDurableObject(stub);
  await expect.poll(states).toEqual([['vllm', 'failing']]);
  expect(await stub.removeStatic('vllm')).toBe(true);
  expect(await states()).toEqual([]);
  await expect.poll(() => runDurableObjectAlarm(stub)).toBe(false);
  expect(await states()).toEqual([]);
}, 60_000);

/** The error of a call over RPC without arguments; null when it has an answer. */
async function errorOf(stub: object, name: string): Promise<string | null> {
  const method: unknown = Reflect.get(stub, name);
  if (typeof method !== 'function') return `${name} is no function`;
  try {
    await Reflect.apply(method, stub, []);
    return null;
  } catch (error) {
    return String(error);
  }
}

test('each method of a tenant and of the fleet may be called over RPC', async () => {
  const missing = /does not implement/;
  const tenant = env.TENANT.get(env.TENANT.newUniqueId());
  expect(await errorOf(tenant, 'open')).toMatch(missing);
  for (const name of tenantMethods)
    expect(String(await errorOf(tenant, name))).not.toMatch(missing);
  const fleet = env.FLEET.get(env.FLEET.newUniqueId());
  expect(await errorOf(fleet, 'staticWorkers')).toMatch(missing);
  for (const name of fleetMethods) expect(String(await errorOf(fleet, name))).not.toMatch(missing);
});

test('webhooks are sent by the alarm, signed, and tried again when they fail', async () => {
  const stub = await fundedTenant();
  const secret = `whsec_${btoa('a secret of thirty-two characters')}`;
  const terms = { label: '', events: ['top_up.received'], lowBalanceNanoUsd: null } as const;
  const url = 'https://hooks.example/sift';
  const webhook = { ...terms, id: 'wh_1', secret, url, budgetPercents: [] };
  await stub.createWebhook(webhook, { kind: 'operator' });
  const sent: { readonly headers: Record<string, string>; readonly body: string }[] = [];
  vi.stubGlobal('fetch', async (_: URL, init: (typeof sent)[number]) => {
    sent.push(init);
    return new Response(null, { status: sent.length === 1 ? 503 : 204 });
  });
  // Without a cause there is nothing to send, and no alarm that goes on.
  await runDurableObjectAlarm(stub);
  expect(sent).toEqual([]);
  await stub.credit({ kind: 'topped-up', amountNanoUsd: 5, source: 'pay', note: '' });
  await runDurableObjectAlarm(stub);
  await expect.poll(() => sent.length).toBe(1);
  const [failed] =
    (await stub.webhookDeliveries({ id: 'wh_1', beforeEvent: null, limit: 5 })) ?? [];
  expect(failed).toMatchObject({ status: 'pending', tries: [{ httpStatus: 503 }] });
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 60_000 });
  expect(await runDurableObjectAlarm(stub)).toBe(true);
  await expect.poll(() => sent.length).toBe(2);
  vi.useRealTimers();
  expect(sent[0]?.headers['webhook-id']).toBe(sent[1]?.headers['webhook-id']);
  const [first] = sent;
  expect(first && new Webhook(secret).verify(first.body, first.headers)).toMatchObject({
    type: 'top_up.received',
  });
});
