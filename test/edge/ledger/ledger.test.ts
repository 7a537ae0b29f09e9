import { expect, test } from 'vitest';
import type { LedgerEntry, UsageCursor, UsageRow } from '../../../edge/tenant/report-contract.ts';
import type { SettleInput } from '../../../edge/tenant/settlement-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import {
  addKey,
  admitInput,
  sampleCost,
  sampleHold,
  settleInput,
  usageOf,
} from '../../support/edge/tenant-samples.ts';

async function funded(balance: { granted?: number; toppedUp?: number }) {
  const opened = openTestTenant();
  await addKey(opened.tenant);
  if (balance.granted) {
    await opened.tenant.credit({
      kind: 'granted',
      amountNanoUsd: balance.granted,
      source: 'grant',
      note: '',
    });
  }
  if (balance.toppedUp) {
    await opened.tenant.credit({
      kind: 'topped-up',
      amountNanoUsd: balance.toppedUp,
      source: 'pay',
      note: '',
    });
  }
  return opened;
}

async function lastEntry(tenant: Tenant): Promise<LedgerEntry> {
  const last = (await tenant.entries({ afterId: 0, limit: 1_000 })).at(-1);
  if (last === undefined) throw new Error('no entries');
  return last;
}

test('a request that the balance does not cover is refused with both figures', async () => {
  const { tenant } = await funded({ granted: sampleHold - 1 });
  expect(await tenant.admit(admitInput('r1'))).toMatchObject({
    kind: 'refused',
    reason: {
      kind: 'no-balance',
      availableNanoUsd: sampleHold - 1,
      neededNanoUsd: sampleHold,
    },
  });
  expect(await tenant.balance()).toMatchObject({ held: 0 });
});

test('a balance of exactly the hold admits once', async () => {
  const { tenant } = await funded({ granted: 1, toppedUp: sampleHold - 1 });
  expect((await tenant.admit(admitInput('r1'))).kind).toBe('admitted');
  expect((await tenant.admit(admitInput('r2'))).kind).toBe('refused');
  await tenant.settle(settleInput('r1'));
  expect(await tenant.balance()).toEqual({
    granted: 0,
    toppedUp: sampleHold - sampleCost,
    held: 0,
  });
});

test('the first settlement stands, whatever comes after it', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  const first = await tenant.settle(settleInput('r1'));
  const later = [
    settleInput('r1', { usage: null }),
    settleInput('r1', { usage: usageOf({ outputText: 100 }) }),
  ];
  for (const input of later) {
    expect(await tenant.settle(input)).toEqual({ ...first, first: false });
  }
  await tenant.admit(admitInput('r2'));
  await tenant.settle(settleInput('r2', { usage: null, outcome: 'failed' }));
  const voided = await tenant.settle(settleInput('r2'));
  expect(voided).toEqual({ costNanoUsd: 0, usage: usageOf(), first: false, excessNanoUsd: 0 });
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 1e9 - sampleCost, held: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('a request that was never admitted cannot be settled', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await expect(tenant.settle(settleInput('nobody'))).rejects.toThrow(/was admitted/);
});

test('a request id is admitted once, even after it was settled', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  await expect(tenant.admit(admitInput('r1'))).rejects.toThrow(
    'UNIQUE constraint failed: entry.request_id',
  );
  await tenant.settle(settleInput('r1'));
  await expect(tenant.admit(admitInput('r1'))).rejects.toThrow(
    'UNIQUE constraint failed: entry.request_id',
  );
  expect(await tenant.audit()).toEqual([]);
});

test('usage that costs more than the hold is billed at the hold, and the excess is shown', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  const usage = usageOf({ inputUncached: 1_000, outputText: 101 });
  const settled = await tenant.settle(settleInput('r1', { usage }));
  expect(settled).toEqual({ costNanoUsd: sampleHold, usage, first: true, excessNanoUsd: 420 });
  expect((await lastEntry(tenant)).note).toBe('cost exceeded the hold by 0.00000042 USD');
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 1e9 - sampleHold, held: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('usage that is no usage settles nothing and leaves the hold open', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  const usage = usageOf({ outputText: -1 });
  await expect(tenant.settle(settleInput('r1', { usage }))).rejects.toThrow(/integers from 0/);
  expect(await tenant.openHolds(0)).toHaveLength(1);
  expect(await tenant.audit()).toEqual([]);
});

test('the price in force at admission is the price of the settlement', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  const price = {
    id: 'night',
    inputCached: 1_000_000,
    inputUncached: 2_000_000,
    output: 3_000_000,
  };
  await tenant.admit(admitInput('r1', { price }));
  await tenant.settle(settleInput('r1', { usage: usageOf({ inputCached: 1, outputText: 1 }) }));
  expect(await lastEntry(tenant)).toMatchObject({ priceId: 'night', amountNanoUsd: -4 });
});

test('a credit counts once per source', async () => {
  const { tenant } = await funded({});
  const credit = { kind: 'topped-up', amountNanoUsd: 5, source: 'evt_1', note: 'card' } as const;
  expect(await tenant.credit(credit)).toBe(true);
  expect(await tenant.credit(credit)).toBe(false);
  expect(await tenant.credit({ ...credit, kind: 'granted', amountNanoUsd: 9 })).toBe(false);
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 5, held: 0 });
});

test.each([0, -5, 0.5, 2 ** 53])('a credit of %s is refused', async (amountNanoUsd) => {
  const { tenant } = await funded({});
  const credit = { kind: 'granted', amountNanoUsd, source: 'a', note: '' } as const;
  await expect(tenant.credit(credit)).rejects.toThrow(/more than 0/);
});

test('a refund returns to where the money came from, the last spent first, and never more', async () => {
  const { tenant } = await funded({ granted: 50_000, toppedUp: 1_000_000 });
  await tenant.admit(admitInput('r1'));
  await tenant.settle(settleInput('r1'));
  const posted = await lastEntry(tenant);
  expect([posted.grantedNanoUsd, posted.toppedUpNanoUsd]).toEqual([-50_000, -27_000]);

  const refund = (amountNanoUsd: number) =>
    tenant.correct({ entryId: posted.id, amountNanoUsd, note: 'slow' });
  expect(await refund(20_000)).toMatchObject({
    kind: 'correction',
    refersTo: posted.id,
    amountNanoUsd: 20_000,
    grantedNanoUsd: 0,
    toppedUpNanoUsd: 20_000,
    note: 'slow',
  });
  const rest = await refund(57_000);
  expect([rest.grantedNanoUsd, rest.toppedUpNanoUsd]).toEqual([50_000, 7_000]);
  await expect(refund(1)).rejects.toThrow(/took 0.00 USD/);
  expect(await tenant.balance()).toEqual({ granted: 50_000, toppedUp: 1_000_000, held: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('a credit can be taken back as far as it goes and as far as it is not held', async () => {
  const { tenant } = await funded({ granted: 100_000, toppedUp: 300_000 });
  const credits = await tenant.entries({ afterId: 0, limit: 10 });
  const toppedUp = credits[1]?.id ?? 0;
  const take = (entryId: number, amount: number) =>
    tenant.correct({ entryId, amountNanoUsd: -amount, note: 'charged back' });
  await expect(take(toppedUp, 300_001)).rejects.toThrow(/gave 0.0003 USD/);
  await tenant.admit(admitInput('r1'));
  await expect(take(toppedUp, 300_000)).rejects.toThrow(/available balance does not cover/);
  await take(toppedUp, 78_000);
  expect(await tenant.balance()).toEqual({ granted: 100_000, toppedUp: 222_000, held: sampleHold });
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  await take(toppedUp, 222_000);
  expect(await tenant.balance()).toEqual({ granted: 100_000, toppedUp: 0, held: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('what was spent of a credit comes out of the other balance when it is taken back', async () => {
  const { tenant } = await funded({ granted: 322_000, toppedUp: 1_000_000 });
  const grant = (await tenant.entries({ afterId: 0, limit: 1 }))[0]?.id ?? 0;
  await tenant.admit(admitInput('r1'));
  await tenant.settle(settleInput('r1'));
  const taken = await tenant.correct({ entryId: grant, amountNanoUsd: -322_000, note: 'abuse' });
  expect([taken.grantedNanoUsd, taken.toppedUpNanoUsd]).toEqual([-245_000, -77_000]);
});

test('a charge that was forgotten can be made good against the void', async () => {
  const { tenant } = await funded({ granted: 1_000, toppedUp: 1_000_000 });
  await tenant.admit(admitInput('r1'));
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  const entryId = (await lastEntry(tenant)).id;
  await tenant.correct({ entryId, amountNanoUsd: -5_000, note: 'found in the journal' });
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 996_000, held: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('only credits, postings and voids can be corrected, and only by an amount', async () => {
  const { tenant } = await funded({ toppedUp: 1_000_000 });
  await tenant.admit(admitInput('r1'));
  const pending = await lastEntry(tenant);
  const note = '';
  const correct = (entryId: number, amountNanoUsd: number) =>
    tenant.correct({ entryId, amountNanoUsd, note });
  await expect(correct(pending.id, 1)).rejects.toThrow(/a pending entry cannot/);
  await expect(correct(999, 1)).rejects.toThrow(/no entry 999/);
  await expect(correct(1, 0)).rejects.toThrow(/is an amount/);
  await expect(correct(1, 0.5)).rejects.toThrow(/is an amount/);
  const correction = await correct(1, 5);
  await expect(correct(correction.id, 1)).rejects.toThrow(/a correction entry cannot/);
});

test('holds are listed when they are old enough, with the worker that may know more', async () => {
  const { tenant, clock } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  await tenant.placed({
    requestId: 'r1',
    worker: 'w1',
    epoch: 3,
    workerUrl: 'http://w1',
    chain: [],
  });
  clock.advance(60_000);
  await tenant.admit(admitInput('r2'));
  const openedAtMs = clock.nowMs() - 60_000;
  expect(await tenant.openHolds(60_000)).toEqual([
    { requestId: 'r1', worker: 'w1', workerUrl: 'http://w1', openedAtMs },
  ]);
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  expect(await tenant.openHolds(60_000)).toEqual([]);
  expect(await tenant.openHolds(0)).toHaveLength(1);
});

test('a hold opened under a clock that ran far ahead is listed and can be voided', async () => {
  const { tenant, clock } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  clock.advance(-86_400_000);
  expect(await tenant.openHolds(600_000)).toHaveLength(1);
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  expect(await tenant.balance()).toEqual({ granted: 0, toppedUp: 1e9, held: 0 });
});

test('a placement that arrives after the settlement changes nothing', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  await tenant.settle(settleInput('r1'));
  const chain = [{ key: '00'.repeat(16), bytes: 2_048 }];
  await tenant.placed({ requestId: 'r1', worker: 'w', epoch: 1, workerUrl: 'http://w', chain });
  expect(await tenant.prefixHits(chain)).toEqual([]);
});

test('entries are exported page by page, each once and in order', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  for (let index = 0; index < 10; index++) {
    await tenant.admit(admitInput(`r${index}`));
    await tenant.settle(settleInput(`r${index}`));
  }
  const ids: number[] = [];
  for (;;) {
    const page = await tenant.entries({ afterId: ids.at(-1) ?? 0, limit: 6 });
    ids.push(...page.map(({ id }) => id));
    if (page.length < 6) break;
  }
  expect(ids).toEqual(Array.from({ length: 21 }, (_, index) => index + 1));
});

test('usage is rolled up by day, model and key, and a void is no usage', async () => {
  const { tenant, clock } = await funded({ toppedUp: 1e9 });
  await addKey(tenant, 'key-2');
  const other = { key: { ...admitInput('r').key, keyId: 'key-2' } };
  const requests = [
    admitInput('r1'),
    admitInput('r2'),
    admitInput('r3', { model: 'model-2' }),
    admitInput('r4', other),
  ];
  for (const request of requests) {
    await tenant.admit(request);
    await tenant.settle(settleInput(request.requestId));
  }
  await tenant.admit(admitInput('r5'));
  await tenant.settle(settleInput('r5', { usage: null, outcome: 'failed' }));
  clock.advance(86_400_000);
  await tenant.admit(admitInput('r6'));
  await tenant.settle(settleInput('r6'));
  const january = { fromDay: '2026-01-01', toDay: '2026-01-31', after: null, limit: 100 };
  const days = await tenant.usage(january);
  expect(days.map((row) => [row.day, row.model, row.keyId, row.requests, row.costNanoUsd])).toEqual(
    [
      ['2026-01-15', 'model-1', 'key-1', 2, 2 * sampleCost],
      ['2026-01-15', 'model-1', 'key-2', 1, sampleCost],
      ['2026-01-15', 'model-2', 'key-1', 1, sampleCost],
      ['2026-01-16', 'model-1', 'key-1', 1, sampleCost],
    ],
  );
  expect(days[0]?.usage).toEqual(usageOf({ inputUncached: 400, outputText: 100 }));
  expect(await tenant.usage({ ...january, fromDay: '2026-01-16' })).toHaveLength(1);

  const paged: UsageRow[] = [];
  for (let after: UsageCursor | null = null; ;) {
    const page: UsageRow[] = await tenant.usage({ ...january, after, limit: 3 });
    paged.push(...page);
    const last = page.at(-1);
    if (last === undefined || page.length < 3) break;
    after = last;
  }
  expect(paged).toEqual(days);
});

test('the prefix index is held to what it promised, by the answers that were completed', async () => {
  const { tenant } = await funded({ toppedUp: 1e9 });
  const settle = async (
    id: string,
    bytes: number,
    cached: number,
    more: Partial<SettleInput> = {},
  ) => {
    await tenant.admit(admitInput(id));
    const usage = usageOf({ inputUncached: 100, inputCached: cached });
    await tenant.settle(settleInput(id, { predictedCachedBytes: bytes, usage, ...more }));
  };
  await settle('kept', 2_048, 512);
  await settle('broken', 2_048, 0);
  await settle('unpromised', 0, 64);
  await settle('nothing', 0, 0);
  await settle('aborted', 2_048, 0, { outcome: 'aborted' });
  await settle('void', 2_048, 0, { outcome: 'failed', usage: null });
  const page = { fromDay: '2026-01-01', toDay: '2026-12-31', after: null, limit: 10 };
  expect(await tenant.usage(page)).toMatchObject([
    { requests: 5, prefixPromised: 2, prefixBroken: 1 },
  ]);
  expect(await tenant.audit()).toEqual([]);
});

test('the audit names what does not agree', async () => {
  const { tenant, db } = await funded({ toppedUp: 1e9 });
  await tenant.admit(admitInput('r1'));
  expect(await tenant.audit()).toEqual([]);
  db.run('UPDATE account SET granted_nano_usd = 1');
  db.run('DELETE FROM hold');
  const problems = await tenant.audit();
  expect(problems).toContain('the granted balance is 1, and 0 by the entries');
  expect(problems).toContain(`the held amount is ${sampleHold}, and 0 by the entries`);
  expect(problems).toContain('request r1 is not either open or resolved once');
  expect(problems).toContain('the tenant counts 1 requests in flight, not 0');
});
