/**
 * The demands on every database driver, as cases that any runtime can run: this file imports
 * nothing that only Node has. A runtime's test registers them: `for (const c of tenantCases)
 * test(c.name, ...)`.
 */
import { strict as assert } from 'node:assert';
import { eq, sql } from 'drizzle-orm';
import { account, apiKey, entry, idempotency, prefixChunk } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import { makeStatement, totalOf } from '../../edge/statements/statement.ts';
import { createTenant } from '../../edge/tenant/tenant.ts';
import {
  operator,
  addKey,
  admitInput,
  chainOf,
  sampleCost,
  sampleHold,
  settleInput,
  testClock,
  usageOf,
} from '../support/edge/tenant-samples.ts';

export interface Case<Db> {
  readonly name: string;
  /** The database is fresh and migrated. */
  readonly run: (db: Db) => Promise<void>;
}

async function openTenant(db: SyncDb) {
  const clock = testClock();
  const tenant = createTenant(db, { clock });
  await addKey(tenant);
  await tenant.credit({ kind: 'granted', amountNanoUsd: 500_000, source: 'grant', note: '' });
  await tenant.credit({ kind: 'topped-up', amountNanoUsd: 10_000_000, source: 'pay', note: '' });
  return { tenant, clock };
}

export const tenantCases: readonly Case<SyncDb>[] = [
  {
    name: 'of 1,000 requests at once a budget admits what it covers, to the nano-dollar',
    async run(db) {
      const tenant = createTenant(db, { clock: testClock() });
      await addKey(tenant);
      await tenant.credit({ kind: 'granted', amountNanoUsd: 1e12, source: 'grant', note: '' });
      const limitNanoUsd = 70 * sampleHold + sampleHold - 1;
      await tenant.updateKey(
        'key-1',
        {
          budget: { zone: 'Europe/Berlin', windows: [{ period: 'day', limitNanoUsd }] },
        },
        operator,
      );
      const windows = [{ period: 'ever' as const, limitNanoUsd: 40 * sampleHold }];
      await tenant.setBudget('session', { zone: 'UTC', windows });
      const names = (index: number) => (index % 2 === 0 ? ['session'] : []);
      const ids = Array.from({ length: 1_000 }, (_, index) => `r${index}`);
      const results = await Promise.all(
        ids.map((id, index) =>
          tenant.admit(admitInput(id, { budgets: { names: names(index), trimTo: null } })),
        ),
      );
      const admitted = ids.filter((_, index) => results[index]?.kind === 'admitted');
      assert.equal(admitted.length, 70);
      assert.equal((await tenant.balance()).held, 70 * sampleHold);
      const [last] = results.slice(-1);
      assert.ok(last?.kind === 'refused' && last.reason.kind === 'budget');
      const settled = [...admitted, ...admitted].map((id) => tenant.settle(settleInput(id)));
      await Promise.all(settled);
      const [ofKey] = (await tenant.key('key-1'))?.budget?.windows ?? [];
      assert.deepEqual([ofKey?.heldNanoUsd, ofKey?.spentNanoUsd], [0, 70 * sampleCost]);
      const [ofSession] = (await tenant.budget('session'))?.windows ?? [];
      assert.deepEqual([ofSession?.heldNanoUsd, ofSession?.spentNanoUsd], [0, 35 * sampleCost]);
      assert.deepEqual(await tenant.audit(), []);
    },
  },
  {
    name: 'of 1,000 leases at once none takes what is not there',
    async run(db) {
      const tenant = createTenant(db, { clock: testClock() });
      await addKey(tenant);
      const first = 1_000 * 280;
      const amountNanoUsd = 100 * first + 12_345;
      await tenant.credit({ kind: 'granted', amountNanoUsd, source: 'grant', note: '' });
      const ids = Array.from({ length: 100 }, (_, index) => `r${index}`);
      for (const id of ids) await tenant.admit(admitInput(id, { lease: { outputTokens: 0 } }));
      const more = ids.flatMap((id) => Array.from({ length: 10 }, () => id));
      const extended = await Promise.all(
        more.map((requestId) =>
          tenant.extend({ requestId, amountNanoUsd: 1_000, leastNanoUsd: 1 }),
        ),
      );
      assert.equal(extended.filter(({ kind }) => kind === 'extended').length, 13);
      assert.equal((await tenant.balance()).held, amountNanoUsd);
      assert.deepEqual(await tenant.audit(), []);
      await Promise.all(ids.map((id) => tenant.settle(settleInput(id))));
      assert.deepEqual(await tenant.audit(), []);
      assert.equal((await tenant.balance()).held, 0);
    },
  },
  {
    name: 'a statement is read in parts, and its zone has daylight saving',
    async run(db) {
      const { tenant, clock } = await openTenant(db);
      await tenant.admit(admitInput('one'));
      await tenant.settle(settleInput('one'));
      await tenant.admit(admitInput('open'));
      const { closing, spend, openHolds, fromMs } = await makeStatement(tenant, {
        tenantId: 'tenant-1',
        month: '2025-07',
        timeZone: 'Europe/Berlin',
        nowMs: Date.UTC(2025, 9, 1),
      });
      assert.equal(fromMs, Date.UTC(2025, 5, 30, 22));
      assert.deepEqual([totalOf(closing), spend.length, openHolds.count], [0, 0, 0]);
      const now = await makeStatement(tenant, {
        tenantId: 'tenant-1',
        month: '2026-01',
        timeZone: 'Europe/Berlin',
        nowMs: clock.nowMs(),
      });
      assert.equal(totalOf(now.closing), 10_500_000 - sampleCost);
      assert.deepEqual(now.openHolds, { count: 1, amountNanoUsd: sampleHold });
      assert.deepEqual(
        now.spend.map(({ keyLabel, requests }) => [keyLabel, requests]),
        [['a test key', 1]],
      );
    },
  },
  {
    name: 'a transaction that throws leaves nothing behind',
    async run(db) {
      assert.throws(
        () =>
          db.transaction(() => {
            db.update(account).set({ grantedNanoUsd: 5 }).run();
            throw new Error('changed its mind');
          }),
        /changed its mind/,
      );
      assert.equal(db.select().from(account).get()?.grantedNanoUsd, 0);
    },
  },
  {
    name: 'a transaction inside another rolls back alone',
    async run(db) {
      const result = db.transaction(() => {
        db.update(account).set({ grantedNanoUsd: 5 }).run();
        assert.throws(() =>
          db.transaction(() => {
            db.update(account).set({ grantedNanoUsd: 6 }).run();
            throw new Error('inner');
          }),
        );
        db.transaction(() => db.update(account).set({ toppedUpNanoUsd: 7 }).run());
        return 'outer';
      });
      assert.equal(result, 'outer');
      const row = db.select().from(account).get();
      assert.deepEqual([row?.grantedNanoUsd, row?.toppedUpNanoUsd], [5, 7]);
    },
  },
  {
    name: 'a prepared statement takes part in the open transaction',
    async run(db) {
      const read = db.select().from(account).prepare();
      const raise = db
        .update(account)
        .set({ heldNanoUsd: sql`${account.heldNanoUsd} + ${sql.placeholder('by')}` })
        .where(sql`${account.toppedUpNanoUsd} - ${account.heldNanoUsd} >= ${sql.placeholder('by')}`)
        .returning({ held: account.heldNanoUsd })
        .prepare();
      db.update(account).set({ toppedUpNanoUsd: 10 }).run();
      assert.throws(() =>
        db.transaction(() => {
          assert.deepEqual(raise.get({ by: 4 }), { held: 4 });
          assert.equal(read.get()?.heldNanoUsd, 4);
          throw new Error('roll back');
        }),
      );
      assert.equal(read.get()?.heldNanoUsd, 0);
      assert.equal(raise.get({ by: 11 }), undefined);
    },
  },
  {
    name: 'the account refuses to hold or to spend more than it has',
    async run(db) {
      db.update(account).set({ grantedNanoUsd: 3, toppedUpNanoUsd: 4 }).run();
      assert.throws(() => db.update(account).set({ heldNanoUsd: 8 }).run());
      assert.throws(() => db.update(account).set({ grantedNanoUsd: -1 }).run());
      assert.throws(() => db.update(account).set({ heldNanoUsd: -1 }).run());
      db.update(account).set({ heldNanoUsd: 7 }).run();
      assert.throws(() => db.update(account).set({ toppedUpNanoUsd: 3 }).run());
      assert.throws(() => db.run(sql`INSERT INTO account VALUES (2, 0, 0, 0)`));
    },
  },
  {
    name: 'an entry can be neither changed nor deleted',
    async run(db) {
      await openTenant(db);
      const message = 'entries are immutable';
      const changes = [
        () => db.update(entry).set({ note: 'rewritten' }).where(eq(entry.id, 1)).run(),
        () => db.delete(entry).where(eq(entry.id, 1)).run(),
      ];
      for (const change of changes) {
        assert.throws(change, (error) => inspected(error).includes(message));
      }
      assert.equal(db.select().from(entry).all().length, 2);
    },
  },
  {
    name: 'a request has one entry of a kind and one resolution',
    async run(db) {
      const { tenant } = await openTenant(db);
      await tenant.admit(admitInput('r1'));
      await tenant.settle(settleInput('r1'));
      const pending = db.select().from(entry).where(eq(entry.kind, 'pending')).get();
      assert.ok(pending);
      const row = { amountNanoUsd: 0, grantedNanoUsd: 0, toppedUpNanoUsd: 0, createdAtMs: 1 };
      const refersTo = pending.id;
      assert.throws(() =>
        db
          .insert(entry)
          .values({ ...row, kind: 'pending', requestId: 'r1' })
          .run(),
      );
      assert.throws(() =>
        db
          .insert(entry)
          .values({ ...row, kind: 'voided', requestId: 'other', refersTo })
          .run(),
      );
      assert.throws(() =>
        db
          .insert(entry)
          .values({ ...row, kind: 'posted', requestId: 'r2' })
          .run(),
      );
      assert.throws(() =>
        db
          .insert(entry)
          .values({ ...row, kind: 'credit', source: 'z', amountNanoUsd: 5 })
          .run(),
      );
    },
  },
  {
    name: 'amounts up to 2^53 - 1 come back as they went in',
    async run(db) {
      const tenant = createTenant(db, { clock: testClock() });
      const amountNanoUsd = Number.MAX_SAFE_INTEGER;
      await tenant.credit({ kind: 'topped-up', amountNanoUsd, source: 'a', note: 'all of it' });
      const more = {
        kind: 'granted',
        amountNanoUsd: 1,
        source: 'b',
        note: 'one too many',
      } as const;
      await assert.rejects(tenant.credit(more));
      assert.deepEqual(await tenant.balance(), { granted: 0, toppedUp: amountNanoUsd, held: 0 });
      assert.deepEqual(await tenant.audit(), []);
    },
  },
  {
    name: 'text, JSON, null and bytes come back as they went in',
    async run(db) {
      const { tenant } = await openTenant(db);
      const body = 'data: {"é":"\u0000\u{1f600}"}\n\n';
      const answer = {
        status: 200,
        contentType: 'text/event-stream',
        body,
        headers: { 'x-a': 'ü' },
      };
      const asked = admitInput('r1', {
        idempotency: { key: 'once', requestHash: 'h', afterEvent: 0 },
      });
      await tenant.admit(asked);
      await tenant.settle(settleInput('r1', { answer }));
      assert.deepEqual(await tenant.admit({ ...asked, requestId: 'r2' }), {
        kind: 'replay',
        answer,
      });
      assert.deepEqual(db.select().from(apiKey).get()?.scopes, ['inference', 'read']);
      assert.equal(db.select().from(idempotency).get()?.state, 'answered');
      assert.equal(db.select().from(entry).get()?.requestId, null);
    },
  },
  {
    name: 'the prefix table is its own index and takes keys of 16 bytes only',
    async run(db) {
      const { tenant } = await openTenant(db);
      await tenant.admit(admitInput('r1'));
      const placed = { requestId: 'r1', worker: 'w1', epoch: 7, workerUrl: 'http://w1' };
      await tenant.placed({ ...placed, chain: chainOf(1, 3) });
      assert.throws(() => db.all(sql`SELECT rowid FROM prefix_chunk`));
      assert.throws(() => db.all(sql`SELECT rowid FROM usage_daily`));
      const rows = db.select().from(prefixChunk).all();
      assert.deepEqual(
        rows.map(({ key, bytes }) => [Buffer.from(key).toString('hex'), bytes]),
        chainOf(1, 3).map(({ key, bytes }) => [key, bytes]),
      );
      assert.throws(() => db.run(sql`INSERT INTO prefix_chunk VALUES (x'0102', 1, 1, 1)`));
    },
  },
  {
    name: 'a prefix is found on every worker that has it, as deep as each has it',
    async run(db) {
      const { tenant } = await openTenant(db);
      for (const [requestId, worker, depth] of [
        ['r1', 'w1', 5],
        ['r2', 'w2', 2],
      ] as const) {
        await tenant.admit(admitInput(requestId));
        const chain = chainOf(1, depth);
        await tenant.placed({ requestId, worker, epoch: 1, workerUrl: `http://${worker}`, chain });
      }
      const hits = await tenant.prefixHits(chainOf(1, 4));
      assert.deepEqual(
        hits.toSorted((a, b) => (a.worker < b.worker ? -1 : 1)),
        [
          { worker: 'w1', epoch: 1, bytes: 8_192 },
          { worker: 'w2', epoch: 1, bytes: 4_096 },
        ],
      );
      assert.deepEqual(await tenant.prefixHits(chainOf(2, 4)), []);
    },
  },
  {
    name: 'a request is held, billed once to the nano-dollar, and rolled up',
    async run(db) {
      const { tenant } = await openTenant(db);
      const input = admitInput('r1', { promptTokensMax: 100_000, outputTokensMax: 1_000 });
      await tenant.credit({ kind: 'topped-up', amountNanoUsd: 1e9, source: 'more', note: '' });
      const admitted = await tenant.admit(input);
      assert.ok(admitted.kind === 'admitted' && admitted.holdNanoUsd === 28_420_000);
      const usage = {
        inputUncached: 34_464,
        inputCached: 65_536,
        outputText: 900,
        outputReasoning: 100,
      };
      const settled = await tenant.settle(settleInput('r1', { usage }));
      assert.deepEqual(settled, { costNanoUsd: 11_904_928, usage, first: true, excessNanoUsd: 0 });
      const again = await tenant.settle(settleInput('r1'));
      assert.deepEqual(again, { ...settled, first: false });
      const page = { fromDay: '2026-01-15', toDay: '2026-01-15', after: null, limit: 10 };
      const rows = await tenant.usage(page);
      const day = { day: '2026-01-15', model: 'model-1', keyId: 'key-1' };
      const promises = { prefixPromised: 0, prefixBroken: 0 };
      assert.deepEqual(rows, [
        { ...day, requests: 1, usage, costNanoUsd: 11_904_928, ...promises },
      ]);
      assert.deepEqual(await tenant.usage({ ...page, after: day }), []);
      assert.deepEqual(await tenant.audit(), []);
    },
  },
  {
    name: 'admissions that race for the balance get exactly what fits',
    async run(db) {
      const { tenant } = await openTenant(db);
      const ids = Array.from({ length: 100 }, (_, index) => `r${index}`);
      const results = await Promise.all(ids.map((id) => tenant.admit(admitInput(id))));
      const admitted = results.filter(({ kind }) => kind === 'admitted').length;
      assert.equal(admitted, Math.floor(10_500_000 / sampleHold));
      assert.deepEqual(await tenant.audit(), []);
    },
  },
  {
    name: 'granted credit is spent before topped-up credit, and a void returns all of the hold',
    async run(db) {
      const { tenant } = await openTenant(db);
      for (const id of ['r1', 'r2', 'r3']) await tenant.admit(admitInput(id));
      await tenant.settle(settleInput('r1'));
      await tenant.settle(settleInput('r2', { outcome: 'failed', usage: null }));
      await tenant.settle(settleInput('r3', { usage: usageOf({ inputUncached: 1_000 }) }));
      const granted = 500_000 - sampleCost - 280_000;
      assert.deepEqual(await tenant.balance(), { granted, toppedUp: 10_000_000, held: 0 });
      await tenant.admit(admitInput('r4'));
      await tenant.settle(settleInput('r4', { usage: usageOf({ inputUncached: 1_000 }) }));
      const toppedUp = 10_000_000 - (280_000 - granted);
      assert.deepEqual(await tenant.balance(), { granted: 0, toppedUp, held: 0 });
      assert.deepEqual(await tenant.audit(), []);
    },
  },
];

/** An error's own words and its causes': drivers wrap what SQLite says. */
function inspected(error: unknown): string {
  return error instanceof Error ? `${error.message} ${inspected(error.cause)}` : '';
}
