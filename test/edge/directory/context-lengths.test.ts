/** The directory's context length beside those of the workers: the smaller one counts. */
import { strict as assert } from 'node:assert';
import { expect, test } from 'vitest';
import { mounts } from '../../../edge/edge.ts';
import { createContextLog } from '../../../edge/directory/served-contexts.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';
import { startHarness, testModel } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

const listed = 1_000;

async function edgeWith(
  served: number | null,
  options: { isStatic?: boolean; promptTokens?: number; usage?: 'running' | 'final-only' } = {},
) {
  const { isStatic = false, promptTokens = 26_004, usage = 'running' } = options;
  const edge = await startHarness({ mounts, scripts: [{ promptTokens, usage }] });
  const [model] = await edge.directory.models();
  assert(model !== undefined, 'the harness lists its model');
  await edge.directory.putModel({ ...model, contextLength: listed });
  announce(edge, served, isStatic);
  return edge;
}

function announce(edge: Harness, served: number | null, isStatic: boolean): void {
  const unknown = { revision: null, tokenizer: null };
  edge.fleet.announce({
    id: 'worker-0',
    url: edge.worker.url,
    epoch: 1,
    state: 'ready',
    models: [testModel],
    served: [{ id: testModel, contextLength: served, ...unknown }],
    static: isStatic,
    hasJournal: !isStatic,
    noDiscountReason: null,
  });
}

const long = { model: testModel, messages: [{ role: 'user', content: 'word '.repeat(20_000) }] };

async function quoteOf(edge: Harness, body: object) {
  const response = await edge.post('/v1/quote', body);
  expect(response.status).toBe(200);
  return await response.json();
}

test('a worker of ours is told the context that is sold, where its own is longer', async () => {
  for (const [served, told] of [
    [65_536, listed],
    [listed, undefined],
    [500, undefined],
    [null, undefined],
  ] as const) {
    await using edge = disposable(await edgeWith(served, { promptTokens: 10 }));
    await edge.post('/v1/chat/completions', long);
    expect(edge.worker.requests[0]?.body.context_length).toBe(told);
  }
});

test('a worker holds a request to the context that it is told, and never to more than its own', async () => {
  await using worker = await httpWorker({ script: answering('x'), contextLength: 1_024 });
  const ask = async (more: object) => {
    const body = { model: 'tiny', messages: [{ role: 'user', content: 'x'.repeat(400) }], ...more };
    const init = { method: 'POST', headers: { 'content-type': 'application/json' } };
    const url = '/v1/chat/completions';
    const response = await worker.app.request(url, { ...init, body: JSON.stringify(body) });
    return { status: response.status, json: await response.json() };
  };
  expect(await ask({})).toMatchObject({ status: 200 });
  expect(await ask({ context_length: 100_000 })).toMatchObject({ status: 200 });
  expect(await ask({ context_length: 100 })).toMatchObject({
    status: 400,
    json: { error: { code: 'context_length_exceeded', overflow: { context_tokens: 100 } } },
  });
  const most = await ask({ context_length: 100_000, max_tokens: 5_000 });
  expect(most).toMatchObject({ json: { error: { overflow: { context_tokens: 1_024 } } } });
});

test('the shorter context of the workers bounds quote and hold', async () => {
  await using edge = disposable(await edgeWith(500));
  expect(await quoteOf(edge, { ...long, max_tokens: 900 })).toMatchObject({
    prompt_tokens_max: 500,
    output_tokens_max: 500,
  });
});

test('a foreign engine is held for all that its longer context has room for', async () => {
  await using edge = disposable(await edgeWith(65_536, { isStatic: true }));
  const quote = await quoteOf(edge, long);
  expect(quote.prompt_tokens_max).toBe(65_536);
  expect(quote.output_tokens_max).toBe(listed);
});

test('an engine whose count is beyond the context that is sold is stopped, and nothing is billed', async () => {
  for (const stream of [false, true]) {
    await using edge = disposable(await edgeWith(65_536, { isStatic: true }));
    const response = await edge.post('/v1/chat/completions', { ...long, stream });
    expect(await response.text()).toContain('context_length_exceeded');
    await edge.idle();
    expect(edge.settles).toHaveLength(1);
    expect((await edge.tenant.balance()).held).toBe(0);
    expect(edge.settles[0]?.usage).toBeNull();
  }
});

test('an engine that counts only at the end is billed in full, or not at all', async () => {
  await using edge = disposable(await edgeWith(65_536, { isStatic: true, usage: 'final-only' }));
  const response = await edge.post('/v1/chat/completions', { ...long, max_tokens: 100 });
  // Its whole answer may come in one read, and is then seen to be too long before any of it is
  // passed on.
  const { usage, error } = await response.json();
  if (response.status === 200) expect(usage.prompt_tokens).toBe(26_004);
  else expect(error.code).toBe('context_length_exceeded');
  expect(edge.logged).not.toContainEqual(expect.objectContaining({ event: 'cost-exceeded-hold' }));
});

test('the operator sees both lengths in the lists', async () => {
  await using edge = disposable(await edgeWith(65_536));
  const headers = { authorization: 'Bearer admin-token' };
  const models = await (await edge.app.request('/admin/models', { headers })).json();
  expect(models.models[0]).toMatchObject({ context_length: 1_000, served_context_length: 65_536 });
  const workers = await (await edge.app.request('/admin/workers', { headers })).json();
  expect(workers.workers[0].context_lengths).toEqual({ [testModel]: 65_536 });
});

test('a difference is logged once, and again only when it has changed', async () => {
  await using edge = disposable(await edgeWith(null));
  const events: object[] = [];
  const say = createContextLog({
    directory: edge.directory,
    log: (_, event, fields) => events.push({ event, ...fields }),
  });
  const unknown = { revision: null, tokenizer: null };
  for (const contextLength of [65_536, 65_536, null, 65_536, listed, 65_536, 8_192, 8_192]) {
    await say('worker-0', [
      { id: testModel, contextLength, ...unknown },
      { id: 'unlisted', contextLength: 5, ...unknown },
    ]);
  }
  expect(events).toEqual(
    [65_536, 65_536, 65_536, 8_192].map((contextLength) => ({
      event: 'context-length-differs',
      worker: 'worker-0',
      model: testModel,
      listed,
      contextLength,
    })),
  );
});

/** So that a test that fails leaves no worker behind. */
function disposable(edge: Harness): Harness & AsyncDisposable {
  return Object.assign(edge, { [Symbol.asyncDispose]: () => edge.close() });
}
