import { afterEach, expect, test } from 'vitest';
import { startHarness, testModel } from '../../../support/edge/edge-harness.ts';
import type { Harness } from '../../../support/edge/edge-harness.ts';

let edge: Harness;
afterEach(() => edge.close());

const day = Date.UTC(2026, 0, 1);

async function start(): Promise<void> {
  edge = await startHarness({ scripts: [] });
  for (const [id, createdAtMs] of [
    ['b/old', day],
    ['c', day + 1_000],
    ['a', day + 1_000],
  ] as const) {
    const model = { contextLength: 512, revision: 'r', tokenizer: 't', ownedBy: 'x' };
    await edge.directory.putModel({ id, createdAtMs, ...model });
  }
}

const list = async (query: string) => {
  const response = await edge.get(`/anthropic/v1/models${query}`);
  const { data, ...page } = await response.json();
  return { status: response.status, ...page, ids: data?.map((each: { id: string }) => each.id) };
};

test('models come newest first, and pages go both ways', async () => {
  await start();
  const all = [testModel, 'a', 'c', 'b/old'];
  const ends = (ids: string[]) => ({ ids, first_id: ids[0], last_id: ids.at(-1) });
  expect(await list('')).toMatchObject({ ...ends(all), has_more: false });
  expect(await list('?limit=2')).toMatchObject({ ...ends(all.slice(0, 2)), has_more: true });
  expect(await list('?limit=2&after_id=a')).toMatchObject({
    ...ends(all.slice(2)),
    has_more: false,
  });
  expect(await list('?limit=2&before_id=b/old')).toMatchObject({
    ...ends(all.slice(1, 3)),
    has_more: true,
  });
  expect(await list('?after_id=b/old')).toMatchObject({
    ids: [],
    first_id: null,
    last_id: null,
    has_more: false,
  });
  expect((await list('?lifecycle[]=active&lifecycle[]=retired')).ids).toEqual(all);
  expect((await list('?lifecycle[]=retired')).ids).toEqual([]);
});

test.each([
  ['?limit=0', 'limit'],
  ['?limit=1001', 'limit'],
  ['?limit=x', 'limit'],
  ['?after_id=none', 'after_id'],
  ['?before_id=none', 'before_id'],
  ['?lifecycle[]=sleeping', 'lifecycle[0]'],
])('%s is refused by its name', async (query, param) => {
  await start();
  const { status, error } = await list(query);
  expect([400, 422]).toContain(status);
  expect(error).toMatchObject({ type: 'invalid_request_error' });
  expect(error.message).toContain(`'${param}'`);
});

test('one model is shown as documented, under an id with a slash too', async () => {
  await start();
  for (const path of ['b/old', 'b%2Fold']) {
    const response = await edge.get(`/anthropic/v1/models/${path}`);
    expect(response.headers.get('request-id')).toBe(response.headers.get('x-request-id'));
    expect(await response.json()).toEqual({
      type: 'model',
      id: 'b/old',
      display_name: 'b/old',
      created_at: '2026-01-01T00:00:00.000Z',
      max_input_tokens: 512,
      max_tokens: 512,
      capabilities: null,
      lifecycle: 'active',
      line: null,
      deprecated_at: null,
      retires_at: null,
    });
  }
  const unknown = await edge.get('/anthropic/v1/models/nothing');
  expect([unknown.status, await unknown.json()]).toMatchObject([
    404,
    { type: 'error', error: { type: 'not_found_error' } },
  ]);
});
