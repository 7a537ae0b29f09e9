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
import { addKey, admitInput } from '../support/edge/tenant-samples.ts';

function open() {
  const { db, close, waitForDisk } = openTenantDb(':memory:');
  const turns: (() => void)[] = [];
  const modes: boolean[] = [];
  const committer = commitInGroups(db, (flush) => turns.push(flush), {
    waitForDisk(wait) {
      modes.push(wait);
      waitForDisk(wait);
    },
  });
  const synchronous = () => db.get(sql`PRAGMA synchronous`);
  const turn = (): void => turns.splice(0).forEach((flush) => flush());
  const add = (amount: number) => () =>
    db
      .update(account)
      .set({ grantedNanoUsd: sql`${account.grantedNanoUsd} + ${amount}` })
      .returning()
      .get().grantedNanoUsd;
  return { committer, modes, synchronous, turn, add, close };
}

const full = { synchronous: 2 };
const normal = { synchronous: 1 };

test('a commit waits for the disk unless all of its works say that they need not', async () => {
  const { committer, modes, synchronous, turn, add, close } = open();
  expect(synchronous()).toEqual(full);
  const alone = committer.runUnsynced(add(1));
  turn();
  expect(await alone).toBe(1);
  expect(synchronous()).toEqual(normal);
  const mixed = [
    committer.runUnsynced(add(2)),
    committer.run(add(4)),
    committer.runUnsynced(add(8)),
  ];
  turn();
  expect(await Promise.all(mixed)).toEqual([3, 7, 15]);
  expect(synchronous()).toEqual(full);
  const synced = committer.run(add(16));
  turn();
  expect(await synced).toBe(31);
  expect(modes).toEqual([false, true]);
  close();
});

test('a work that throws takes neither its group nor the mode with it', async () => {
  const { committer, turn, add, synchronous, close } = open();
  const failing = committer.run(() => {
    throw new Error('changed its mind');
  });
  const other = committer.runUnsynced(add(1));
  turn();
  await expect(failing).rejects.toThrow('changed its mind');
  expect(await other).toBe(1);
  expect(synchronous()).toEqual(full);
  close();
});

test('a placement that has to outlive the power takes the admission before it to the disk', async () => {
  const { db, close } = openTenantDb(':memory:');
  const waits: boolean[] = [];
  const committer = commitInGroups(db, setImmediate, {
    waitForDisk: (wait) => void waits.push(wait),
  });
  const tenant = createTenant(db, { clock: { nowMs: () => 1_000 }, committer });
  await addKey(tenant);
  await tenant.credit({ kind: 'granted', amountNanoUsd: 1e9, source: 'grant', note: '' });
  const place = { worker: 'w1', epoch: 1, workerUrl: 'http://w1.test', chain: [] };
  await tenant.admit(admitInput('whole'));
  await tenant.placed({ ...place, requestId: 'whole', durable: false });
  await tenant.admit(admitInput('stream'));
  expect(waits).toEqual([false]);
  await tenant.placed({ ...place, requestId: 'stream', durable: true });
  expect(waits).toEqual([false, true]);
  close();
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
