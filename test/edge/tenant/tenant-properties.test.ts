/** Random runs against the reference ledger; fast-check prints the seed of a run that fails. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { CrashingTenant } from '../../support/edge/crashing-tenant.ts';
import { ReferenceLedger } from '../../support/edge/tenant-reference.ts';
import {
  addKey,
  admitInput,
  chainOf,
  settleInput,
  usageOf,
} from '../../support/edge/tenant-samples.ts';

const request = fc.integer({ min: 0, max: 11 });
const amount = fc.integer({ min: 1, max: 2_000_000 });

/** One call, or several that arrive in one turn of the event loop and share a commit. */
const call = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('admit' as const), request, size: request }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('settle' as const), request, size: request }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('void' as const), request }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('place' as const), request }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('credit' as const),
      to: fc.constantFrom('granted' as const, 'topped-up' as const),
      amount,
      source: fc.integer({ min: 0, max: 9 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('correct' as const),
      entry: fc.integer({ min: 1, max: 40 }),
      amount: fc.integer({ min: -600_000, max: 600_000 }),
    }),
  },
);
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('calls' as const),
      calls: fc.array(call, { minLength: 1, maxLength: 8 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('expire' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('clock' as const),
      byMs: fc.constantFrom(-86_400_000, -1, 1, 700_000, 86_400_000, 40 * 365 * 86_400_000),
    }),
  },
);
type Call = typeof call extends fc.Arbitrary<infer T> ? T : never;

/** A request's id says its size, so that a repetition of it is the same request. */
const promptOf = (id: number) => 100 * (id + 1);
const holdOf = (id: number) => BigInt(promptOf(id) * 280 + 50 * 420);
const usageFor = (size: number) =>
  usageOf({ inputUncached: 90 * size, inputCached: 7 * size, outputText: 5 * size });
const costFor = (size: number) => BigInt(90 * size * 280 + 7 * size * 28 + 5 * size * 420);

/** Returns the call's answer, and the one that the reference demands. */
async function perform(
  tenant: Tenant,
  model: ReferenceLedger,
  one: Call,
): Promise<[unknown, unknown]> {
  switch (one.kind) {
    case 'admit': {
      const id = `r${one.request}`;
      const known = model.open.has(id) || model.settled.has(id);
      const covered = model.available() >= holdOf(one.request);
      const admitted = !covered ? 'no-balance' : known ? 'refused' : 'admitted';
      if (admitted === 'admitted') model.admit(id, holdOf(one.request));
      const input = admitInput(id, { promptTokensMax: promptOf(one.request), outputTokensMax: 50 });
      const answer = await tenant.admit({ ...input, prefixChain: chainOf(one.size, 3) }).then(
        (result) => (result.kind === 'refused' ? result.reason.kind : result.kind),
        () => 'refused',
      );
      return [answer, admitted];
    }
    case 'settle':
    case 'void': {
      const id = `r${one.request}`;
      const voided = one.kind === 'void';
      const billed = model.settle(id, voided ? null : costFor(one.size));
      const usage = voided ? null : usageFor(one.size);
      const answer = await tenant
        .settle(settleInput(id, { usage, worker: 'w1', epoch: 1, confirmedChain: chainOf(1, 2) }))
        .then(
          ({ costNanoUsd }) => BigInt(costNanoUsd),
          () => -1n,
        );
      return [answer, billed];
    }
    case 'place': {
      const chain = chainOf(one.request, 4);
      const placed = {
        requestId: `r${one.request}`,
        worker: 'w1',
        epoch: 1,
        workerUrl: 'http://w1',
      };
      return [await tenant.placed({ ...placed, chain }), undefined];
    }
    case 'credit': {
      const source = `evt_${one.source}`;
      const credited = model.credit(one.to, BigInt(one.amount), source);
      const input = { kind: one.to, amountNanoUsd: one.amount, source, note: '' };
      return [await tenant.credit(input), credited];
    }
    case 'correct': {
      if (one.amount === 0) return [0, 0];
      const corrected = model.correct(one.entry, BigInt(one.amount));
      const input = { entryId: one.entry, amountNanoUsd: one.amount, note: '' };
      return [
        await tenant.correct(input).then(
          () => true,
          () => false,
        ),
        corrected,
      ];
    }
  }
}

async function agrees(tenant: Tenant, model: ReferenceLedger): Promise<void> {
  const { granted, toppedUp, held } = await tenant.balance();
  expect([BigInt(granted), BigInt(toppedUp), BigInt(held)]).toEqual([
    model.granted,
    model.toppedUp,
    model.held(),
  ]);
  expect(granted + toppedUp - held).toBeGreaterThanOrEqual(0);
}

test('money is conserved, never overdrawn, and each hold resolved once, whatever happens in between', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      const crashing = new CrashingTenant();
      const model = new ReferenceLedger();
      try {
        await addKey(crashing.tenant);
        model.credit('granted', 300_000n, 'welcome');
        model.credit('topped-up', 1_000_000n, 'card');
        const credit = { amountNanoUsd: 300_000, source: 'welcome', note: '' };
        await crashing.tenant.credit({ ...credit, kind: 'granted' });
        await crashing.tenant.credit({
          kind: 'topped-up',
          amountNanoUsd: 1e6,
          source: 'card',
          note: '',
        });
        for (const at of steps) {
          if (at.kind === 'clock') crashing.clock.advance(at.byMs);
          if (at.kind === 'crash') crashing.crash();
          if (at.kind === 'calls') {
            const answers = at.calls.map((one) => perform(crashing.tenant, model, one));
            for (const [answer, expected] of await Promise.all(answers))
              expect(answer).toEqual(expected);
          }
          if (at.kind === 'expire') {
            for (const { requestId } of await crashing.tenant.openHolds(600_000)) {
              model.settle(requestId, null);
              await crashing.tenant.settle(
                settleInput(requestId, { usage: null, outcome: 'failed' }),
              );
            }
          }
          await agrees(crashing.tenant, model);
        }
        expect(await crashing.tenant.audit()).toEqual([]);
        const entries = await crashing.tenant.entries({ afterId: 0, limit: 1_000 });
        expect(
          entries.map(({ kind, grantedNanoUsd, toppedUpNanoUsd }) => [
            kind,
            BigInt(grantedNanoUsd),
            BigInt(toppedUpNanoUsd),
          ]),
        ).toEqual(model.entries.map(({ kind, granted, toppedUp }) => [kind, granted, toppedUp]));
      } finally {
        crashing.remove();
      }
    }),
    { numRuns: Number(process.env['SIFT_LEDGER_RUNS'] ?? 60) },
  );
});
