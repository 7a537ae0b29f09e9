/**
 * Another process locks a database of the edge on Node, as a backup or a report of the operator's
 * does.
 */
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import { dollar, startRuntimeSystem } from '../../support/edge/runtime-system.ts';
import { lockFromOutside } from '../../support/edge/lock-file.ts';

async function lock(...options: Parameters<typeof lockFromOutside>) {
  const held = await lockFromOutside(...options);
  onTestFinished(() => held.release());
  return held;
}

test('a tenant whose database is locked is told to come back, and the others are served', async () => {
  const system = await startRuntimeSystem();
  const held = await lock(join(system.folder, 'tenants/acme.db'));
  const locked = system.ask('acme');
  const others = await Promise.all(Array.from({ length: 8 }, () => system.ask('other')));
  expect(others.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 200));
  const refusal = await locked;
  expect(refusal.status).toBe(503);
  expect(refusal.headers.get('retry-after')).toBe('1');
  const text = await refusal.text();
  expect(JSON.parse(text)).toMatchObject({ error: { code: 'tenant_unavailable' } });
  expect(text).not.toMatch(/acme|sqlite|\.db|\//i);
  await held.release();
  expect((await system.ask('acme')).status).toBe(200);
  expect(await system.audit()).toMatchObject({ ok: true, total: { held_nano_usd: 0 } });
});

test('a database that is locked before it is opened opens once it is free', async () => {
  const system = await startRuntimeSystem();
  await system.stop();
  const held = await lock(join(system.folder, 'tenants/acme.db'), 'readers-too');
  await system.startAgain();
  const [locked, other] = await Promise.all([system.ask('acme'), system.ask('other')]);
  expect([locked.status, other.status]).toEqual([503, 200]);
  await held.release();
  expect((await system.ask('acme')).status).toBe(200);
});

test('a settlement that meets a lock is made once the lock is gone, and once', async () => {
  const system = await startRuntimeSystem();
  // The lock is there before the last event, on a slow machine too.
  system.stub.script = { ...plainScript, pauseMs: 300 };
  const streams = await Promise.all([1, 2].map(() => system.ask('acme', { stream: true })));
  const readers = streams.map((stream) => stream.body?.getReader());
  const begun = await Promise.all(readers.map((reader) => reader?.read()));
  const held = await lock(join(system.folder, 'tenants/acme.db'));
  const ends = readers.map(async (reader, index) => {
    let text = new TextDecoder().decode(begun[index]?.value);
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
      if (done) return text;
      text += new TextDecoder().decode(value);
    }
  });
  await expect
    .poll(() => [...system.stub.records.values()].map(({ status }) => status))
    .toEqual(['done', 'done']);
  await held.release();
  for (const text of await Promise.all(ends)) expect(text).toContain('data: [DONE]');
  const books = await system.audit();
  expect(books).toMatchObject({ ok: true, total: { held_nano_usd: 0 } });
  // Each request is rounded up by itself, at 0.42 USD per million tokens of output.
  const output = [...system.stub.records.values()].map((record) => record.output * 420);
  const paid = 2 * dollar - books.total.granted_nano_usd;
  expect(paid).toBeGreaterThanOrEqual(output.reduce((sum, cost) => sum + cost, 0));
});

test('a change of the directory that meets a lock is refused with the same answer', async () => {
  const system = await startRuntimeSystem();
  const held = await lock(join(system.folder, 'directory.db'));
  const suspend = () => system.operator().call('PATCH', '/tenants/acme', { status: 'suspended' });
  await expect(suspend()).rejects.toThrow(/503 .*tenant_unavailable/);
  // Known models, prices and tenants are at hand.
  expect((await system.ask('acme')).status).toBe(200);
  await held.release();
  await suspend();
  expect((await system.ask('acme')).status).toBe(403);
});
