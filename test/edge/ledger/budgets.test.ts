import { expect, test } from 'vitest';
import type { BudgetTerms } from '../../../edge/tenant/budget-contract.ts';
import type { AdmitInput, AdmitResult } from '../../../edge/tenant/admission-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import {
  operator,
  addKey,
  admitInput,
  noLimits,
  price,
  sampleCost,
  sampleHold,
  secretHash,
  settleInput,
} from '../../support/edge/tenant-samples.ts';

const dayMs = 24 * 60 * 60_000;

function daily(limitNanoUsd: number, zone = 'UTC'): BudgetTerms {
  return { zone, windows: [{ period: 'day', limitNanoUsd }] };
}

/** A tenant with much money, and a key with that budget. */
async function openWithBudget(budget: BudgetTerms | null = null) {
  const opened = openTestTenant();
  const { tenant } = opened;
  await tenant.createKey(
    {
      keyId: 'key-1',
      secretHash,
      label: '',
      scopes: ['inference'],
      limits: noLimits,
      budget,
    },
    operator,
  );
  await tenant.credit({ kind: 'granted', amountNanoUsd: 1e12, source: 'a', note: '' });
  return opened;
}

const naming = (...names: string[]) => ({ budgets: { names, trimTo: null } });

async function reasonOf(tenant: Tenant, id: string, change: Partial<AdmitInput> = {}) {
  const result = await tenant.admit(admitInput(id, change));
  return result.kind === 'refused' ? result.reason : result.kind;
}

function admitted(result: AdmitResult) {
  if (result.kind !== 'admitted') throw new Error(`it was ${result.kind}`);
  return result;
}

test('a hold counts in every window of its key, and its rest comes back at settle', async () => {
  const { tenant } = await openWithBudget({
    zone: 'UTC',
    windows: [
      { period: 'day', limitNanoUsd: sampleHold },
      { period: 'month', limitNanoUsd: 2 * sampleHold },
      { period: 'ever', limitNanoUsd: 3 * sampleHold },
    ],
  });
  await tenant.admit(admitInput('r1'));
  const running = await tenant.key('key-1');
  expect(running?.budget?.windows.map((each) => each.heldNanoUsd)).toEqual([
    sampleHold,
    sampleHold,
    sampleHold,
  ]);
  await tenant.settle(settleInput('r1'));
  const { budget } = (await tenant.key('key-1')) ?? {};
  for (const window of budget?.windows ?? []) {
    expect([window.heldNanoUsd, window.spentNanoUsd]).toEqual([0, sampleCost]);
  }
  expect(await tenant.audit()).toEqual([]);
});

test('the window with the least left refuses, and says what is left and when it begins anew', async () => {
  const { tenant } = await openWithBudget({
    zone: 'UTC',
    windows: [
      { period: 'month', limitNanoUsd: 10 * sampleHold },
      { period: 'day', limitNanoUsd: sampleHold + 5 },
    ],
  });
  await tenant.admit(admitInput('r1'));
  expect(await reasonOf(tenant, 'r2')).toEqual({
    kind: 'budget',
    name: null,
    period: 'day',
    leftNanoUsd: 5,
    neededNanoUsd: sampleHold,
    resetsAtMs: Date.UTC(2026, 0, 16),
  });
  expect((await tenant.balance()).held).toBe(sampleHold);
  await tenant.settle(settleInput('r1', { usage: null, outcome: 'failed' }));
  expect(await reasonOf(tenant, 'r2')).toBe('admitted');
});

test('a request that is settled after midnight counts in the day in which it was admitted', async () => {
  const { tenant, clock } = await openWithBudget(daily(sampleHold));
  await tenant.admit(admitInput('r1'));
  clock.advance(dayMs);
  expect(await reasonOf(tenant, 'r2')).toBe('admitted');
  await tenant.settle(settleInput('r1'));
  const today = (await tenant.key('key-1'))?.budget?.windows[0];
  expect([today?.heldNanoUsd, today?.spentNanoUsd]).toEqual([sampleHold, 0]);
  clock.advance(-dayMs);
  const yesterday = (await tenant.key('key-1'))?.budget?.windows[0];
  expect([yesterday?.heldNanoUsd, yesterday?.spentNanoUsd]).toEqual([0, sampleCost]);
  expect(await tenant.audit()).toEqual([]);
});

test('a request counts in its key and in all budgets that it names, or in none', async () => {
  const { tenant } = await openWithBudget(daily(10 * sampleHold));
  await tenant.setBudget('session', daily(10 * sampleHold));
  await tenant.setBudget('agent', daily(sampleHold));
  expect(await reasonOf(tenant, 'r1', naming('session', 'agent'))).toBe('admitted');
  expect(await reasonOf(tenant, 'r2', naming('session', 'agent'))).toMatchObject({
    kind: 'budget',
    name: 'agent',
    leftNanoUsd: 0,
  });
  const held = async (name: string) => (await tenant.budget(name))?.windows[0]?.heldNanoUsd;
  expect([await held('session'), await held('agent')]).toEqual([sampleHold, sampleHold]);
  expect(await reasonOf(tenant, 'r3', naming('session'))).toBe('admitted');
  const entries = await tenant.entries({ afterId: 0, limit: 10 });
  expect(entries.find((each) => each.requestId === 'r1')?.budgets).toEqual(['session', 'agent']);
});

test('a budget that does not exist refuses with the nearest name, and holds nothing', async () => {
  const { tenant } = await openWithBudget();
  await tenant.setBudget('session-7', daily(1));
  expect(await reasonOf(tenant, 'r1', naming('sesion-7'))).toEqual({
    kind: 'no-budget',
    name: 'sesion-7',
    nearest: 'session-7',
  });
  expect((await tenant.balance()).held).toBe(0);
});

test('changed limits keep what was spent, and a zone that changes goes on with it', async () => {
  const { tenant } = await openWithBudget();
  await tenant.setBudget('b', daily(sampleHold));
  await tenant.admit(admitInput('r1', naming('b')));
  await tenant.settle(settleInput('r1'));
  const raised = await tenant.setBudget('b', daily(2 * sampleHold, 'Asia/Tokyo'));
  expect(raised).toMatchObject({ kind: 'changed' });
  expect(await tenant.budget('b')).toMatchObject({
    zone: 'Asia/Tokyo',
    windows: [
      {
        limitNanoUsd: 2 * sampleHold,
        spentNanoUsd: sampleCost,
        startMs: Date.UTC(2026, 0, 14, 15),
        resetsAtMs: Date.UTC(2026, 0, 15, 15),
      },
    ],
  });
  await tenant.setBudget('b', daily(0));
  expect(await reasonOf(tenant, 'r2', naming('b'))).toMatchObject({ leftNanoUsd: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('a budget that is removed while a request runs begins anew under its name', async () => {
  const { tenant } = await openWithBudget();
  await tenant.setBudget('b', daily(sampleHold));
  await tenant.admit(admitInput('r1', naming('b')));
  expect(await tenant.removeBudget('b')).toBe(true);
  expect(await tenant.removeBudget('b')).toBe(false);
  await tenant.setBudget('b', daily(sampleHold));
  await tenant.settle(settleInput('r1'));
  expect((await tenant.budget('b'))?.windows[0]).toMatchObject({ heldNanoUsd: 0, spentNanoUsd: 0 });
  expect(await tenant.audit()).toEqual([]);
});

test('a tenant has a bounded number of budgets', async () => {
  const { tenant } = await openWithBudget();
  for (let index = 0; index < 1_000; index++) await tenant.setBudget(`b${index}`, daily(1));
  expect(await tenant.setBudget('more', daily(1))).toEqual({ kind: 'too-many', budgetsMax: 1_000 });
  expect(await tenant.setBudget('b7', daily(2))).toMatchObject({ kind: 'changed' });
});

test('a request that may be shorter is cut to what is left, and then refused', async () => {
  const { tenant } = await openWithBudget();
  const promptHold = 1_000 * 280;
  await tenant.setBudget('b', daily(promptHold + 50 * 420 + 419));
  const trim = { budgets: { names: ['b'], trimTo: 1 } };
  const first = admitted(await tenant.admit(admitInput('r1', trim)));
  expect(first).toMatchObject({ outputTokensMax: 50, holdNanoUsd: promptHold + 50 * 420 });
  expect(await reasonOf(tenant, 'r2', trim)).toMatchObject({
    kind: 'budget',
    leftNanoUsd: 419,
    neededNanoUsd: promptHold + 420,
  });
});

test('answers of one request are cut alike, and the balance cuts as a budget does', async () => {
  const { tenant } = openTestTenant();
  await addKey(tenant);
  const amountNanoUsd = 1_000 * 280 + 50 * 420;
  await tenant.credit({ kind: 'granted', amountNanoUsd, source: 'a', note: '' });
  const trim = { budgets: { names: [], trimTo: 3 } };
  const first = admitted(await tenant.admit(admitInput('r1', trim)));
  expect(first.outputTokensMax).toBe(48);
  expect(await reasonOf(tenant, 'r2', trim)).toMatchObject({ kind: 'no-balance' });
});

test('without output prices a trimmed answer is as long as was asked', async () => {
  const { tenant } = await openWithBudget(daily(280_000));
  const free = { price: { ...price, output: 0 }, budgets: { names: [], trimTo: 1 } };
  expect(admitted(await tenant.admit(admitInput('r1', free))).outputTokensMax).toBe(100);
});

test('an expired key is refused from its time on', async () => {
  const { tenant, clock } = await openWithBudget();
  const expiresAtMs = clock.nowMs() + 1_000;
  await tenant.updateKey('key-1', { expiresAtMs }, operator);
  expect(await reasonOf(tenant, 'r1')).toBe('admitted');
  clock.advance(1_000);
  expect(await reasonOf(tenant, 'r2')).toEqual({ kind: 'expired-key', expiredAtMs: expiresAtMs });
  const { key } = admitInput('r2');
  expect(await tenant.authorize(key, 'inference')).toMatchObject({ kind: 'expired-key' });
  await tenant.updateKey('key-1', { expiresAtMs: null }, operator);
  expect(await reasonOf(tenant, 'r2')).toBe('admitted');
});

test('a month that is over in one zone goes on in another in which it is not', async () => {
  const { tenant, clock } = await openWithBudget();
  const monthly = (zone: string): BudgetTerms => ({
    zone,
    windows: [{ period: 'month', limitNanoUsd: sampleHold }],
  });
  clock.advance(Date.UTC(2026, 2, 15) - clock.nowMs());
  await tenant.setBudget('b', monthly('Europe/London'));
  await tenant.admit(admitInput('r1', naming('b')));
  await tenant.settle(settleInput('r1'));
  // It is half past midnight in London. Both months of March begin at the same instant.
  clock.advance(Date.UTC(2026, 2, 31, 23, 30) - clock.nowMs());
  await tenant.setBudget('b', monthly('UTC'));
  expect(await reasonOf(tenant, 'r2', naming('b'))).toMatchObject({
    kind: 'budget',
    leftNanoUsd: sampleHold - sampleCost,
    resetsAtMs: Date.UTC(2026, 3, 1),
  });
  clock.advance(30 * 60_000);
  expect(await reasonOf(tenant, 'r3', naming('b'))).toBe('admitted');
  expect(await tenant.audit()).toEqual([]);
});

test('a key runs its models alone, whatever name they were asked for by', async () => {
  const { tenant } = await openWithBudget();
  await tenant.updateKey('key-1', { models: ['model-2'] }, operator);
  expect(await reasonOf(tenant, 'r1', { alias: 'model-2' })).toEqual({
    kind: 'model-not-allowed',
    model: 'model-1',
    models: ['model-2'],
  });
  expect(await reasonOf(tenant, 'r1', { model: 'model-2' })).toBe('admitted');
});

test('a lease holds the prompt and its first output, and grows within balance and budget', async () => {
  const { tenant } = await openWithBudget(daily(sampleHold));
  const lease = { outputTokens: 10 };
  const first = admitted(await tenant.admit(admitInput('r1', { lease })));
  const leased = 1_000 * 280 + 10 * 420;
  expect(first).toMatchObject({ holdNanoUsd: leased, holdNanoUsdMax: sampleHold });
  const more = { requestId: 'r1', amountNanoUsd: 20 * 420, leastNanoUsd: 1 };
  expect(await tenant.extend(more)).toEqual({ kind: 'extended', holdNanoUsd: leased + 20 * 420 });
  expect(await tenant.extend({ ...more, amountNanoUsd: 1e9 })).toEqual({
    kind: 'extended',
    holdNanoUsd: sampleHold,
  });
  expect(await tenant.extend(more)).toMatchObject({
    kind: 'exhausted',
    lacks: { kind: 'budget', period: 'day', leftNanoUsd: 0 },
  });
  expect((await tenant.balance()).held).toBe(sampleHold);
  expect(await tenant.audit()).toEqual([]);
  await tenant.settle(settleInput('r1'));
  expect(await tenant.extend(more)).toEqual({ kind: 'over' });
  expect((await tenant.balance()).held).toBe(0);
  expect(await tenant.audit()).toEqual([]);
});
