/** Restarts of workers whose clocks, or whose edge's clock, cannot be trusted. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import type { FleetSnapshot } from '../../../edge/fleet/fleet-snapshot.ts';
import { cacheEpochOf } from '../../../edge/fleet/starts.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

const hourMs = 3_600_000;
const [first, second] = ['start-of-monday', 'start-of-tuesday'];

function edge(snapshot?: FleetSnapshot) {
  const clock = manualClock();
  const saved: FleetSnapshot[] = [];
  const save = (changed: () => FleetSnapshot) => void saved.push(structuredClone(changed()));
  const fleet = new LocalFleet({ clock, save, ...(snapshot && { snapshot }) });
  const beat = (epoch: number, start?: string) =>
    fleet.heartbeat(heartbeatOf({ id: 'w', epoch, ...(start !== undefined && { start }) }));
  const state = async () => (await fleet.status())[0]?.state;
  const placed = async (hits: readonly { epoch: number; tokens: number }[] = []) =>
    fleet.place({
      requestId: crypto.randomUUID(),
      model: 'tiny',
      promptTokens: 1_000,
      outputTokensMax: 10,
      prefixHits: hits.map((hit) => ({ worker: 'w', ...hit })),
      exclude: [],
      turn: null,
    });
  return { fleet, clock, saved, beat, state, placed };
}

describe.each([
  ['with start ids', [first, second]],
  ['of workers that send epochs alone', [undefined, undefined]],
] as const)('a worker that restarts, %s', (_, [one, two]) => {
  test('with its clock an hour back serves once the start before is silent', async () => {
    const { clock, beat, placed, state } = edge();
    expect(await beat(5 * hourMs, one)).toMatchObject({ accepted: true });
    clock.advance(5_000);
    expect(await beat(4 * hourMs, two)).toMatchObject({ accepted: false });
    clock.advance(5_001);
    await beat(4 * hourMs, two);
    clock.advance(5_000);
    expect(await beat(4 * hourMs, two)).toEqual({ accepted: true, reason: null });
    expect(await placed()).toMatchObject({ kind: 'placed' });
    for (let index = 0; index < 3; index++) {
      clock.advance(5_000);
      expect(await beat(4 * hourMs, two)).toMatchObject({ accepted: true });
    }
    expect(await state()).toBe('ready');
  });

  test('with its clock an hour back serves after the edge has restarted too', async () => {
    const before = edge();
    await before.beat(5 * hourMs, one);
    const { clock, beat } = edge(before.saved.at(-1));
    expect(await beat(4 * hourMs, two)).toMatchObject({ accepted: false });
    clock.advance(15_001);
    expect(await beat(4 * hourMs, two)).toMatchObject({ accepted: true });
  });

  test('has nothing cached of what it had before, whichever way its clock went', async () => {
    for (const epoch of [4 * hourMs, 6 * hourMs]) {
      const { clock, beat, placed, fleet } = edge();
      await beat(5 * hourMs, one);
      const old = await placed();
      if (old.kind !== 'placed') throw new Error('not placed');
      clock.advance(15_001);
      await beat(epoch, two);
      expect((await fleet.status())[0]?.tokensInFlight).toBe(0);
      const next = await placed([{ epoch: old.epoch, tokens: 900 }]);
      expect((await fleet.status())[0]?.tokensInFlight).toBe(1_000);
      expect(next).not.toMatchObject({ epoch: old.epoch });
    }
  });

  test('beside one of the same id that lives on: the younger wins, and the older is told', async () => {
    for (const order of [
      [5, 4],
      [4, 5],
    ] as const) {
      const { clock, beat, fleet } = edge();
      for (let round = 0; round < 5; round++) {
        for (const hours of order) await beat(hours * hourMs, hours === 5 ? two : one);
        clock.advance(5_000);
      }
      expect((await fleet.status())[0]?.epoch).toBe(5 * hourMs);
      const told = await beat(4 * hourMs, one);
      expect(told).toEqual({
        accepted: false,
        reason: 'a younger worker w has announced itself',
      });
    }
  });
});

test('two starts of one epoch are two starts, and every edge prefers the same one', async () => {
  for (const order of [
    [first, second],
    [second, first],
  ]) {
    const { beat, placed } = edge();
    for (const start of order) await beat(hourMs, start);
    for (const start of order) await beat(hourMs, start);
    expect(await placed()).toMatchObject({ epoch: cacheEpochOf({ epoch: hourMs, start: second }) });
  }
});

test('a start has the same name on all edges, and no other start has it', () => {
  fc.assert(
    fc.property(fc.uuid(), fc.uuid(), fc.nat(), (one, other, epoch) => {
      const name = cacheEpochOf({ epoch, start: one });
      expect(Number.isSafeInteger(name)).toBe(true);
      expect(cacheEpochOf({ epoch: epoch + 1, start: one })).toBe(name);
      if (one !== other) expect(cacheEpochOf({ epoch, start: other })).not.toBe(name);
    }),
  );
});

test('an edge whose clock goes back still notices that a worker is silent', async () => {
  const { clock, beat, state } = edge();
  await beat(1);
  clock.advance(-24 * hourMs);
  expect(await state()).toBe('ready');
  clock.advance(15_001);
  expect(await state()).toBe('lost');
  await beat(1);
  expect(await state()).toBe('ready');
  clock.advance(365 * 24 * hourMs);
  await beat(1);
  expect(await state()).toBe('ready');
});

test('when a worker was last seen is told in the time of now', async () => {
  const { clock, beat, fleet } = edge();
  await beat(1);
  clock.advance(-24 * hourMs);
  expect((await fleet.status())[0]?.seenAtMs).toBe(clock.nowMs());
  clock.advance(3_000);
  expect((await fleet.status())[0]?.seenAtMs).toBe(clock.nowMs() - 3_000);
});
