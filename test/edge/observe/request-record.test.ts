/** A request that is over is recorded as it went, whichever way that was. */
import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

let harness: Harness;
afterEach(() => harness.close());

const hello = { model: testModel, messages: [{ role: 'user', content: 'Hi.' }] };
const chat = '/v1/chat/completions';

async function start(options: HarnessOptions = {}): Promise<void> {
  harness = await startHarness(options);
}

async function lastEnded() {
  await harness.idle();
  const last = harness.ended.at(-1);
  if (last === undefined) throw new Error('no request has ended');
  return last;
}

test.each([false, true])('an answer (stream: %s) tells all of its figures', async (stream) => {
  await start();
  const answer = await harness.post(chat, { ...hello, stream });
  await answer.text();
  const ended = await lastEnded();
  const usage = { inputUncached: expect.any(Number), outputText: expect.any(Number) };
  expect(ended).toMatchObject({
    requestId: answer.headers.get('x-request-id'),
    method: 'POST',
    route: chat,
    status: 200,
    code: null,
    tenant: 'acme',
    model: testModel,
    alias: null,
    stream,
    worker: 'worker-0',
    outcome: 'done',
    usage,
  });
  expect(ended.heldNanoUsd).toBeGreaterThan(ended.costNanoUsd ?? Infinity);
  const { granted } = await harness.tenant.balance();
  expect(granted).toBe(10_000_000_000 - (ended.costNanoUsd ?? 0));
  const { authenticated, admitted, placed, began, ended: last, settled } = ended.stages;
  const times = [0, authenticated, admitted, placed, began, last, settled, ended.durationMs];
  expect(times).toEqual(times.map(Number).toSorted((a, b) => a - b));
  expect(JSON.stringify(ended)).not.toContain('Hi.');
});

test.each([
  [
    'a bad key',
    { authorization: 'Bearer nothing' },
    hello,
    { status: 401, code: 'invalid_api_key', tenant: null },
  ],
  ['a bad body', {}, { ...hello, model: 7 }, { status: 400, tenant: 'acme', model: null }],
  ['an unknown model', {}, { ...hello, model: 'x' }, { status: 404, code: 'model_not_found' }],
])('%s is told with its code, and costs nothing', async (_, headers, body, expected) => {
  await start();
  await harness.post(chat, body, { headers: { ...headers } as Record<string, string> });
  expect(await lastEnded()).toMatchObject({ ...expected, outcome: null, costNanoUsd: null });
});

test('a URL that does not exist is one route, whatever its path', async () => {
  await start();
  await harness.get('/nothing/here');
  expect(await lastEnded()).toMatchObject({ route: 'unknown', status: 404, code: 'unknown_url' });
});

test('a path with a name in it is told by its pattern', async () => {
  await start();
  await harness.get(`/v1/models/${testModel}`);
  expect(await lastEnded()).toMatchObject({ route: '/v1/models/{id}', status: 200 });
});

test('a request that no worker takes is told as failed, and its money as returned', async () => {
  await start({ scripts: [] });
  const answer = await harness.post(chat, hello);
  expect(await lastEnded()).toMatchObject({
    status: answer.status,
    code: 'no_worker',
    outcome: 'failed',
    costNanoUsd: 0,
    worker: null,
  });
});

test('a replay is told as one, and costs nothing again', async () => {
  await start();
  const headers = { 'idempotency-key': 'once' };
  await (await harness.post(chat, hello, { headers })).text();
  expect(await lastEnded()).toMatchObject({ outcome: 'done' });
  await (await harness.post(chat, hello, { headers })).text();
  expect(await lastEnded()).toMatchObject({ outcome: 'replayed', status: 200, costNanoUsd: null });
  expect(harness.ended).toHaveLength(2);
});
