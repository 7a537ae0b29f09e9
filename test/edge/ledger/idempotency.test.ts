import { expect, test } from 'vitest';
import { idempotencyBounds } from '../../../edge/ledger/idempotency.ts';
import type { IdempotencyBounds } from '../../../edge/ledger/idempotency.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import { addKey, admitInput, sampleCost, settleInput } from '../../support/edge/tenant-samples.ts';

const day = 86_400_000;

async function funded(bounds: Partial<IdempotencyBounds> = {}) {
  const opened = openTestTenant({ idempotency: { ...idempotencyBounds, ...bounds } });
  await addKey(opened.tenant);
  await addKey(opened.tenant, 'key-2');
  const credit = { kind: 'topped-up', amountNanoUsd: 1e12, source: 'pay', note: '' } as const;
  await opened.tenant.credit(credit);
  const { tenant } = opened;
  const ask = (requestId: string, key: string, requestHash = 'hash', afterEvent = 0) =>
    tenant.admit(admitInput(requestId, { idempotency: { key, requestHash, afterEvent } }));
  const answer = (requestId: string, body: string) =>
    tenant.settle(settleInput(requestId, { answer: answerOf(body) }));
  return { ...opened, ask, answer };
}

const answerOf = (body: string) => ({
  status: 200,
  contentType: 'text/event-stream',
  body,
  headers: { 'x-cost': '1' },
});

const refusal = (kind: string) => ({ kind: 'refused', reason: { kind }, limits: null });

test('the same request under a key runs once, is billed once and answered as often as asked', async () => {
  const { tenant, ask, answer } = await funded();
  expect((await ask('r1', 'once')).kind).toBe('admitted');
  expect(await ask('r2', 'once')).toEqual({ kind: 'running', requestId: 'r1' });
  await answer('r1', 'data: hello\n\n');
  for (const id of ['r3', 'r4']) {
    expect(await ask(id, 'once')).toEqual({ kind: 'replay', answer: answerOf('data: hello\n\n') });
  }
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 1e12 - sampleCost, held: 0 });
});

test('another request under a key is refused, in flight and after', async () => {
  const { ask, answer } = await funded();
  await ask('r1', 'once');
  expect(await ask('r2', 'once', 'other')).toEqual(refusal('idempotency-mismatch'));
  await answer('r1', 'x');
  expect(await ask('r3', 'once', 'other')).toEqual(refusal('idempotency-mismatch'));
});

test('what follows an event is not asked of an answer that would be a new one', async () => {
  const { tenant, ask, answer } = await funded();
  expect(await ask('r1', 'once', 'hash', 7)).toEqual({
    kind: 'refused',
    reason: { kind: 'idempotency-no-event', afterEvent: 7 },
    limits: null,
  });
  expect((await tenant.balance()).held).toBe(0);
  await ask('r2', 'once');
  expect(await ask('r3', 'once', 'hash', 7)).toEqual({ kind: 'running', requestId: 'r2' });
  await answer('r2', 'x');
  expect((await ask('r4', 'once', 'hash', 7)).kind).toBe('replay');
});

test('each API key has its own keys', async () => {
  const { tenant, ask } = await funded();
  await ask('r1', 'once');
  const second = await tenant.admit(
    admitInput('r2', {
      key: { ...admitInput('r').key, keyId: 'key-2' },
      idempotency: { key: 'once', requestHash: 'other', afterEvent: 0 },
    }),
  );
  expect(second.kind).toBe('admitted');
});

test('a request that delivered nothing may run again under its key', async () => {
  const { tenant, ask } = await funded();
  await ask('r1', 'once');
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  expect((await ask('r2', 'once')).kind).toBe('admitted');
});

test('a request that was billed but has no answer to repeat is not run again', async () => {
  const { tenant, ask } = await funded();
  await ask('r1', 'once');
  await tenant.settle(settleInput('r1', { outcome: 'aborted' }));
  expect(await ask('r2', 'once')).toEqual({
    kind: 'refused',
    reason: { kind: 'idempotency-no-answer', requestId: 'r1' },
    limits: null,
  });
});

test('an answer that is too large is not kept, and its request is not run again', async () => {
  const { ask, answer } = await funded({ answerBytesMax: 10 });
  await ask('r1', 'a');
  await answer('r1', 'ééééé');
  await ask('r2', 'b');
  await answer('r2', 'éééééx');
  expect((await ask('r3', 'a')).kind).toBe('replay');
  expect(await ask('r4', 'b')).toMatchObject({ reason: { kind: 'idempotency-no-answer' } });
});

test('beyond the bytes that are kept the oldest answers go, never the knowledge that they were billed', async () => {
  const { ask, answer, clock } = await funded({ bodyBytesMax: 25 });
  for (const key of ['a', 'b', 'c']) {
    await ask(`r-${key}`, key);
    await answer(`r-${key}`, '0123456789');
    clock.advance(1);
  }
  expect(await ask('r4', 'a')).toMatchObject({ reason: { kind: 'idempotency-no-answer' } });
  expect((await ask('r5', 'b')).kind).toBe('replay');
  expect((await ask('r6', 'c')).kind).toBe('replay');
});

test('a key is free again after a day, but not while its request is in flight', async () => {
  const { ask, answer, clock } = await funded();
  await ask('r1', 'done');
  await answer('r1', 'x');
  await ask('r2', 'running');
  clock.advance(day);
  expect((await ask('r3', 'done')).kind).toBe('replay');
  clock.advance(1);
  expect((await ask('r4', 'done')).kind).toBe('admitted');
  expect(await ask('r5', 'running')).toEqual({ kind: 'running', requestId: 'r2' });
});

test('rows stay within their bound, and old ones are cleared away as new keys come', async () => {
  const { db, ask, answer, clock } = await funded({ rowsMax: 20 });
  const rows = () => db.get<{ rows: number }>('SELECT count(*) AS rows FROM idempotency').rows;
  const kept = () => db.get<{ rows: number }>('SELECT rows FROM idempotency_size').rows;
  for (let index = 0; index < 40; index++) {
    await ask(`r${index}`, `k${index}`);
    await answer(`r${index}`, 'x');
    clock.advance(1);
  }
  expect([rows(), kept()]).toEqual([20, 20]);
  expect((await ask('again', 'k39')).kind).toBe('replay');
  clock.advance(2 * day);
  await ask('new', 'new');
  await ask('new-2', 'new-2');
  expect([rows(), kept()]).toEqual([2, 2]);
});
