/** Prices and limits under a clock that is set back and forth. */
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDirectoryDb, openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { cacheDirectory } from '../../../edge/directory/directory-cache.ts';
import { createDirectory } from '../../../edge/directory/directory.ts';
import { createKnownTime, parseLatestTime } from '../../../edge/directory/known-time.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import {
  addKey,
  admitInput,
  price,
  settleInput,
  testClock,
  usageOf,
} from '../../support/edge/tenant-samples.ts';

const dayMs = 86_400_000;
const startMs = Date.UTC(2026, 0, 15, 12);

function shop(latestMs: number | null = null) {
  const clock = testClock(startMs);
  const logged: object[] = [];
  const knownTime = createKnownTime({
    latestMs,
    log: (_, event, fields) => logged.push({ event, ...fields }),
  });
  const opened = openDirectoryDb(':memory:', { synchronous: 'NORMAL' });
  const directory = cacheDirectory(createDirectory(opened.db), {
    clock,
    ttlMs: Infinity,
    knownTime,
  });
  const add = (id: string, fromMs: number) =>
    directory.addPrice({ ...price, id, model: 'm', fromMs, window: null });
  const inForce = async () => (await directory.priceAt('m', clock.nowMs()))?.id ?? null;
  onTestFinished(() => opened.close());
  return { clock, logged, add, inForce };
}

describe('what the edge says of its clock', () => {
  const knownTime = createKnownTime({ latestMs: startMs, log: () => {} });

  test('is nothing while it is right, or as far behind as clocks are set by', () => {
    for (const behindMs of [-dayMs, 0, 60_000]) {
      expect(knownTime.warnings(startMs - behindMs)).toEqual([]);
    }
  });

  test('is which prices stand while it is behind, and nothing once it is set right', () => {
    const day = knownTime.warnings(startMs - dayMs);
    expect(day).toEqual([expect.stringMatching(/2026-01-15T12:00:00.000Z.*of that time stand/)]);
    expect(knownTime.warnings(startMs - 40 * dayMs)).toEqual([
      expect.stringContaining('prices go by the clock'),
    ]);
    expect(knownTime.warnings(startMs)).toEqual([]);
  });
});

describe('the price in force', () => {
  test('stays what it was when the clock goes back, with one warning', async () => {
    const { clock, logged, add, inForce } = shop();
    await add('old', startMs - 90 * dayMs);
    await add('new', startMs - 3_600_000);
    expect(await inForce()).toBe('new');
    clock.advance(-dayMs);
    for (let index = 0; index < 5; index++) expect(await inForce()).toBe('new');
    expect(logged).toHaveLength(1);
    expect(logged[0]).toMatchObject({ event: 'clock-went-back', behindMs: dayMs });
    clock.advance(2 * dayMs);
    expect(await inForce()).toBe('new');
    clock.advance(-dayMs);
    await inForce();
    expect(logged).toHaveLength(2);
  });

  test('stays over a restart of the edge, also of one that wakes up in 1970', async () => {
    for (const back of [dayMs, startMs]) {
      const { clock, add, inForce } = shop(startMs);
      await add('only', startMs - 3_600_000);
      clock.advance(-back);
      expect(await inForce()).toBe('only');
    }
  });

  test('is not the one of a year ahead once a clock that leapt there is back', async () => {
    const { clock, add, inForce } = shop();
    await add('now', startMs - dayMs);
    await add('next-year', startMs + 200 * dayMs);
    clock.advance(365 * dayMs);
    expect(await inForce()).toBe('next-year');
    clock.advance(-365 * dayMs);
    expect(await inForce()).toBe('now');
  });

  test('is none before the first price begins, on a clock that was never wrong', async () => {
    const { clock, add, inForce } = shop();
    await add('later', startMs + dayMs);
    expect(await inForce()).toBe(null);
    clock.advance(dayMs);
    expect(await inForce()).toBe('later');
  });

  test('is kept in words that are read again, and in no others', () => {
    expect(parseLatestTime(`${startMs}\n`)).toBe(startMs);
    for (const text of ['', 'x', '-1\n', '12', `${'9'.repeat(20)}\n`]) {
      expect(parseLatestTime(text)).toBe(null);
    }
  });
});

const jump = fc.constantFrom(-365, -1, -1 / 24, 1 / 24, 1, 365).map((days) => days * dayMs);
const step = fc.oneof(
  fc.record({ kind: fc.constant('jump' as const), byMs: jump }),
  fc.record({ kind: fc.constant('ask' as const), count: fc.integer({ min: 1, max: 8 }) }),
  fc.record({ kind: fc.constant('pass' as const), byMs: fc.integer({ min: 0, max: 90_000 }) }),
);

test('a minute after the last jump a tenant has all that its limits allow, and no more', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const clock = testClock(startMs);
      const opened = openTenantDb(':memory:', { synchronous: 'NORMAL' });
      try {
        const tenant = createTenant(opened.db, { clock });
        await addKey(tenant, 'key-1', { requestsPerMinute: 5 });
        await tenant.credit({ kind: 'granted', amountNanoUsd: 1e12, source: 's', note: '' });
        let asked = 0;
        const ask = async (): Promise<boolean> => {
          const id = `r${asked++}`;
          const { kind } = await tenant.admit(admitInput(id));
          if (kind !== 'admitted') return false;
          await tenant.settle(settleInput(id, { usage: usageOf({ outputText: 1 }) }));
          return true;
        };
        for (const at of steps) {
          if (at.kind !== 'ask') clock.advance(at.byMs);
          else for (let index = 0; index < at.count; index++) await ask();
        }
        // Whatever came before, one look is enough for the bucket to know the time again.
        await ask();
        clock.advance(60_000);
        const admitted: boolean[] = [];
        for (let index = 0; index < 7; index++) admitted.push(await ask());
        expect(admitted).toEqual([true, true, true, true, true, false, false]);
        expect(await tenant.audit()).toEqual([]);
      } finally {
        opened.close();
      }
    }),
    { numRuns: 60 },
  );
});
