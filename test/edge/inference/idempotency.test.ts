import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const body = { model: testModel, messages: [{ role: 'user', content: 'Once.' }], stream: true };
const headers = { 'idempotency-key': 'order-66' };
const path = '/v1/chat/completions';

test.each([true, false])('an answer (streamed: %s) is given again, to the byte', async (stream) => {
  edge = await startHarness();
  const first = await edge.post(path, { ...body, stream }, { headers });
  const bytes = await first.text();
  await edge.idle();
  const paid = await edge.tenant.balance();
  const again = await edge.post(path, { ...body, stream }, { headers });
  expect(await again.text()).toBe(bytes);
  expect(again.status).toBe(200);
  expect(again.headers.get('content-type')).toBe(first.headers.get('content-type'));
  expect(again.headers.get('x-sift-cost-nano-usd')).toBe(first.headers.get('x-sift-cost-nano-usd'));
  expect(again.headers.get('idempotent-replayed')).toBe('true');
  expect(again.headers.get('x-request-id')).not.toBe(first.headers.get('x-request-id'));
  expect(await edge.tenant.balance()).toEqual(paid);
  expect(edge.worker.requests).toHaveLength(1);
});

test('keep-alives are no part of what is given again', async () => {
  edge = await startHarness({
    scripts: [{ words: ['a'], pauseMs: 150 }],
    settings: { keepAliveMs: 10 },
  });
  const first = await (await edge.post(path, body, { headers })).text();
  expect(first).toContain(': keep-alive\n\n');
  const again = await (await edge.post(path, body, { headers })).text();
  expect(again).toBe(first.replaceAll(': keep-alive\n\n', ''));
});

test('another body or route under the key is 422, and the key of another API key is its own', async () => {
  edge = await startHarness();
  await (await edge.post(path, body, { headers })).text();
  const other = await edge.post(path, { ...body, temperature: 0 }, { headers });
  expect(other.status).toBe(422);
  expect((await other.json()).error.code).toBe('idempotency_key_reused');
  expect((await edge.post('/chat/completions', body, { headers })).status).toBe(422);
  const key = await edge.addKey('acme');
  const own = await edge.post(
    path,
    { ...body, temperature: 0 },
    {
      headers: { ...headers, authorization: `Bearer ${key}` },
    },
  );
  expect(own.status).toBe(200);
});

test('a request that cost nothing may run again under its key', async () => {
  edge = await startHarness({ scripts: [{ fault: { kind: 'status', status: 503 } }] });
  expect((await edge.post(path, body, { headers })).status).toBe(503);
  edge.worker.script = { ...edge.worker.script, fault: null };
  edge.advance(2_000);
  const again = await edge.post(path, body, { headers });
  expect(again.status).toBe(200);
  expect(await again.text()).toContain('[DONE]');
});

test('a stream that broke and was billed is given again as it broke, and not billed twice', async () => {
  edge = await startHarness({ scripts: [{ fault: { kind: 'garbage', event: 3 }, pauseMs: 5 }] });
  const broken = await (await edge.post(path, body, { headers })).text();
  expect(broken).toContain('worker_failed');
  const again = await edge.post(path, body, { headers });
  expect(await again.text()).toBe(broken);
  expect(edge.settles).toHaveLength(1);
});

test('a key that is no key is refused', async () => {
  edge = await startHarness();
  for (const key of ['a b', 'x'.repeat(256), '']) {
    const response = await edge.post(path, body, { headers: { 'idempotency-key': key } });
    expect(response.status).toBe(422);
  }
});
