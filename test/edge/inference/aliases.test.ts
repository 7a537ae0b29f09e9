/** Names of models that are not their own, and models that stand in for others. */
import { afterEach, expect, test } from 'vitest';
import { adminRoutes } from '../../../edge/admin/routes.ts';
import { startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import { startStubWorker } from '../../support/edge/edge-stub-worker.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

const opened: Harness[] = [];
afterEach(async () => {
  for (const edge of opened.splice(0)) await edge.close();
});

async function open(options: HarnessOptions = {}): Promise<Harness> {
  const mounts: HarnessOptions['mounts'] = [
    (app, services) => app.route('/admin', adminRoutes(services)),
  ];
  const edge = await startHarness({ ...options, mounts });
  opened.push(edge);
  return edge;
}

const admin = (edge: Harness, method: string, path: string, body?: object) =>
  edge.app.request(`/admin${path}`, {
    method,
    headers: { authorization: 'Bearer admin-token', 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });

async function alias(edge: Harness, name: string, ...models: string[]): Promise<void> {
  expect((await admin(edge, 'POST', '/aliases', { name, models })).status).toBe(200);
}

/** A dearer model that no worker serves. */
async function addLonely(edge: Harness): Promise<void> {
  const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
  await edge.directory.putModel({ ...record, id: 'lonely', createdAtMs: 0 });
  const price = { ...testPrice, id: 'p2', output: 2 * testPrice.output };
  await edge.directory.addPrice({ ...price, model: 'lonely', fromMs: 0, window: null });
}

function announceLonely(
  edge: Harness,
  worker: { readonly id: string; readonly url: string },
): void {
  edge.fleet.announce({
    ...worker,
    epoch: 1,
    state: 'ready',
    models: ['lonely'],
    static: false,
    hasJournal: true,
    noDiscountReason: null,
  });
}

const messages = [{ role: 'user', content: 'Hello.' }];
const asks: readonly (readonly [path: string, body: object])[] = [
  ['/v1/chat/completions', { messages }],
  ['/v1/completions', { prompt: 'Hello' }],
  ['/v1/responses', { input: 'Hello.' }],
  ['/anthropic/v1/messages', { messages, max_tokens: 8 }],
];

test.each(asks)('%s runs an alias as its model, and bills and reports that', async (path, body) => {
  const edge = await open();
  await alias(edge, 'gpt-4o-mini', testModel);
  const plain = await edge.post(path, { ...body, model: testModel });
  const named = await edge.post(path, { ...body, model: 'gpt-4o-mini' });
  expect(plain.headers.get('x-sift-model-alias')).toBe(null);
  expect(named.headers.get('x-sift-model-alias')).toBe('gpt-4o-mini');
  expect((await plain.json()).model).toBe(testModel);
  expect((await named.json()).model).toBe(testModel);
  const [first, second] = edge.worker.requests.map((request) => request.body);
  expect(second).toEqual(first);
  const streamed = await edge.post(path, { ...body, model: 'gpt-4o-mini', stream: true });
  const text = await streamed.text();
  expect(text).toContain(`"model":"${testModel}"`);
  expect(text).not.toContain('gpt-4o-mini');

  await edge.idle();
  const entries = await (await admin(edge, 'GET', '/tenants/acme/entries')).json();
  const told = entries.entries.map((entry: { kind: string; model: string; alias?: string }) => [
    entry.kind,
    entry.model,
    entry.alias,
  ]);
  expect(told.slice(1)).toEqual([
    ['pending', testModel, undefined],
    ['posted', testModel, undefined],
    ['pending', testModel, 'gpt-4o-mini'],
    ['posted', testModel, 'gpt-4o-mini'],
    ['pending', testModel, 'gpt-4o-mini'],
    ['posted', testModel, 'gpt-4o-mini'],
  ]);
  const usage = await (await edge.get('/v1/usage')).json();
  expect(usage.data).toMatchObject([{ model: testModel, requests: 3 }]);
});

test('a prompt is counted and quoted under an alias', async () => {
  const edge = await open();
  await alias(edge, 'claude', testModel);
  const body = { model: 'claude', messages };
  const counted = await edge.post('/anthropic/v1/messages/count_tokens', body);
  expect(counted.status).toBe(200);
  const quoted = await edge.post('/v1/quote', body);
  expect((await quoted.json()).model).toBe(testModel);
});

test('a model that no worker can take is passed over for the next of its chain', async () => {
  const edge = await open();
  await addLonely(edge);
  await alias(edge, 'lonely', 'lonely', testModel);
  await alias(edge, 'best', 'lonely', testModel);
  for (const model of ['lonely', 'best']) {
    const response = await edge.post('/v1/chat/completions', { model, messages });
    expect(response.headers.get('x-sift-model-alias')).toBe(model);
    expect((await response.json()).model).toBe(testModel);
  }
  // A name in JSON may be written with escapes.
  const escaped = `{"model":"lon\\u0065ly","messages":${JSON.stringify(messages)}}`;
  const response = await edge.post('/v1/chat/completions', escaped);
  expect((await response.json()).model).toBe(testModel);
  const quoted = await edge.post('/v1/quote', { model: 'best', messages });
  expect((await quoted.json()).model).toBe(testModel);
});

test('a model without a price is passed over, and the first one is preferred', async () => {
  const edge = await open();
  const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
  await edge.directory.putModel({ ...record, id: 'unpriced', createdAtMs: 0 });
  await addLonely(edge);
  await alias(edge, 'a', 'unpriced', testModel);
  await alias(edge, 'b', testModel, 'lonely');
  for (const model of ['a', 'b']) {
    const response = await edge.post('/v1/chat/completions', { model, messages });
    expect((await response.json()).model).toBe(testModel);
  }
});

test('a chain that no worker can take is refused as its first model is', async () => {
  const edge = await open();
  await addLonely(edge);
  await alias(edge, 'best', 'lonely', testModel);
  await edge.fleet.drain('worker-0', true);
  const response = await edge.post('/v1/chat/completions', { model: 'best', messages });
  expect(response.status).toBe(503);
  const { message } = (await response.json()).error;
  expect(message).toBe("No worker serves the model 'lonely' of 'best'. Try again later.");
});

test('a key is not told for good that it may not, while its model of the alias has no worker', async () => {
  const edge = await open();
  await addLonely(edge);
  await alias(edge, 'best', 'lonely', testModel);
  const created = await admin(edge, 'POST', '/tenants/acme/keys', {
    label: 'of one model',
    scopes: ['inference'],
    models: ['lonely'],
  });
  const { key } = await created.json();
  const headers = { authorization: `Bearer ${key}` };
  const ask = (model: string) =>
    edge.post('/v1/chat/completions', { model, messages }, { headers });
  const refused = await ask('best');
  expect(refused.status).toBe(503);
  expect(refused.headers.get('retry-after')).toBe('1');
  const { code, message } = (await refused.json()).error;
  expect(code).toBe('no_worker');
  expect(message).toBe("No worker of the model 'lonely' of 'best' is ready. Try again later.");
  expect((await ask(testModel)).status).toBe(403);
});

test('a model whose workers are all busy for too long is passed over', async () => {
  const edge = await open({ scripts: [{ pauseMs: 20 }], slots: 1 });
  await addLonely(edge);
  announceLonely(edge, { id: 'spare', url: edge.worker.url });
  await alias(edge, 'best', testModel, 'lonely');
  const busy = edge.post('/v1/chat/completions', { model: testModel, messages });
  await expect.poll(() => edge.worker.requests.length).toBe(1);
  const response = await edge.post(
    '/v1/chat/completions',
    { model: 'best', messages },
    { headers: { 'x-sift-max-wait-ms': '0' } },
  );
  expect((await response.json()).model).toBe('lonely');
  await busy;
});

test('a model whose workers are there and all refuse stands back for the next one', async () => {
  const edge = await open();
  await addLonely(edge);
  const gone = await startStubWorker({ token: 'worker-token', model: 'lonely' });
  const announce = () => announceLonely(edge, { id: 'gone', url: gone.url });
  announce();
  await gone.close();
  await alias(edge, 'best', 'lonely', testModel);
  for (const [index, [path, body]] of asks.entries()) {
    for (const stream of [false, true]) {
      const headers = { 'idempotency-key': `k-${index}-${stream}` };
      const init = stream ? { headers } : {};
      const response = await edge.post(path, { ...body, model: 'best', stream }, init);
      const text = await response.text();
      expect(text).toContain(`"model":"${testModel}"`);
      expect(response.headers.get('x-request-id')).toBe(edge.worker.requests.at(-1)?.id);
      // The refused worker is asked again once its time is over.
      edge.advance(60_000);
      announce();
    }
  }
  await edge.idle();
  // Each request that was not taken costs nothing, and each that ran is paid once.
  expect(edge.settles.filter(({ usage }) => usage !== null)).toHaveLength(2 * asks.length);
  expect(await edge.tenant.openHolds(0)).toEqual([]);
  expect(edge.settles.some(({ usage }) => usage === null)).toBe(true);
  expect(await edge.tenant.audit()).toEqual([]);
});

test('aliases are listed as models are, and are the nearest of names that do not exist', async () => {
  const edge = await open();
  await alias(edge, 'gpt-4o-mini', testModel);
  const { data } = await (await edge.get('/v1/models')).json();
  expect(data.map(({ id }: { id: string }) => id)).toEqual([testModel, 'gpt-4o-mini']);
  const one = await (await edge.get('/v1/models/gpt-4o-mini')).json();
  expect(one).toMatchObject({ id: 'gpt-4o-mini', context_length: 65_536 });
  const anthropic = await edge.get('/anthropic/v1/models/gpt-4o-mini');
  expect((await anthropic.json()).id).toBe('gpt-4o-mini');
  const message = "The model 'gpt-4o' does not exist. The nearest one is 'gpt-4o-mini'.";
  for (const [path, body] of asks) {
    const response = await edge.post(path, { ...body, model: 'gpt-4o' });
    expect(response.status).toBe(404);
    expect((await response.json()).error.message).toBe(message);
  }
  expect((await (await edge.get('/v1/models/gpt-4o')).json()).error.message).toBe(message);
});

test.each([
  [{ name: 'a b', models: [testModel] }, 422, 'name', 'expected'],
  [{ name: 'a' }, 400, 'models', 'models'],
  [{ name: 'a', models: [] }, 422, 'models', 'models'],
  [{ name: 'a', models: [testModel, testModel] }, 422, 'models', 'once'],
  [{ name: 'a', models: ['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'] }, 422, 'models', 'models'],
  [{ name: 'a', models: ['sift-tset'] }, 404, 'models[0]', `The nearest one is ${testModel}.`],
  [{ name: testModel, models: ['lonely'] }, 422, 'models[0]', 'name it first'],
  [{ name: 'a', models: [testModel], weight: 1 }, 400, 'weight', 'Unknown'],
])('the alias %j is refused', async (body, status, param, words) => {
  const edge = await open();
  await addLonely(edge);
  const response = await admin(edge, 'POST', '/aliases', body);
  const { error } = await response.json();
  expect([response.status, error.param]).toEqual([status, param]);
  expect(error.message).toContain(words);
});

test('a price of a model that does not exist is refused with the nearest one', async () => {
  const edge = await open();
  const price = { model: 'sift-tset', input_cached: 1, input: 1, output: 1 };
  const response = await admin(edge, 'POST', '/prices', price);
  expect(response.status).toBe(404);
  const { message } = (await response.json()).error;
  expect(message).toBe(`There is no model sift-tset. The nearest one is ${testModel}.`);
});

test('an alias is changed and forgotten, and no model takes its name', async () => {
  const edge = await open();
  await addLonely(edge);
  expect(await (await admin(edge, 'GET', '/models')).json()).not.toHaveProperty('aliases');
  await alias(edge, 'org/best', 'lonely');
  await alias(edge, 'org/best', testModel);
  const { aliases } = await (await admin(edge, 'GET', '/models')).json();
  expect(aliases).toMatchObject([{ name: 'org/best', models: [testModel] }]);
  const model = { id: 'org/best', context_length: 1, revision: 'r', tokenizer: 't' };
  expect((await admin(edge, 'POST', '/models', model)).status).toBe(409);
  const wrong = await admin(edge, 'DELETE', '/aliases/org%2Fbets');
  expect(wrong.status).toBe(404);
  const { message } = (await wrong.json()).error;
  expect(message).toBe('There is no alias org/bets. The nearest one is org/best.');
  const gone = await admin(edge, 'DELETE', '/aliases/org%2Fbest');
  expect(await gone.json()).toEqual({ name: 'org/best', deleted: true });
  const asked = await edge.post('/v1/chat/completions', { model: 'org/best', messages });
  expect(asked.status).toBe(404);
});

test('the export of entries says which name a request had for its model', async () => {
  const edge = await open();
  await alias(edge, 'gpt-4o-mini', testModel);
  await edge.post('/v1/chat/completions', { model: 'gpt-4o-mini', messages });
  await edge.idle();
  const answer = await admin(edge, 'GET', '/export/entries?format=csv&tenant=acme');
  const [header = '', ...rows] = (await answer.text()).trimEnd().split('\r\n');
  const column = header.split(',').indexOf('alias');
  expect(rows.map((row) => row.split(',')[column])).toEqual(['', 'gpt-4o-mini', 'gpt-4o-mini']);
});
