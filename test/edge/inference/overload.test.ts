/**
 * Requests that find all workers busy: they wait without a word, or are refused before anything
 * begins.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import { operator } from '../../support/edge/tenant-samples.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
beforeEach(async () => {
  // An answer that does not end fills the only slot, and its tenant is owed no second one.
  const script = { fault: { kind: 'stall', event: 2 } } as const;
  const settings = { keepAliveMs: 20, wholeAnswerQuietMs: 20 };
  edge = await startHarness({ scripts: [script], slots: 1, settings });
});
afterEach(() => edge.close());

const messages = [{ role: 'user', content: 'Hello.' }];
const requests = {
  '/v1/chat/completions': { messages },
  '/v1/completions': { prompt: 'Hello.' },
  '/anthropic/v1/messages': { messages, max_tokens: 16 },
} as const;
const paths = Object.keys(requests) as (keyof typeof requests)[];

function bodyFor(path: keyof typeof requests, stream = false): object {
  return { model: testModel, stream, ...requests[path] };
}

/** @returns what ends the answer that fills the slot. */
async function fillSlot(): Promise<() => void> {
  const client = new AbortController();
  const { signal } = client;
  await edge.post('/v1/chat/completions', bodyFor('/v1/chat/completions', true), { signal });
  expect((await edge.fleet.status())[0]).toMatchObject({ slots: 1, slotsInFlight: 1 });
  edge.worker.script = { ...edge.worker.script, fault: null };
  return () => client.abort();
}

/** The number that waits in the fleet cannot be seen from outside; their open holds can. */
async function untilHeld(requestsHeld: number): Promise<void> {
  await expect.poll(async () => (await edge.tenant.openHolds(0)).length).toBe(requestsHeld);
}

describe.each(paths)('%s', (path) => {
  test.each([true, false])(
    'is refused with 429 when it will not wait (stream: %s)',
    async (stream) => {
      const leave = await fillSlot();
      const headers = { 'x-sift-max-wait-ms': '0' };
      const response = await edge.post(path, bodyFor(path, stream), { headers });
      expect(response.status).toBe(429);
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      const { error } = await response.json();
      expect(error).toMatchObject({ type: 'rate_limit_error' });
      expect(error.message).toMatch(/All workers of the model 'sift-test' are busy/);
      leave();
      await edge.idle();
      expect((await edge.tenant.balance()).held).toBe(0);
    },
  );

  test.each([true, false])('says nothing until it has a worker (stream: %s)', async (stream) => {
    const leave = await fillSlot();
    const asked = edge.post(path, bodyFor(path, stream));
    let answered = false;
    void asked.then(() => (answered = true));
    await untilHeld(2);
    // Several times what a stream or a whole answer keeps silent for.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(answered).toBe(false);
    leave();
    const response = await asked;
    expect(response.status).toBe(200);
    expect(await response.text()).toMatch(/Hel/);
  });
});

test('the wait may be stated as a preference, and one that is no time is refused by name', async () => {
  const leave = await fillSlot();
  const path = '/v1/chat/completions';
  const ask = (headers: Record<string, string>) => edge.post(path, bodyFor(path), { headers });
  expect((await ask({ prefer: 'respond-async, wait=0' })).status).toBe(429);
  const wrong = await ask({ 'x-sift-max-wait-ms': 'soon' });
  expect(wrong.status).toBe(422);
  expect((await wrong.json()).error.param).toBe('x-sift-max-wait-ms');
  leave();
});

test("a request waits by its tenant's weight and its key's priority", async () => {
  const leave = await fillSlot();
  await edge.directory.setTenantWeight('acme', 3);
  const key = await edge.addKey('acme');
  const [, keyId] = key.split('.');
  await edge.tenant.updateKey(keyId ?? '', { priority: 'high' }, operator);
  const place = vi.spyOn(edge.fleet, 'place');
  const headers = { authorization: `Bearer ${key}`, 'x-sift-max-wait-ms': '0' };
  const path = '/v1/chat/completions';
  expect((await edge.post(path, { ...bodyFor(path), n: 2 }, { headers })).status).toBe(429);
  expect(place.mock.calls[0]?.[0].turn).toEqual({
    tenant: 'acme',
    weight: 3,
    key: keyId,
    keyWeight: 1,
    priority: 'high',
    slots: 2,
    waitMsMax: 0,
    busyWorker: null,
  });
  leave();
});

test('a client that leaves while it waits pays nothing and takes no slot', async () => {
  const leave = await fillSlot();
  const client = new AbortController();
  const path = '/v1/chat/completions';
  const asked = edge.post(path, bodyFor(path, true), { signal: client.signal });
  await untilHeld(2);
  client.abort();
  expect((await asked).status).toBe(499);
  leave();
  await edge.idle();
  expect(edge.worker.requests).toHaveLength(1);
  expect((await edge.tenant.balance()).held).toBe(0);
  expect((await edge.fleet.status())[0]).toMatchObject({ slotsInFlight: 0, requestsInFlight: 0 });
});

test('all who share an Idempotency-Key wait for its turn, and are refused together', async () => {
  const leave = await fillSlot();
  const path = '/v1/chat/completions';
  const headers = { 'idempotency-key': 'k1' };
  const both = [true, true].map(() => edge.post(path, bodyFor(path, true), { headers }));
  await untilHeld(2);
  edge.fleet.close();
  for (const response of await Promise.all(both)) {
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
  }
  leave();
  await edge.idle();
  expect((await edge.tenant.balance()).held).toBe(0);
});

test('a worker that has no slot after all is asked again, before its refusal becomes an answer', async () => {
  edge.worker.script = { ...edge.worker.script, fault: { kind: 'status', status: 429 } };
  const path = '/v1/chat/completions';
  const asked = edge.post(path, bodyFor(path));
  await expect.poll(() => edge.worker.requests.length).toBe(1);
  edge.worker.script = { ...edge.worker.script, fault: null };
  // The refusal may reach the edge after any one of these seconds.
  await expect
    .poll(() => {
      edge.advance(1_001);
      return edge.worker.requests.length;
    })
    .toBe(2);
  expect((await asked).status).toBe(200);
});
