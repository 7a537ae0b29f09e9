/**
 * An edge of several threads answers as one: the system gives each connection to some thread, and
 * so many connections reach all of them.
 */
import { strict as assert } from 'node:assert';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { RunningEdge } from '../../../../edge/node/node.ts';
import { connectClients } from '../../../support/edge/connected-clients.ts';
import type { ClientAnswer, ConnectedClient } from '../../../support/edge/connected-clients.ts';
import { plainScript, startStubWorker } from '../../../support/edge/edge-stub-worker.ts';
import type { StubWorker } from '../../../support/edge/edge-stub-worker.ts';
import { startNode, testFolder } from '../../../support/edge/runtime-node.ts';
import { runtimeSecrets } from '../../../support/edge/runtime-system.ts';
import { operatorOf, seedModel, seedModelAndWorker } from '../../../support/edge/seed.ts';
import type { Operator } from '../../../support/edge/seed.ts';

const threads = 3;
/** In one of 10^4 runs one of the threads gets none of them, which then hides a fault. */
const connections = 24;
const tenants = ['acme', 'other', 'third', 'fourth'] as const;
const path = '/v1/chat/completions';
const dollar = 1_000_000_000;

const folder = testFolder();
const logged: { readonly event: string; readonly requestId?: unknown }[] = [];
let edge: RunningEdge;
let stub: StubWorker;
let operator: Operator;
let announcing: { stop(): void };
let clients: readonly ConnectedClient[];
const keys = new Map<string, string>();

beforeAll(async () => {
  edge = await startNode(folder.path, {
    env: { ...runtimeSecrets, EDGE_THREADS: String(threads), EDGE_LOG_LEVEL: 'info' },
    log: (_level, event, fields) => void logged.push({ event, ...fields }),
  });
  operator = operatorOf(edge.url, runtimeSecrets.EDGE_ADMIN_TOKEN);
  stub = await startStubWorker({ token: runtimeSecrets.WORKER_TOKEN, model: seedModel });
  const { url } = edge;
  const workerToken = runtimeSecrets.WORKER_TOKEN;
  announcing = await seedModelAndWorker({ url, workerToken, operator }, stub);
  for (const tenant of tenants) keys.set(tenant, await operator.addTenant(tenant, dollar));
  clients = connectClients(edge.url, connections);
});

afterEach(async () => {
  stub.script = plainScript;
  await vi.waitFor(async () => assert.equal(await inFlight(), 0), { timeout: 30_000 });
  // The audit route documents this form.
  const { findings } = (await operator.call('GET', '/audit')) as { findings: unknown[] };
  assert.deepEqual(findings, []);
});

afterAll(async () => {
  clients?.forEach((client) => client.close());
  announcing?.stop();
  await edge?.close();
  await stub?.close();
  folder.remove();
});

async function inFlight(): Promise<number> {
  const [worker] = await edge.services.fleet.status();
  return worker?.slotsInFlight ?? Number.NaN;
}

interface Asked {
  readonly tenant?: (typeof tenants)[number];
  readonly more?: object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

function askBy(client: ConnectedClient, asked: Asked = {}): Promise<ClientAnswer> {
  const { tenant = 'acme', more = {}, headers = {}, signal } = asked;
  const messages = [{ role: 'user', content: 'Hi.' }];
  return client.send({
    path,
    headers: { authorization: `Bearer ${keys.get(tenant)}`, ...headers },
    body: JSON.stringify({ model: seedModel, max_tokens: 50, messages, ...more }),
    ...(signal !== undefined && { signal }),
  });
}

function askByAll(asked: Asked = {}): Promise<ClientAnswer[]> {
  return Promise.all(clients.map((client) => askBy(client, asked)));
}

async function statusesOfAll(asked: Asked = {}): Promise<number[]> {
  return [...new Set((await askByAll(asked)).map(({ status }) => status))];
}

async function costsOfAll(): Promise<number[]> {
  const answers = await askByAll();
  return [...new Set(answers.map(({ headers }) => Number(headers['x-sift-cost-nano-usd'])))];
}

test('every thread knows of a suspension, a price and an alias with its next request', async () => {
  expect(await statusesOfAll()).toEqual([200]);
  await operator.call('PATCH', '/tenants/acme', { status: 'suspended' });
  expect(await statusesOfAll()).toEqual([403]);
  expect(await statusesOfAll({ tenant: 'other' })).toEqual([200]);
  await operator.call('PATCH', '/tenants/acme', { status: 'active' });
  const [before = Number.NaN] = await costsOfAll();
  const price = { model: seedModel, input_cached: 0, input: 0, output: 1_000_000_000 };
  await operator.call('POST', '/prices', price);
  const after = await costsOfAll();
  expect(after).toHaveLength(1);
  expect(after).not.toContain(before);
  expect(await statusesOfAll({ more: { model: 'nickname' } })).toEqual([404]);
  await operator.call('POST', '/aliases', { name: 'nickname', models: [seedModel] });
  expect(await statusesOfAll({ more: { model: 'nickname' } })).toEqual([200]);
});

test('a key that was revoked opens no thread any more', async () => {
  const created = await operator.call('POST', '/tenants/other/keys', {});
  // The route's answer has both.
  const { key, key_id: id } = created as { key: string; key_id: string };
  const headers = { authorization: `Bearer ${key}` };
  expect(await statusesOfAll({ tenant: 'other', headers })).toEqual([200]);
  await operator.call('PATCH', `/tenants/other/keys/${id}`, { status: 'revoked' });
  expect(await statusesOfAll({ tenant: 'other', headers })).toEqual([401]);
});

test.each(tenants.flatMap((tenant) => [true, false].map((stream) => ({ tenant, stream }))))(
  'one answer is made under a key of $tenant, whichever threads are asked (stream: $stream)',
  async ({ tenant, stream }) => {
    stub.script = { ...plainScript, pauseMs: 20 };
    const before = stub.requests.length;
    const headers = { 'idempotency-key': `one-${tenant}-${stream}` };
    const answers = await askByAll({ tenant, headers, more: { stream } });
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    // Clients of a whole answer that waited for it may have had empty lines before.
    expect(
      new Set(answers.map(({ text }) => text.replaceAll(/^\n+|: [^\n]*\n\n/g, ''))),
    ).toHaveLength(1);
    expect(stub.requests.length - before).toBe(1);
    const ids = new Set(answers.map((answer) => answer.headers['x-request-id']));
    const lines = () => logged.filter(({ event }) => event === 'request');
    // Each client's request is told of once, by the thread that answered it.
    await expect
      .poll(() => lines().filter(({ requestId }) => ids.has(String(requestId))).length)
      .toBe(ids.size);
  },
);

test('a body that is refused before its end is answered, whichever thread refuses it', async () => {
  const headers = { 'idempotency-key': 'too-large' };
  const content = 'x'.repeat(9 * 2 ** 20);
  for (const tenant of tenants) {
    const messages = [{ role: 'user', content }];
    const some = clients.slice(0, 6);
    const asked = { tenant, headers, more: { messages } };
    const answers = await Promise.all(some.map((client) => askBy(client, asked)));
    expect(answers.map(({ status }) => status)).toEqual(some.map(() => 413));
  }
});

test('a long body under a key reaches the thread that answers it', async () => {
  const content = 'A sentence of a long text. '.repeat(4_000);
  const messages = [{ role: 'user', content }];
  for (const tenant of tenants) {
    const headers = { 'idempotency-key': 'long' };
    const some = clients.slice(0, 6);
    const asked = { tenant, headers, more: { messages } };
    const answers = await Promise.all(some.map((client) => askBy(client, asked)));
    expect(answers.map(({ status }) => status)).toEqual(some.map(() => 200));
    expect(stub.requests.at(-1)?.body['messages']).toEqual(messages);
  }
});

test('the fleet counts what all threads have at a worker', async () => {
  stub.script = { ...plainScript, fault: { kind: 'stall', event: 2 } };
  const before = stub.requests.length;
  const left = new AbortController();
  const { signal } = left;
  const answers = clients.map(async (client, index) => {
    const tenant = tenants[index % tenants.length] ?? 'acme';
    await askBy(client, { tenant, signal, more: { stream: true } }).catch(() => {});
  });
  const waiting = () => edge.services.fleet.status().then(([worker]) => worker);
  const held = async () => {
    const holds = await Promise.all(tenants.map((id) => edge.services.tenant(id).openHolds(0)));
    return holds.flat().length;
  };
  await expect.poll(held).toBe(connections);
  const worker = await waiting();
  // The worker has as many as it takes, and all others wait, of whichever thread they are.
  const atWorker = () => stub.requests.length - before;
  await expect.poll(atWorker).toBe(worker?.slotsInFlight);
  expect(atWorker()).toBeLessThanOrEqual((worker?.slots ?? 0) + tenants.length);
  expect(atWorker()).toBeLessThan(connections);
  left.abort();
  await Promise.all(answers);
  await expect.poll(held).toBe(0);
});

test("a tenant's limit is one for all threads", async () => {
  stub.script = { ...plainScript, fault: { kind: 'stall', event: 2 } };
  const none = { requests_per_minute: null, tokens_per_minute: null, concurrent_requests: null };
  const limits = { ...none, concurrent_requests: 3 };
  await operator.call('PATCH', '/tenants/other', { limits });
  const left = new AbortController();
  const { signal } = left;
  const statuses: number[] = [];
  const answers = clients.map(async (client) => {
    const asked = { tenant: 'other', signal, more: { stream: true } } as const;
    const answer = await askBy(client, asked).catch(() => null);
    if (answer !== null) statuses.push(answer.status);
  });
  await expect.poll(() => statuses.length).toBe(connections - 3);
  expect(new Set(statuses)).toEqual(new Set([429]));
  left.abort();
  await Promise.all(answers);
  await operator.call('PATCH', '/tenants/other', { limits: none });
});

test('metrics tell of the requests of all threads', async () => {
  const count = async (): Promise<number> => {
    const headers = { authorization: `Bearer ${runtimeSecrets.EDGE_ADMIN_TOKEN}` };
    const text = await (await fetch(`${edge.url}/metrics`, { headers })).text();
    const [, found = 'NaN'] =
      /^sift_edge_answers_total\{model="sift-test",outcome="done"\} (\d+)$/m.exec(text) ?? [];
    return Number(found);
  };
  const before = await count();
  await askByAll();
  await expect.poll(count).toBe(before + connections);
});
