/**
 * An operator is told which workers' heartbeats were refused and why; keeping that costs little.
 */
import { expect, test } from 'vitest';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import type { FleetSnapshot } from '../../../edge/fleet/fleet-snapshot.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

test('a refused announcement is told with its reason and time, once per reason, newest first', async () => {
  const clock = manualClock();
  const fleet = new LocalFleet({ clock, hosts: ['*.ours.example'] });
  const stranger = heartbeatOf({ id: 'a', url: 'http://a.other.example:81/v' });
  for (let count = 0; count < 3; count++) await fleet.heartbeat(stranger);
  clock.advance(5_000);
  await fleet.heartbeat({ ...stranger, epoch: 'young' });
  await fleet.heartbeat('no object');
  await fleet.heartbeat({ id: 7, url: ['x'] });
  const found = await fleet.refusals();
  expect(found).toMatchObject([
    { id: null, url: null, times: 1 },
    { id: null, url: null, reason: expect.stringContaining('expected object'), times: 1 },
    { id: 'a', reason: expect.stringMatching(/^epoch: /), times: 1, lastAtMs: clock.nowMs() },
    {
      id: 'a',
      url: 'http://a.other.example:81/v',
      reason: expect.stringContaining('EDGE_WORKER_HOSTS does not list'),
      times: 3,
      lastAtMs: clock.nowMs() - 5_000,
    },
  ]);
});

test('a worker that is taken has no trouble any more; another of its name keeps it', async () => {
  const fleet = new LocalFleet({ clock: manualClock() });
  const [first, second] = ['http://first.test', 'http://second.test'].map((url, index) =>
    heartbeatOf({ id: 'a', url, epoch: 2 - index }),
  );
  await fleet.heartbeat({ ...first, state: 'unknown' });
  await fleet.heartbeat(first);
  expect(await fleet.refusals()).toEqual([]);
  expect((await fleet.heartbeat(second)).accepted).toBe(false);
  expect(await fleet.refusals()).toMatchObject([{ id: 'a', url: 'http://second.test' }]);
  await fleet.heartbeat(first);
  expect(await fleet.refusals()).toHaveLength(1);
});

test('no secret of an address is kept, and a flood of refusals stays small', async () => {
  const fleet = new LocalFleet({ clock: manualClock() });
  await fleet.heartbeat(heartbeatOf({ id: 'a', url: 'http://user:secret@a.test/x?token=secret' }));
  const found = await fleet.refusals();
  expect(found).toMatchObject([{ id: 'a', url: 'http://a.test/x' }]);
  expect(JSON.stringify(found)).not.toContain('secret');
  for (let index = 0; index < 500; index++) {
    await fleet.heartbeat({ id: `x${index}`, url: `ftp://${'x'.repeat(1_000)}`, [`${index}`]: 1 });
  }
  const flood = await fleet.refusals();
  expect(flood.length).toBeLessThanOrEqual(50);
  expect(JSON.stringify(flood).length).toBeLessThan(50_000);
});

test('what is remembered of a fleet stays small, whatever its workers say', async () => {
  const clock = manualClock();
  let make = (): FleetSnapshot => ({ workers: [], drained: [] });
  let saves = 0;
  const fleet = new LocalFleet({
    clock,
    save: (snapshot, urgency) => {
      make = snapshot;
      saves++;
      expect(urgency).toBe('soon');
    },
  });
  const [usual] = heartbeatOf({ id: 'x' }).models;
  const models = Array.from({ length: 64 }, (_, index) => ({
    ...usual,
    id: `${index}`.padEnd(256, 'm'),
    revision: 'r'.repeat(128),
    tokenizer: 't'.repeat(128),
  }));
  for (let index = 0; index < 300; index++) {
    clock.advance(1);
    await fleet.heartbeat({ ...heartbeatOf({ id: `w${index}` }), models });
  }
  clock.advance(1);
  await fleet.heartbeat(heartbeatOf({ id: 'usual' }));
  expect(saves).toBe(301);
  const snapshot = make();
  expect(JSON.stringify(snapshot).length).toBeLessThan(500_000);
  expect(snapshot.workers[0]?.id).toBe('usual');
  const tooMany = await fleet.heartbeat({
    ...heartbeatOf({ id: 'z' }),
    models: [...models, ...models.slice(0, 1)],
  });
  expect(tooMany.accepted).toBe(false);
});
