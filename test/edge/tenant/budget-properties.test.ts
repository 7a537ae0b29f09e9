/** Random runs against reference budgets; fast-check prints the seed of a run that fails. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { ReferenceBudgets } from '../../support/edge/budget-reference.ts';
import type { ReferenceLimit } from '../../support/edge/budget-reference.ts';
import { CrashingTenant } from '../../support/edge/crashing-tenant.ts';
import {
  operator,
  addKey,
  admitInput,
  settleInput,
  usageOf,
} from '../../support/edge/tenant-samples.ts';

const dayMs = 24 * 60 * 60_000;
const foreverMs = 1e15;
const promptHold = 1_000 * 280;
const perOutput = 420;

const request = fc.integer({ min: 0, max: 7 });
const tokens = fc.integer({ min: 0, max: 300 });
const call = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('admit' as const),
      request,
      most: tokens,
      lease: tokens,
      names: fc.subarray(['session', 'agent']),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('extend' as const),
      request,
      wanted: tokens,
      least: tokens,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('settle' as const), request, used: tokens }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('void' as const), request }) },
);
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('calls' as const),
      calls: fc.array(call, { minLength: 1, maxLength: 8 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('clock' as const),
      byMs: fc.constantFrom(-dayMs, -1, 1, 3_600_000, dayMs, 5 * dayMs),
    }),
  },
);

/** Ids of requests that were seen before are new ones, so that each is admitted once at most. */
class Requests {
  readonly #uses = new Map<number, number>();

  current(index: number): string {
    return `r${index}-${this.#uses.get(index) ?? 0}`;
  }

  next(index: number): string {
    this.#uses.set(index, (this.#uses.get(index) ?? 0) + 1);
    return this.current(index);
  }
}

interface Run {
  readonly tenant: Tenant;
  readonly model: ReferenceBudgets;
  readonly requests: Requests;
  readonly nowMs: number;
}

/** Returns the call's answer, and the one that the reference demands. */
async function perform({ tenant, model, requests, nowMs }: Run, one: Call): Promise<unknown[]> {
  const id = one.kind === 'admit' ? requests.next(one.request) : requests.current(one.request);
  switch (one.kind) {
    case 'admit': {
      const { most, names } = one;
      const lease = Math.min(one.lease, most);
      const hold = (output: number) => BigInt(promptHold + output * perOutput);
      const asked = { first: hold(lease), most: hold(most), names, nowMs };
      const expected = model.admit(id, asked);
      const result = await tenant.admit(
        admitInput(id, {
          outputTokensMax: most,
          lease: { outputTokens: lease },
          budgets: { names, trimTo: null },
        }),
      );
      return [result.kind === 'refused' ? result.reason.kind : result.kind, expected];
    }
    case 'extend': {
      const amountNanoUsd = one.wanted * perOutput;
      const leastNanoUsd = one.least * perOutput;
      const expected = model.extend(id, BigInt(amountNanoUsd), BigInt(leastNanoUsd));
      const result = await tenant.extend({ requestId: id, amountNanoUsd, leastNanoUsd });
      return [result.kind === 'extended' ? BigInt(result.holdNanoUsd) : null, expected];
    }
    case 'settle':
    case 'void': {
      const usage =
        one.kind === 'void' ? null : usageOf({ inputUncached: 900, outputText: one.used });
      const cost = usage && BigInt(900 * 280 + usage.outputText * perOutput);
      const expected = model.settle(id, cost);
      if (expected === null) return [null, null];
      const { costNanoUsd } = await tenant.settle(settleInput(id, { usage }));
      return [BigInt(costNanoUsd), expected];
    }
  }
}

const limits: readonly (ReferenceLimit & { readonly period: 'day' | 'ever' })[] = [
  { name: null, period: 'day', lengthMs: dayMs, limit: 2_000_000n },
  { name: null, period: 'ever', lengthMs: foreverMs, limit: 9_000_000n },
  { name: 'session', period: 'ever', lengthMs: foreverMs, limit: 1_500_000n },
  { name: 'agent', period: 'day', lengthMs: dayMs, limit: 900_000n },
];

function termsOf(name: string | null) {
  const windows = limits
    .filter((limit) => limit.name === name)
    .map(({ period, limit }) => ({ period, limitNanoUsd: Number(limit) }));
  return { zone: 'UTC', windows };
}

async function agrees(tenant: Tenant, model: ReferenceBudgets, nowMs: number): Promise<void> {
  const { granted, toppedUp, held } = await tenant.balance();
  expect([BigInt(granted + toppedUp), BigInt(held)]).toEqual([model.balance, model.held()]);
  expect(granted + toppedUp - held).toBeGreaterThanOrEqual(0);
  const budgets = new Map([
    [null, (await tenant.key('key-1'))?.budget],
    ...(await tenant.budgets()).map((each) => [each.name, each] as const),
  ]);
  for (const limit of limits) {
    const shown = budgets.get(limit.name)?.windows.find(({ period }) => period === limit.period);
    const window = model.windowAt(limit, nowMs);
    expect([shown?.heldNanoUsd, shown?.spentNanoUsd].map(Number).map(BigInt)).toEqual([
      window.held,
      window.spent,
    ]);
    expect(window.held + window.spent).toBeLessThanOrEqual(limit.limit);
  }
}

test('budgets and growing holds are exact in every window, whatever happens in between', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      const crashing = new CrashingTenant();
      const model = new ReferenceBudgets(6_000_000n, limits);
      const requests = new Requests();
      try {
        await addKey(crashing.tenant);
        await crashing.tenant.updateKey('key-1', { budget: termsOf(null) }, operator);
        for (const name of ['session', 'agent']) {
          await crashing.tenant.setBudget(name, termsOf(name));
        }
        const amountNanoUsd = 6_000_000;
        await crashing.tenant.credit({ kind: 'granted', amountNanoUsd, source: 'a', note: '' });
        for (const at of steps) {
          if (at.kind === 'clock') crashing.clock.advance(at.byMs);
          if (at.kind === 'crash') crashing.crash();
          const nowMs = crashing.clock.nowMs();
          if (at.kind === 'calls') {
            const run = { tenant: crashing.tenant, model, requests, nowMs };
            for (const [answer, expected] of await Promise.all(
              at.calls.map((one) => perform(run, one)),
            )) {
              expect(answer).toEqual(expected);
            }
          }
          await agrees(crashing.tenant, model, nowMs);
        }
        expect(await crashing.tenant.audit()).toEqual([]);
      } finally {
        crashing.remove();
      }
    }),
    { numRuns: Number(process.env['SIFT_LEDGER_RUNS'] ?? 40) },
  );
});
