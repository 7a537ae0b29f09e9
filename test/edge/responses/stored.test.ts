/** Responses that are stored: kept when asked, gone on from, read, deleted, and bounded. */
import { afterEach, expect, test } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { StoredResponses } from '../../../edge/responses/stored-responses.ts';
import { startHarness, testModel, dataOf } from '../../support/edge/edge-harness.ts';
import type { Harness, HarnessOptions } from '../../support/edge/edge-harness.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function open(options: HarnessOptions = {}): Promise<Harness> {
  const edge = await startHarness(options);
  closers.push(() => edge.close());
  return edge;
}

const dayMs = 24 * 3_600_000;
const asked = { model: testModel, input: 'Hello.' };

async function respond(edge: Harness, body: object = {}) {
  const response = await edge.post('/v1/responses', { ...asked, ...body });
  expect(response.status).toBe(200);
  return response.json();
}

async function statusOf(edge: Harness, id: string): Promise<number> {
  return (await edge.get(`/v1/responses/${id}`)).status;
}

const messagesOf = (edge: Harness) => edge.worker.requests.at(-1)?.body['messages'];

test('nothing is stored unless it is asked for', async () => {
  const edge = await open();
  for (const store of [undefined, false, null]) {
    const { id, store: stored } = await respond(edge, { store });
    expect(stored).toBe(false);
    expect(await statusOf(edge, id)).toBe(404);
  }
  const like = await open({ settings: { storesUnasked: true } });
  const { id, store } = await respond(like);
  expect(store).toBe(true);
  expect(await statusOf(like, id)).toBe(200);
  const { id: refused } = await respond(like, { store: false });
  expect(await statusOf(like, refused)).toBe(404);
  const tooLong = await respond(like, { input: 'x'.repeat(600_000) });
  expect(tooLong.store).toBe(false);
});

test('a stored response is read as it was given, whole and streamed', async () => {
  const edge = await open();
  const whole = await respond(edge, { store: true });
  expect(whole.store).toBe(true);
  expect(await (await edge.get(`/v1/responses/${whole.id}`)).json()).toEqual(whole);
  const body = { ...asked, store: true, stream: true };
  const text = await (await edge.post('/v1/responses', body)).text();
  const { response } = JSON.parse(dataOf(text).at(-1) ?? '');
  expect(await (await edge.get(`/responses/${response.id}`)).json()).toEqual(response);
});

test('a request goes on from a stored response, with its items and without its instructions', async () => {
  const edge = await open({ scripts: [{ words: ['One'] }] });
  const first = await respond(edge, { store: true, instructions: 'Count.' });
  const second = await respond(edge, {
    input: 'And then?',
    previous_response_id: first.id,
    store: true,
  });
  expect(second.previous_response_id).toBe(first.id);
  const third = await respond(edge, { input: 'More.', previous_response_id: second.id });
  expect(third.store).toBe(false);
  expect(messagesOf(edge)).toEqual([
    { role: 'user', content: 'Hello.' },
    { role: 'assistant', content: 'One' },
    { role: 'user', content: 'And then?' },
    { role: 'assistant', content: 'One' },
    { role: 'user', content: 'More.' },
  ]);
  // Each was billed once, and what was cached is found again.
  expect(edge.settles).toHaveLength(3);
  const quoted = await edge.post('/v1/quote', {
    ...asked,
    input: 'More.',
    previous_response_id: second.id,
  });
  expect((await quoted.json()).prompt_tokens_estimate).toBeGreaterThan(20);
  const counted = await edge.post('/v1/responses/input_tokens', {
    ...asked,
    input: 'More.',
    previous_response_id: second.id,
  });
  expect((await counted.json()).input_tokens).toBe(third.usage.input_tokens);
});

test('items of stored responses are named by their ids', async () => {
  const call = { name: 'f', arguments: '{"a":1}' };
  const edge = await open({
    scripts: [{ reasoning: ['hm'], words: [], toolCall: call, finishReason: 'tool_calls' }],
  });
  const { output } = await respond(edge, { store: true, tools: [{ type: 'function', name: 'f' }] });
  const [reasoning, called] = output;
  await respond(edge, {
    input: [
      { role: 'user', content: 'Hello.' },
      { type: 'item_reference', id: reasoning.id },
      { id: called.id },
      { type: 'function_call_output', call_id: called.call_id, output: 'done' },
    ],
  });
  expect(messagesOf(edge)).toEqual([
    { role: 'user', content: 'Hello.' },
    {
      role: 'assistant',
      content: null,
      reasoning_content: 'hm',
      tool_calls: [{ id: called.call_id, type: 'function', function: call }],
    },
    { role: 'tool', tool_call_id: called.call_id, content: 'done' },
  ]);
  // The result of a call that the response before has made needs no copy of the call.
  const { id } = await respond(edge, { store: true });
  const [, again] = (await (await edge.get(`/v1/responses/${id}`)).json()).output;
  const result = { type: 'function_call_output', call_id: again.call_id, output: 'done' };
  await respond(edge, { previous_response_id: id, input: [result] });
});

test('the input of a response is listed in pages', async () => {
  const edge = await open();
  const input = ['a', 'b', 'c'].map((content) => ({ role: 'user', content }));
  const { id } = await respond(edge, { store: true, input });
  const list = async (query: string) =>
    (await edge.get(`/v1/responses/${id}/input_items${query}`)).json();
  const all = await list('?order=asc');
  expect(all).toMatchObject({ object: 'list', has_more: false, data: input });
  expect(all.first_id).toBe(all.data[0].id);
  expect((await list('')).data).toEqual(all.data.toReversed());
  const page = await list('?order=asc&limit=2');
  expect(page).toMatchObject({ has_more: true, data: input.slice(0, 2) });
  expect((await list(`?order=asc&after=${page.last_id}`)).data).toEqual(all.data.slice(2));
  for (const [query, status] of [
    ['?limit=0', 422],
    ['?limit=101', 422],
    ['?order=up', 422],
    ['?page=2', 400],
    ['?after=none', 404],
  ]) {
    expect((await edge.get(`/v1/responses/${id}/input_items${query}`)).status, `${query}`).toBe(
      status,
    );
  }
});

test('a deleted response is gone, and what goes on from it says so', async () => {
  const edge = await open();
  const { id } = await respond(edge, { store: true });
  const next = await respond(edge, { store: true, previous_response_id: id });
  const remove = () =>
    edge.app.request(`/v1/responses/${id}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${edge.apiKey}` },
    });
  expect(await (await remove()).json()).toEqual({ id, object: 'response', deleted: true });
  expect((await remove()).status).toBe(404);
  expect((await edge.get(`/v1/responses/${id}/input_items`)).status).toBe(404);
  const response = await edge.post('/v1/responses', { ...asked, previous_response_id: next.id });
  expect(response.status).toBe(404);
  expect((await response.json()).error.message).toContain(
    `The response '${id}', from which '${next.id}' goes on, is not stored.`,
  );
});

test('another tenant, a key without the scope and a suspended tenant get nothing', async () => {
  const edge = await open();
  const { id, output } = await respond(edge, { store: true });
  const asOther = { authorization: `Bearer ${await edge.addTenant('other')}` };
  expect((await edge.get(`/v1/responses/${id}`, asOther)).status).toBe(404);
  for (const body of [{ previous_response_id: id }, { input: [{ id: output[0].id }] }]) {
    const response = await edge.post('/v1/responses', { ...asked, ...body }, { headers: asOther });
    expect(response.status).toBe(404);
  }
  const reader = { authorization: `Bearer ${await edge.addKey('acme', { scopes: ['read'] })}` };
  expect((await edge.get(`/v1/responses/${id}`, reader)).status).toBe(403);
  const going = { ...asked, previous_response_id: id };
  expect((await edge.post('/v1/responses', going, { headers: reader })).status).toBe(403);
  await edge.directory.setTenantStatus('acme', 'suspended');
  expect(await statusOf(edge, id)).toBe(403);
});

test('a response is kept for 30 days after its last use', async () => {
  const edge = await open();
  const { id: used } = await respond(edge, { store: true });
  const { id: unused } = await respond(edge, { store: true });
  edge.advance(20 * dayMs);
  await respond(edge, { previous_response_id: used });
  edge.advance(20 * dayMs);
  expect(await statusOf(edge, used)).toBe(200);
  expect(await statusOf(edge, unused)).toBe(404);
  edge.advance(11 * dayMs);
  expect(await statusOf(edge, used)).toBe(404);
});

test('an answer that broke or whose client left is not stored', async () => {
  const edge = await open({ scripts: [{ fault: { kind: 'die', event: 3 } }] });
  const body = { ...asked, store: true, stream: true };
  const text = await (await edge.post('/v1/responses', body)).text();
  const { response } = JSON.parse(dataOf(text).at(-1) ?? '');
  expect(response).toMatchObject({ status: 'failed', store: false });
  expect(await statusOf(edge, response.id)).toBe(404);
});

test('an answer that is too long to be stored says so', async () => {
  const edge = await open({ scripts: [{ words: ['x'.repeat(600_000)] }] });
  const { id, store } = await respond(edge, { store: true });
  expect(store).toBe(false);
  expect(await statusOf(edge, id)).toBe(404);
});

test('what a tenant stores is bounded, and the longest unused goes first', async () => {
  const { db, close } = openTenantDb(':memory:', { synchronous: 'NORMAL' });
  closers.push(close);
  const bounds = { keepMs: 1_000, bytesMax: 2_000, rowsMax: 3, historyBytesMax: 1_500 };
  const stored = new StoredResponses(db, bounds);
  const add = (id: string, nowMs: number, length = 10, previousId: string | null = null) =>
    stored.store(
      {
        id,
        previousId,
        input: JSON.stringify([{ type: 'message', role: 'user', content: 'x'.repeat(length) }]),
        response: '{"output":[]}',
      },
      nowMs,
    );
  const kept = (nowMs: number) =>
    ['a', 'b', 'c', 'd', 'e'].filter((id) => stored.find(id, nowMs) !== null).join('');
  for (const [index, id] of ['a', 'b', 'c'].entries()) add(id, index);
  stored.earlierItems({ previousId: 'a', itemIds: [] }, 4);
  add('d', 5);
  expect(kept(5)).toBe('acd');
  add('e', 6, 1_600, 'd');
  expect(kept(6)).toBe('ade');
  expect(stored.earlierItems({ previousId: 'e', itemIds: [] }, 6)).toEqual({ kind: 'too-long' });
  expect(kept(1_005)).toBe('de');
  add('f', 3_000);
  expect(kept(3_000)).toBe('');
  expect(stored.remove('f', 3_000)).toBe(true);
  const size = db.query.storedResponseSize.findFirst().sync();
  expect(size).toMatchObject({ rows: 0, bytes: 0 });
});
