/** Calls between threads, here between two ports of one. */
import { MessageChannel } from 'node:worker_threads';
import { expect, onTestFinished, test } from 'vitest';
import { DatabaseUnavailable, unavailable } from '../../../../db/unavailable.ts';
import { ApiError, toApiError } from '../../../../edge/errors.ts';
import { connectPeers } from '../../../../edge/node/threads/peers.ts';
import { connectPort, remoteObject } from '../../../../edge/node/threads/port-calls.ts';
import type { Call, PortCalls } from '../../../../edge/node/threads/port-calls.ts';
import { TenantUnavailable } from '../../../../edge/tenant/tenant-unavailable.ts';
import { UserError } from '../../../../infra/user-error.ts';

/** @returns the near end; the far one answers. */
function connect(answer: (call: Call) => Promise<unknown>): PortCalls {
  const { port1, port2 } = new MessageChannel();
  const near = connectPort(port1, async () => ({ value: null, transfer: [] }));
  const far = connectPort(port2, async (call) => ({ value: await answer(call), transfer: [] }));
  onTestFinished(() => {
    near.close();
    far.close();
  });
  return near;
}

const asked = (...args: unknown[]): Call => ({ object: 'tenant', id: 'acme', method: 'm', args });

function failing(error: unknown): Promise<unknown> {
  const calls = connect(async () => {
    throw error;
  });
  return calls.call(asked()).then(
    () => 'it did not fail',
    (received: unknown) => received,
  );
}

test('a call gets the answer of its own, whichever comes first', async () => {
  const first = Promise.withResolvers<unknown>();
  const calls = connect(async ({ args: [number] }) => (number === 1 ? first.promise : number));
  const one = calls.call(asked(1));
  expect(await calls.call(asked(2))).toBe(2);
  first.resolve('late');
  expect(await one).toBe('late');
});

test('what cannot be sent fails alone, as an argument and as an answer', async () => {
  const calls = connect(async ({ args: [argument] }) => (argument === 'bad' ? () => {} : argument));
  const results = await Promise.allSettled([
    calls.call(asked('a')),
    calls.call(asked(() => {})),
    calls.call(asked('bad')),
    calls.call(asked('b')),
  ]);
  expect(results.map(({ status }) => status)).toEqual([
    'fulfilled',
    'rejected',
    'rejected',
    'fulfilled',
  ]);
});

test('a tenant whose database cannot be used is told as such by another thread', async () => {
  const found = new DatabaseUnavailable('full', 'the disk of acme.db is full');
  const error = await failing(new TenantUnavailable('acme', found));
  expect(error).toBeInstanceOf(TenantUnavailable);
  expect(error).toMatchObject({
    tenant: 'acme',
    reason: 'full',
    passes: true,
    status: 503,
    headers: { 'retry-after': '10' },
    cause: { message: 'the disk of acme.db is full' },
  });
  expect(unavailable(await failing(found))).toMatchObject({ reason: 'full', passes: true });
});

test('an error for the client keeps its code, its details and its cause for the log', async () => {
  const details = { param: 'model', headers: { 'retry-after': '7' }, cause: new TypeError('why') };
  const error = await failing(new ApiError('invalid_value', 'It is no value.', details));
  expect(error).toBeInstanceOf(ApiError);
  expect(error).toMatchObject({
    code: 'invalid_value',
    message: 'It is no value.',
    param: 'model',
    headers: { 'retry-after': '7' },
    cause: { name: 'TypeError', message: 'why' },
  });
});

test('other errors keep their message, and are faults of ours to a client', async () => {
  expect(await failing(new UserError('set PORT to another one'))).toBeInstanceOf(UserError);
  const error = await failing(new RangeError('it is out of range'));
  expect(error).toMatchObject({ name: 'RangeError', message: 'it is out of range' });
  expect(toApiError(error).code).toBe('internal_error');
  expect(await failing('a word')).toMatchObject({ message: 'a word' });
});

test('a remote object has the methods of its list alone', async () => {
  const calls = connect(async (call) => call);
  const remote = remoteObject<'add', { add(a: number, b: number): Promise<unknown> }>(
    ['add'],
    (method, args) => calls.call({ object: 'sum', method, args }),
  );
  expect(Object.keys(remote)).toEqual(['add']);
  expect(await remote.add(1, 2)).toEqual({ object: 'sum', method: 'add', args: [1, 2] });
});

test('what is told comes before what is asked later, and its failure is told to nobody', async () => {
  const seen: unknown[] = [];
  const calls = connect(async ({ method, args: [argument] }) => {
    if (argument === 'bad') throw new Error('nobody sees this');
    seen.push(argument);
    return method;
  });
  calls.tell(asked('told'));
  calls.tell(asked('bad'));
  calls.tell(asked(() => {}));
  expect(await calls.call(asked('asked'))).toBe('m');
  expect(seen).toEqual(['told', 'asked']);
});

test('calls wait for an object that is not there yet', async () => {
  const { port1, port2 } = new MessageChannel();
  const near = connectPeers({ own: 0, ports: new Map([[1, port1]]) });
  const far = connectPeers({ own: 1, ports: new Map([[0, port2]]) });
  const answer = near.call(1, asked('early'));
  far.serve(async ({ args: [value] }) => ({ value, transfer: [] }));
  expect(await answer).toBe('early');
  near.close();
  far.close();
});

test('each tenant has one owner, the same for every thread, and all threads have tenants', () => {
  const channels = [1, 2].map((thread) => [thread, new MessageChannel()] as const);
  const others = channels.map(([thread, { port1 }]) => [thread, port1] as const);
  const first = connectPeers({ own: 0, ports: new Map(others) });
  const owners = new Map<number, number>();
  for (let tenant = 0; tenant < 3_000; tenant++) {
    const owner = first.ownerOf(`tenant-${tenant}`);
    owners.set(owner, (owners.get(owner) ?? 0) + 1);
  }
  expect([...owners.keys()].toSorted()).toEqual([0, 1, 2]);
  for (const count of owners.values()) expect(Math.abs(count - 1_000)).toBeLessThan(100);
  first.close();
  const alone = connectPeers({ own: 0, ports: new Map() });
  expect(alone.ownerOf('acme')).toBe(0);
});
