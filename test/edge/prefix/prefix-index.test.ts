import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { confirmedMs, PrefixIndex, expectedMs } from '../../../edge/prefix/prefix-index.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import { chainOf, testClock } from '../../support/edge/tenant-samples.ts';

function openIndex(rowsMax?: number) {
  const { db, clock } = openTestTenant();
  const index = new PrefixIndex(db, rowsMax);
  const counted = () => db.get<{ rows: number }>('SELECT count(*) AS rows FROM prefix_chunk').rows;
  return {
    index,
    clock,
    counted,
    expiries: () =>
      db
        .all<{ at: number }>('SELECT expires_at_ms AS at FROM prefix_chunk ORDER BY bytes')
        .map(({ at }) => at - clock.nowMs()),
    hits: (name: number, chunks: number) => index.lookup(chainOf(name, chunks), clock.nowMs()),
    expect: (worker: string, epoch: number, name: number, chunks: number) =>
      index.expect({ worker, epoch }, chainOf(name, chunks), clock.nowMs()),
    confirm: (worker: string, epoch: number, name: number, chunks: number) =>
      index.confirm({ worker, epoch }, chainOf(name, chunks), clock.nowMs()),
  };
}

test('a placement is expected for 600 s, a confirmed one for 3,600 s', () => {
  const { expect: place, confirm, hits, clock } = openIndex();
  place('w1', 1, 1, 2);
  clock.advance(expectedMs - 1);
  expect(hits(1, 9)).toEqual([{ worker: 'w1', epoch: 1, bytes: 4_096 }]);
  clock.advance(1);
  expect(hits(1, 9)).toEqual([]);
  place('w1', 1, 1, 2);
  confirm('w1', 1, 1, 3);
  clock.advance(confirmedMs - 1);
  expect(hits(1, 9)).toEqual([{ worker: 'w1', epoch: 1, bytes: 6_144 }]);
  clock.advance(1);
  expect(hits(1, 9)).toEqual([]);
});

test('a row is written again only when less than half of its life remains', () => {
  const { expect: place, confirm, expiries, clock } = openIndex();
  place('w1', 1, 1, 1);
  clock.advance(expectedMs / 2);
  place('w1', 1, 1, 1);
  expect(expiries()).toEqual([expectedMs / 2]);
  clock.advance(1);
  place('w1', 1, 1, 1);
  expect(expiries()).toEqual([expectedMs]);
  confirm('w1', 1, 1, 1);
  expect(expiries()).toEqual([confirmedMs]);
  clock.advance(1_000);
  place('w1', 1, 1, 1);
  confirm('w1', 1, 1, 1);
  expect(expiries()).toEqual([confirmedMs - 1_000]);
});

test('a worker that restarted has lost everything, and what it finished before confirms nothing', () => {
  const { expect: place, confirm, hits } = openIndex();
  place('w1', 1, 1, 4);
  confirm('w1', 1, 1, 4);
  place('w1', 2, 2, 1);
  expect(hits(1, 4)).toEqual([]);
  confirm('w1', 1, 1, 4);
  expect(hits(1, 4)).toEqual([]);
  expect(hits(2, 4)).toEqual([{ worker: 'w1', epoch: 2, bytes: 2_048 }]);
});

test('a worker that no placement named confirms nothing', () => {
  const { confirm, hits, counted } = openIndex();
  confirm('w9', 1, 1, 4);
  expect([hits(1, 4), counted()]).toEqual([[], 0]);
});

test('an empty chain asks nothing and writes nothing', () => {
  const { expect: place, hits, counted } = openIndex();
  place('w1', 1, 1, 0);
  expect([hits(1, 0), counted()]).toEqual([[], 0]);
});

test('rows written under a clock that ran ahead are not believed, and cleared away', () => {
  const { expect: place, hits, counted, clock } = openIndex();
  clock.advance(86_400_000);
  place('w1', 1, 1, 3);
  clock.advance(-86_400_000);
  expect(hits(1, 3)).toEqual([]);
  place('w1', 1, 1, 1);
  expect(hits(1, 3)).toEqual([{ worker: 'w1', epoch: 1, bytes: 2_048 }]);
  expect(counted()).toBe(1);
});

test('rows are bounded: those that expire first go, in the write that adds', () => {
  const { expect: place, index, hits, counted, clock } = openIndex(100);
  for (let name = 0; name < 30; name++) {
    place('w1', 1, name, 10);
    clock.advance(1);
    expect(counted()).toBeLessThanOrEqual(100);
  }
  expect(index.rows()).toBe(100);
  expect(hits(29, 10)).toHaveLength(1);
  expect(hits(0, 10)).toEqual([]);
  place('w1', 1, 77, 500);
  expect([index.rows(), counted()]).toEqual([100, 100]);
});

test('expired rows are swept in small batches by the writes that follow', () => {
  const { expect: place, index, counted, clock } = openIndex();
  place('w1', 1, 1, 100);
  clock.advance(expectedMs);
  place('w1', 1, 2, 1);
  expect(counted()).toBe(101 - 32);
  for (let name = 3; name < 8; name++) place('w1', 1, name, 1);
  expect([counted(), index.rows()]).toEqual([6, 6]);
});

test('lookups agree with a plain map under any walk of placements, restarts and clock jumps', () => {
  const name = fc.integer({ min: 0, max: 3 });
  const worker = fc.constantFrom('w0', 'w1', 'w2');
  const chunks = fc.integer({ min: 1, max: 6 });
  const step = fc.oneof(
    fc.record({ kind: fc.constant('place' as const), worker, name, chunks }),
    fc.record({ kind: fc.constant('confirm' as const), worker, name, chunks }),
    fc.record({ kind: fc.constant('restart' as const), worker }),
    fc.record({ kind: fc.constant('wait' as const), byMs: fc.integer({ min: 0, max: 2_000_000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { db, close } = openTenantDb(':memory:');
      const index = new PrefixIndex(db);
      const clock = testClock();
      const epochs = new Map<string, number>();
      const placedEpochs = new Map<string, number>();
      let known = new Map<string, { worker: string; depth: number; name: number; until: number }>();
      const remember = (at: { worker: string; name: number; chunks: number }, lifeMs: number) => {
        for (let depth = 1; depth <= at.chunks; depth++) {
          const id = `${at.worker}/${at.name}/${depth}`;
          const until = known.get(id)?.until ?? 0;
          if (until - clock.nowMs() < lifeMs / 2) {
            known.set(id, {
              worker: at.worker,
              name: at.name,
              depth,
              until: clock.nowMs() + lifeMs,
            });
          }
        }
      };
      for (const at of steps) {
        if (at.kind === 'wait') {
          clock.advance(at.byMs);
          continue;
        }
        const epoch = epochs.get(at.worker) ?? 1;
        if (at.kind === 'restart') {
          epochs.set(at.worker, epoch + 1);
          continue;
        }
        const chain = chainOf(at.name, at.chunks);
        if (at.kind === 'place') {
          index.expect({ worker: at.worker, epoch }, chain, clock.nowMs());
          if (placedEpochs.get(at.worker) !== epoch) {
            known = new Map([...known].filter(([, row]) => row.worker !== at.worker));
          }
          placedEpochs.set(at.worker, epoch);
          remember(at, expectedMs);
        } else {
          index.confirm({ worker: at.worker, epoch }, chain, clock.nowMs());
          if (placedEpochs.get(at.worker) === epoch) remember(at, confirmedMs);
        }
      }
      for (const asked of [0, 1, 2, 3]) {
        const deepest = new Map<string, number>();
        for (const row of known.values()) {
          if (row.name !== asked || row.until <= clock.nowMs()) continue;
          deepest.set(row.worker, Math.max(deepest.get(row.worker) ?? 0, row.depth * 2_048));
        }
        const found = index.lookup(chainOf(asked, 6), clock.nowMs());
        expect(new Map(found.map((hit) => [hit.worker, hit.bytes]))).toEqual(deepest);
        for (const hit of found) expect(hit.epoch).toBe(placedEpochs.get(hit.worker));
      }
      close();
    }),
    { numRuns: 100 },
  );
});
