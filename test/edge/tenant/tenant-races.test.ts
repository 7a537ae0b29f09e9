import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { commitInGroups, groupSizeMax } from '../../../db/group-commit.ts';
import { account } from '../../../db/schema/tenant.ts';
import { prefixChain, prefixRoot } from '../../../edge/prefix/chain.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import {
  addKey,
  admitInput,
  sampleCost,
  sampleHold,
  settleInput,
} from '../../support/edge/tenant-samples.ts';

function openFile() {
  const folder = mkdtempSync(join(tmpdir(), 'sift-race-'));
  const opened = openTenantDb(join(folder, 'tenant.db'));
  onTestFinished(() => {
    opened.close();
    rmSync(folder, { recursive: true });
  });
  return opened.db;
}

test('of 1,000 requests at once against a balance for 100, exactly 100 are admitted', async () => {
  const db = openFile();
  const committer = commitInGroups(db, setImmediate);
  const tenant = createTenant(db, { clock: { nowMs: () => 1e12 }, committer });
  await addKey(tenant);
  const granted = 33 * sampleHold + 5;
  const toppedUp = 67 * sampleHold - 5 + (sampleHold - 1);
  await tenant.credit({ kind: 'granted', amountNanoUsd: granted, source: 'a', note: '' });
  await tenant.credit({ kind: 'topped-up', amountNanoUsd: toppedUp, source: 'b', note: '' });
  const ids = Array.from({ length: 1_000 }, (_, index) => `r${index}`);
  const results = await Promise.all(ids.map((id) => tenant.admit(admitInput(id))));
  const admitted = ids.filter((_, index) => results[index]?.kind === 'admitted');
  expect(admitted).toHaveLength(100);
  expect(await tenant.balance()).toEqual({ granted, toppedUp, held: 100 * sampleHold });

  const twice = [...admitted, ...admitted];
  const settled = await Promise.all(twice.map((id) => tenant.settle(settleInput(id))));
  expect(settled.filter(({ first }) => first)).toHaveLength(100);
  const after = await tenant.balance();
  expect(after.held).toBe(0);
  expect(after.granted + after.toppedUp).toBe(granted + toppedUp - 100 * sampleCost);
  expect(await tenant.audit()).toEqual([]);
});

test('of many requests at once under one idempotency key one runs', async () => {
  const db = openFile();
  const committer = commitInGroups(db, setImmediate);
  const tenant = createTenant(db, { clock: { nowMs: () => 1e12 }, committer });
  await addKey(tenant);
  await tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'a', note: '' });
  const idempotency = { key: 'once', requestHash: 'h', afterEvent: 0 };
  const results = await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      tenant.admit(admitInput(`r${index}`, { idempotency })),
    ),
  );
  expect(results.filter(({ kind }) => kind === 'admitted')).toHaveLength(1);
  expect((await tenant.balance()).held).toBe(sampleHold);
});

test('a payment reported many times at once is credited once', async () => {
  const { tenant } = openTestTenant();
  const credit = { kind: 'topped-up', amountNanoUsd: 7, source: 'evt_1', note: '' } as const;
  const credited = await Promise.all(Array.from({ length: 50 }, () => tenant.credit(credit)));
  expect(credited.filter((first) => first)).toHaveLength(1);
  expect((await tenant.balance()).toppedUp).toBe(7);
});

test('in a group, work that throws is undone alone, and the others are answered after the commit', async () => {
  const db = openFile();
  const turns: (() => void)[] = [];
  const committer = commitInGroups(db, (flush) => turns.push(flush));
  const add = (by: number) => () => {
    const before = db.select().from(account).get()?.grantedNanoUsd ?? 0;
    db.update(account)
      .set({ grantedNanoUsd: before + by })
      .run();
    if (by === 100) throw new Error('refused');
    return before + by;
  };
  const answers = Promise.allSettled([1, 100, 10].map((by) => committer.run(add(by))));
  turns.shift()?.();
  expect(await answers).toMatchObject([
    { value: 1 },
    { reason: { message: 'refused' } },
    { value: 11 },
  ]);
});

test('when a commit fails, every caller in its group is told and nothing stays', async () => {
  const db = openFile();
  const turns: (() => void)[] = [];
  const committer = commitInGroups(db, (flush) => turns.push(flush));
  db.run('PRAGMA foreign_keys = ON');
  db.run('CREATE TABLE parent (id INTEGER PRIMARY KEY)');
  db.run('CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)');
  const works = [
    () => db.run('UPDATE account SET granted_nano_usd = 5'),
    () => db.run('INSERT INTO child VALUES (1)'),
  ];
  const answers = Promise.allSettled(works.map((work) => committer.run(work)));
  turns.shift()?.();
  expect((await answers).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(db.select().from(account).get()?.grantedNanoUsd).toBe(0);
  const next = committer.run(() => db.select().from(account).get()?.id);
  turns.shift()?.();
  expect(await next).toBe(1);
});

test('a turn that brings more than a group commits several times and forgets nobody', async () => {
  const db = openFile();
  const committer = commitInGroups(db, setImmediate);
  const count = groupSizeMax * 2 + 1;
  const answers = await Promise.all(
    Array.from({ length: count }, (_, index) => committer.run(() => index)),
  );
  expect(answers).toEqual(Array.from({ length: count }, (_, index) => index));
});

test('two tenants with the same prompts, keys and ids share no row and no prefix', async () => {
  const openers = ['one', 'two'].map((name) => {
    const fields = { tenant: name, scope: '', model: 'm', revision: 'r', tokenizer: 't' };
    const message = { kind: 'message', value: { content: 'x'.repeat(40_000) } } as const;
    return { ...openTestTenant(), chain: prefixChain([message], prefixRoot('secret', fields)) };
  });
  const [one, two] = openers;
  if (one === undefined || two === undefined) throw new Error('two tenants');
  const keys = new Set(one.chain.map(({ key }) => key));
  expect(two.chain.filter(({ key }) => keys.has(key))).toEqual([]);

  await addKey(one.tenant);
  await one.tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'a', note: '' });
  const idempotency = { key: 'once', requestHash: 'h', afterEvent: 0 };
  await one.tenant.admit(admitInput('r1', { prefixChain: one.chain, idempotency }));
  const place = { requestId: 'r1', worker: 'w1', epoch: 1, workerUrl: 'http://w1' };
  await one.tenant.placed({ ...place, chain: one.chain });
  const answer = { status: 200, contentType: 'text/plain', body: 'secret of one', headers: {} };
  await one.tenant.settle(settleInput('r1', { answer }));

  expect(await two.tenant.keys()).toEqual([]);
  expect(await two.tenant.balance()).toEqual({ granted: 0, toppedUp: 0, held: 0 });
  expect(await two.tenant.entries({ afterId: 0, limit: 10 })).toEqual([]);
  expect(await two.tenant.prefixHits(two.chain)).toEqual([]);
  expect(await two.tenant.prefixHits(one.chain)).toEqual([]);
  const foreign = await two.tenant.admit(admitInput('r1', { idempotency }));
  expect(foreign).toEqual({ kind: 'refused', reason: { kind: 'bad-key' }, limits: null });
  await expect(two.tenant.settle(settleInput('r1'))).rejects.toThrow(/was admitted/);
});
