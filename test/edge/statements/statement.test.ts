/** Statements against the entries that they sum; fast-check prints the seed of a run that fails. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { calendarOf } from '../../../edge/calendar.ts';
import { costNanoUsd } from '../../../edge/money.ts';
import { makeStatement, totalOf } from '../../../edge/statements/statement.ts';
import type { LedgerEntry } from '../../../edge/tenant/report-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import {
  addKey,
  admitInput,
  price,
  sampleCost,
  sampleHold,
  secretHash,
  settleInput,
  usageOf,
} from '../../support/edge/tenant-samples.ts';

const zones = ['UTC', 'America/Los_Angeles', 'Pacific/Kiritimati'];
const keys = ['key-1', 'key-2'];
const call = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('admit' as const),
      id: fc.integer({ min: 0, max: 20 }),
      key: fc.constantFrom(...keys),
      model: fc.constantFrom('model-1', 'model-2'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      id: fc.integer({ min: 0, max: 20 }),
      cached: fc.nat(900),
      output: fc.nat(99),
      isVoid: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('credit' as const),
      to: fc.constantFrom('granted' as const, 'topped-up' as const),
      amount: fc.integer({ min: 1, max: 2_000_000 }),
      source: fc.nat(9),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('correct' as const),
      entryId: fc.integer({ min: 1, max: 40 }),
      amount: fc.integer({ min: -600_000, max: 600_000 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      hours: fc.integer({ min: 1, max: 900 }),
    }),
  },
);
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

async function perform(opened: ReturnType<typeof openTestTenant>, one: Call): Promise<void> {
  const { tenant, clock } = opened;
  switch (one.kind) {
    case 'admit': {
      const key = { tenant: 'tenant-1', keyId: one.key, secretHash };
      await tenant
        .admit(admitInput(`request-${one.id}`, { key, model: one.model }))
        .catch(() => {});
      return;
    }
    case 'settle': {
      const counts = { inputCached: one.cached, inputUncached: 100, outputText: one.output };
      const usage = one.isVoid ? null : usageOf(counts);
      await tenant.settle(settleInput(`request-${one.id}`, { usage })).catch(() => {});
      return;
    }
    case 'credit': {
      const credit = { kind: one.to, amountNanoUsd: one.amount, source: `source-${one.source}` };
      await tenant.credit({ ...credit, note: '' });
      return;
    }
    case 'correct': {
      const correction = { entryId: one.entryId, amountNanoUsd: one.amount, note: 'a test' };
      await tenant.correct(correction).catch(() => {});
      return;
    }
    case 'wait':
      clock.advance(one.hours * 3_600_000);
  }
}

/** Everything that a statement says, added up entry by entry. */
function naively(entries: readonly LedgerEntry[], range: { fromMs: number; toMs: number }) {
  const moving = entries.filter(({ kind }) => kind !== 'pending');
  const sum = (some: readonly LedgerEntry[]) =>
    some.reduce((total, { amountNanoUsd }) => total + amountNanoUsd, 0);
  const during = moving.filter(
    ({ createdAtMs }) => createdAtMs >= range.fromMs && createdAtMs < range.toMs,
  );
  const before = entries.filter(({ createdAtMs }) => createdAtMs < range.toMs);
  const open = before.filter(
    ({ id, kind }) =>
      kind === 'pending' &&
      !before.some((other) => other.kind !== 'correction' && other.refersTo === id),
  );
  const posted = during.filter(({ kind }) => kind === 'posted');
  const byKey = keys.flatMap((keyId) =>
    ['model-1', 'model-2'].map((model) => ({
      name: `${model} ${keyId}`,
      cost: 0 - sum(posted.filter((each) => each.keyId === keyId && each.model === model)),
    })),
  );
  return {
    opening: sum(moving.filter(({ createdAtMs }) => createdAtMs < range.fromMs)),
    credits: sum(during.filter(({ kind }) => kind === 'credit')),
    corrections: sum(during.filter(({ kind }) => kind === 'correction')),
    spend: Object.fromEntries(
      byKey.filter(({ cost }) => cost > 0).map(({ name, cost }) => [name, cost]),
    ),
    closing: sum(moving.filter(({ createdAtMs }) => createdAtMs < range.toMs)),
    held: { count: open.length, amountNanoUsd: sum(open) },
  };
}

async function stated(tenant: Tenant, asked: { month: string; timeZone: string; nowMs: number }) {
  const statement = await makeStatement(tenant, { tenantId: 'tenant-1', ...asked });
  const { credits, corrections, spend } = statement;
  const sum = (rows: readonly Parameters<typeof totalOf>[0][]) =>
    rows.reduce((total, row) => total + totalOf(row), 0);
  const costs = spend.map((row) => [`${row.model} ${row.keyId}`, 0 - totalOf(row)] as const);
  return {
    statement,
    sums: {
      opening: totalOf(statement.opening),
      credits: sum(credits),
      corrections: sum(corrections),
      spend: Object.fromEntries(costs.filter(([, cost]) => cost > 0)),
      closing: totalOf(statement.closing),
      held: statement.openHolds,
    },
  };
}

test('every statement is the sum of its entries, and each month opens as the one before closed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(call, { maxLength: 60 }),
      fc.constantFrom(...zones),
      async (calls, timeZone) => {
        const opened = openTestTenant();
        const { tenant, clock } = opened;
        for (const keyId of keys) await addKey(tenant, keyId);
        for (const one of calls) await perform(opened, one);

        const entries = await tenant.entries({ afterId: 0, limit: 1_000 });
        const nowMs = clock.nowMs();
        const { startOfMonth } = calendarOf(timeZone);
        let closing = 0;
        for (let index = 0; ; index++) {
          const [year, month] = [2026 + Math.floor(index / 12), (index % 12) + 1];
          const fromMs = startOfMonth({ year, month });
          if (fromMs > nowMs) break;
          const text = `${year}-${String(month).padStart(2, '0')}`;
          const { sums, statement } = await stated(tenant, { month: text, timeZone, nowMs });
          const toMs = Math.min(startOfMonth({ year, month: month + 1 }), nowMs + 1);
          expect(sums).toEqual(naively(entries, { fromMs, toMs }));
          expect(sums.opening).toBe(closing);
          expect(statement.isComplete).toBe(toMs <= nowMs);
          closing = sums.closing;
        }
        const { granted, toppedUp } = await tenant.balance();
        expect(closing).toBe(granted + toppedUp);
      },
    ),
    { numRuns: 60 },
  );
});

test('a ledger longer than one part is summed whole, its open holds across parts too', async () => {
  const { tenant, clock } = openTestTenant();
  await addKey(tenant);
  const count = 2_700;
  const amountNanoUsd = (count + 1) * sampleHold;
  await tenant.credit({ kind: 'granted', amountNanoUsd, source: 'a', note: '' });
  await tenant.admit(admitInput('open'));
  for (let index = 0; index < count; index++) await tenant.admit(admitInput(`request-${index}`));
  for (let index = 0; index < count; index++) await tenant.settle(settleInput(`request-${index}`));
  const asked = { month: '2026-01', timeZone: 'UTC', nowMs: clock.nowMs() };
  const { statement } = await stated(tenant, asked);
  expect(statement.spend).toMatchObject([
    { requests: count, grantedNanoUsd: -count * sampleCost, inputUncached: 200 * count },
  ]);
  expect(statement.openHolds).toEqual({ count: 1, amountNanoUsd: sampleHold });
});

test('what the cache saved is the difference to the price of uncached tokens', async () => {
  const { tenant, clock } = openTestTenant();
  await addKey(tenant);
  await tenant.credit({ kind: 'granted', amountNanoUsd: 10 ** 9, source: 'a', note: '' });
  await tenant.admit(admitInput('one'));
  const usage = usageOf({ inputCached: 640, inputUncached: 100, outputText: 7 });
  await tenant.settle(settleInput('one', { usage }));
  const asked = { month: '2026-01', timeZone: 'UTC', nowMs: clock.nowMs() };
  const { statement } = await stated(tenant, asked);
  const uncached = { ...usage, inputCached: 0, inputUncached: 740 };
  expect(statement.spend[0]?.savedNanoUsd).toBe(
    costNanoUsd(uncached, price) - costNanoUsd(usage, price),
  );
});
