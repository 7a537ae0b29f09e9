import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sql } from 'drizzle-orm';
import { commitInGroups, waitingMax } from '../../db/group-commit.ts';
import { lockTriesMax } from '../../db/unavailable.ts';
import { openTenantDb } from '../../db/drivers/better-sqlite3.ts';
import { account } from '../../db/schema/tenant.ts';
import { createTenant } from '../../edge/tenant/tenant.ts';
import { addKey, admitInput, settleInput } from '../support/edge/tenant-samples.ts';

/** A log whose syncs the test ends. */
function testLog() {
  const syncs: PromiseWithResolvers<void>[] = [];
  let soon = 0;
  return {
    syncs,
    soon: () => soon,
    sync() {
      const sync = Promise.withResolvers<void>();
      syncs.push(sync);
      return sync.promise;
    },
    syncSoon: () => void soon++,
    failure: null,
  };
}

function open() {
  const { db, close } = openTenantDb(':memory:');
  onTestFinished(close);
  const turns: (() => void)[] = [];
  const log = testLog();
  const committer = commitInGroups(db, (flush) => turns.push(flush), { log });
  const turn = (): void => turns.splice(0).forEach((flush) => flush());
  let runs = 0;
  const add = (amount: number) => () => {
    runs++;
    return db
      .update(account)
      .set({ grantedNanoUsd: sql`${account.grantedNanoUsd} + ${amount}` })
      .returning()
      .get().grantedNanoUsd;
  };
  return { committer, log, turn, add, runs: () => runs };
}

test('who waits for the disk is answered after the sync that follows the commit, others at once', async () => {
  const { committer, log, turn, add } = open();
  const alone = committer.runUnsynced(add(1));
  turn();
  expect(await alone).toBe(1);
  expect(log.syncs).toHaveLength(0);
  expect(log.soon()).toBe(1);
  const told: string[] = [];
  const waits = committer.run(add(4)).then((value) => told.push(`synced ${value}`));
  const goes = committer.runUnsynced(add(2)).then((value) => told.push(`at once ${value}`));
  turn();
  await goes;
  expect(told).toEqual(['at once 7']);
  log.syncs[0]?.resolve();
  await waits;
  expect(told).toEqual(['at once 7', 'synced 5']);
});

test('a disk that fails is told to those who wait for it, and to nobody else', async () => {
  const { committer, log, turn, add } = open();
  const waits = committer.run(add(4));
  const goes = committer.runUnsynced(add(2));
  turn();
  expect(await goes).toBe(6);
  log.syncs[0]?.reject(new Error('the disk failed'));
  await expect(waits).rejects.toThrow('the disk failed');
});

test('a work that throws takes none of its group with it', async () => {
  const { committer, log, turn, add, runs } = open();
  const before = committer.runUnsynced(add(1));
  const failing = committer.run(() => {
    add(100)();
    throw new Error('changed its mind');
  });
  const after = committer.runUnsynced(add(1));
  turn();
  log.syncs[0]?.resolve();
  await expect(failing).rejects.toThrow('changed its mind');
  expect(await Promise.all([before, after])).toEqual([1, 2]);
  // The group ran without savepoints up to the work that threw, and then once more with them.
  expect(runs()).toBe(5);
});

test('a placement that has to outlive the power takes the admission before it to the disk', async () => {
  const { db, close } = openTenantDb(':memory:');
  onTestFinished(close);
  const log = testLog();
  const committer = commitInGroups(db, setImmediate, { log });
  const tenant = createTenant(db, { clock: { nowMs: () => 1_000 }, committer });
  const synced = async (work: Promise<unknown>): Promise<void> => {
    const before = log.syncs.length;
    await expect.poll(() => log.syncs.length).toBe(before + 1);
    log.syncs.at(-1)?.resolve();
    await work;
  };
  await synced(addKey(tenant));
  await synced(tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'grant', note: '' }));
  const place = { worker: 'w1', epoch: 1, workerUrl: 'http://w1.test', chain: [] };
  await tenant.admit(admitInput('foreign'));
  await tenant.placed({ ...place, requestId: 'foreign', durable: false });
  await tenant.admit(admitInput('ours'));
  await synced(tenant.placed({ ...place, requestId: 'ours', durable: true }));
  await tenant.settle(settleInput('ours', { isJournalled: true }));
  await synced(tenant.settle(settleInput('foreign')));
});

describe('a database that another connection holds', () => {
  function locked() {
    const folder = mkdtempSync(join(tmpdir(), 'sift-db-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'tenant.db');
    const { db, close } = openTenantDb(path);
    onTestFinished(close);
    const other = openTenantDb(path);
    onTestFinished(other.close);
    const later: (() => void)[] = [];
    const committer = commitInGroups(db, setImmediate, {
      retryLater: (flush) => void later.push(flush),
    });
    const retry = (): void => later.splice(0).forEach((flush) => flush());
    other.db.run(sql`BEGIN EXCLUSIVE`);
    const count = (): unknown => db.get(sql`SELECT granted_nano_usd AS granted FROM account`);
    const add = () => db.run(sql`UPDATE account SET granted_nano_usd = granted_nano_usd + 1`);
    const free = (): void => void other.db.run(sql`ROLLBACK`);
    return { db, committer, later, retry, add, count, free };
  }

  test('holds up nobody else: no call waits for a lock', () => {
    expect(locked().db.get(sql`PRAGMA busy_timeout`)).toEqual({ timeout: 0 });
  });

  test('does each work once, after it is free', async () => {
    const { committer, later, retry, add, count, free } = locked();
    const first = committer.run(add);
    await expect.poll(() => later.length).toBe(1);
    const second = committer.run(add);
    retry();
    expect(later).toHaveLength(1);
    free();
    retry();
    await Promise.all([first, second]);
    expect(count()).toEqual({ granted: 2 });
  });

  test('refuses a work that has waited for long, and lets those wait on that came later', async () => {
    const { committer, later, retry, add, count, free } = locked();
    const early = committer.run(add);
    const refusal = early.catch((error: unknown) => error);
    await expect.poll(() => later.length).toBe(1);
    const late = committer.run(add);
    for (let tries = 1; tries < lockTriesMax; tries++) retry();
    expect(await refusal).toMatchObject({ reason: 'locked' });
    expect(later).toHaveLength(1);
    free();
    retry();
    await late;
    expect(count()).toEqual({ granted: 1 });
  });

  test('refuses at once what would wait behind too many', async () => {
    const { committer, later, retry, add, free } = locked();
    const many = Array.from({ length: waitingMax }, () => committer.run(add));
    await expect(committer.run(add)).rejects.toMatchObject({ reason: 'locked' });
    await expect.poll(() => later.length).toBe(1);
    free();
    retry();
    await Promise.all(many);
  });
});

test('a database that is full takes none of a group, and goes on when there is room', async () => {
  const { db, close } = openTenantDb(':memory:');
  onTestFinished(close);
  const committer = commitInGroups(db, setImmediate);
  db.run(sql`CREATE TABLE filler (bytes BLOB)`);
  const { page_count: pages } = db.get<{ page_count: number }>(sql`PRAGMA page_count`);
  db.run(sql.raw(`PRAGMA max_page_count = ${pages + 2}`));
  const add = () => db.run(sql`UPDATE account SET granted_nano_usd = granted_nano_usd + 1`);
  const fill = () => db.run(sql`INSERT INTO filler VALUES (zeroblob(100000))`);
  const group = await Promise.allSettled([add, fill, add].map((work) => committer.run(work)));
  expect(group).toEqual(
    group.map(() => ({ status: 'rejected', reason: expect.objectContaining({ reason: 'full' }) })),
  );
  expect(db.get(sql`SELECT granted_nano_usd AS granted FROM account`)).toEqual({ granted: 0 });
  db.run(sql`PRAGMA max_page_count = 100000`);
  await Promise.all([add, fill, add].map((work) => committer.run(work)));
  expect(db.get(sql`SELECT granted_nano_usd AS granted FROM account`)).toEqual({ granted: 2 });
});
