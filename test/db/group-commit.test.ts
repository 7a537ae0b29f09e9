import { expect, test } from 'vitest';
import { sql } from 'drizzle-orm';
import { commitInGroups } from '../../db/group-commit.ts';
import { openTenantDb } from '../../db/drivers/better-sqlite3.ts';
import { account } from '../../db/schema/tenant.ts';
import { createTenant } from '../../edge/tenant.ts';
import { addKey, admitInput } from '../edge/tenant-samples.ts';

function open() {
  const { db, close, waitForDisk } = openTenantDb(':memory:');
  const turns: (() => void)[] = [];
  const modes: boolean[] = [];
  const committer = commitInGroups(
    db,
    (flush) => turns.push(flush),
    (wait) => {
      modes.push(wait);
      waitForDisk(wait);
    },
  );
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
  const committer = commitInGroups(db, setImmediate, (wait) => void waits.push(wait));
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
