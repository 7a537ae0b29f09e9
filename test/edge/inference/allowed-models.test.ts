/** A key with a list of models is shown these alone, and refused others where nothing runs. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import { operator } from '../../support/edge/tenant-samples.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';

let edge: Harness;
beforeEach(async () => {
  edge = await startHarness();
  const record = { contextLength: 1024, revision: 'r', tokenizer: 't', ownedBy: 'o' };
  await edge.directory.putModel({ ...record, id: 'lonely', createdAtMs: 0 });
  await edge.directory.addPrice({
    ...testPrice,
    id: 'p2',
    model: 'lonely',
    fromMs: 0,
    window: null,
  });
  const aliases = { both: ['lonely', testModel], other: ['lonely'], own: [testModel] };
  for (const [name, models] of Object.entries(aliases)) {
    await edge.directory.putAlias({ name, models, createdAtMs: 0 });
  }
});
afterEach(() => edge.close());

async function allow(...models: string[]): Promise<void> {
  const [key] = await edge.tenant.keys();
  await edge.tenant.updateKey(key?.keyId ?? '', { models }, operator);
}

const lists = ['/v1/models', '/models', '/anthropic/v1/models'];
const messages = [{ role: 'user', content: 'Hello.' }];

test.each(lists)('%s lists what the key may use, with aliases of it', async (path) => {
  const ids = async (): Promise<string[]> =>
    (await (await edge.get(path)).json()).data.map(({ id }: { id: string }) => id).toSorted();
  expect(await ids()).toEqual([testModel, 'both', 'lonely', 'other', 'own'].toSorted());
  await allow(testModel);
  expect(await ids()).toEqual([testModel, 'both', 'own'].toSorted());
  await allow('gone');
  expect(await ids()).toEqual([]);
});

test.each(lists)('%s/{id} shows no model that the key may not use', async (path) => {
  await allow(testModel);
  for (const id of [testModel, 'both', 'own']) {
    expect(await (await edge.get(`${path}/${id}`)).json()).toMatchObject({ id });
  }
  for (const id of ['lonely', 'other']) {
    const refused = await edge.get(`${path}/${id}`);
    expect([id, refused.status]).toEqual([id, 403]);
    expect((await refused.json()).error.message).toContain("may not use the model 'lonely'");
  }
  const missing = await edge.get(`${path}/lonley`);
  expect(missing.status).toBe(404);
  expect((await missing.json()).error.message).not.toContain("'lonely'");
});

test('an alias looks like the model that the key would get', async () => {
  const length = async () => (await (await edge.get('/v1/models/both')).json()).context_length;
  expect(await length()).toBe(1024);
  await allow(testModel);
  expect(await length()).not.toBe(1024);
});

test.each([
  ['/v1/quote', { messages }],
  ['/v1/quote', { prompt: 'Hello.' }],
  ['/v1/quote', { input: 'Hello.' }],
  ['/anthropic/v1/messages/count_tokens', { messages }],
])('%s of %o is refused for another model as the request is', async (path, body) => {
  await allow(testModel);
  const run = await edge.post('/anthropic/v1/messages', {
    model: testModel,
    messages,
    max_tokens: 1,
  });
  expect(run.status).toBe(200);
  for (const model of ['lonely', 'other']) {
    const refused = await edge.post(path, { ...body, model });
    expect([model, refused.status]).toEqual([model, 403]);
    expect((await refused.json()).error.message).toBe(
      `The key may not use the model 'lonely'. It may use: ${testModel}.`,
    );
  }
  for (const model of [testModel, 'both', 'own']) {
    const answer = await edge.post(path, { ...body, model });
    expect([model, answer.status]).toEqual([model, 200]);
    if (path === '/v1/quote') expect((await answer.json()).model).toBe(testModel);
  }
});
