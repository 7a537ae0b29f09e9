import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import type { FleetSnapshot } from '../../../edge/fleet/fleet-snapshot.ts';
import { flightMsMax, runningTokens } from '../../../edge/fleet/flights.ts';
import type { PlaceInput } from '../../../edge/fleet/placement-contract.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

const model = 'tiny';

function request(requestId: string, more: Partial<PlaceInput> = {}): PlaceInput {
  return {
    requestId,
    model,
    promptTokens: 1_000,
    outputTokensMax: 100,
    prefixHits: [],
    exclude: [],
    turn: null,
    ...more,
  };
}

async function fleetOf(workers: readonly string[]) {
  const clock = manualClock();
  const saved: FleetSnapshot[] = [];
  const fleet = new LocalFleet({ clock, save: (snapshot) => saved.push(snapshot()) });
  for (const id of workers) await fleet.heartbeat(heartbeatOf({ id }));
  const tokens = async (id: string) =>
    (await fleet.status()).find((each) => each.id === id)?.tokensInFlight;
  return { fleet, clock, saved, tokens };
}

test('a burst spreads over idle workers because tokens count from placement on', async () => {
  const { fleet } = await fleetOf(['a', 'b', 'c', 'd']);
  const taken = new Map<string, number>();
  for (let index = 0; index < 40; index++) {
    const placed = await fleet.place(request(`r${index}`));
    if (placed.kind === 'placed') taken.set(placed.worker, (taken.get(placed.worker) ?? 0) + 1);
  }
  expect([...taken.values()]).toEqual([10, 10, 10, 10]);
});

test('a cached prefix wins until the queue before it costs more than computing anew', async () => {
  const { fleet } = await fleetOf(['a', 'b']);
  const prefixHits = [{ worker: 'a', epoch: 1, tokens: 900 }];
  const workers: string[] = [];
  for (let index = 0; index < 12; index++) {
    const placed = await fleet.place(request(`r${index}`, { prefixHits }));
    if (placed.kind === 'placed') workers.push(placed.worker);
  }
  expect(workers.slice(0, 9)).toEqual(Array(9).fill('a'));
  expect(workers).toContain('b');
});

test('requests that begin alike meet on one of several idle workers', async () => {
  const { fleet } = await fleetOf(['a', 'b', 'c', 'd', 'e']);
  const workers = new Set<string>();
  for (let index = 0; index < 10; index++) {
    const placed = await fleet.place(request(`r${index}`, { prefixKey: 'same' }));
    if (placed.kind !== 'placed') continue;
    workers.add(placed.worker);
    await fleet.finished(`r${index}`, placed.worker, null);
  }
  expect(workers.size).toBe(1);
});

test('tokens fall at the first token and are gone at the end, however often either is said', async () => {
  const { fleet, tokens } = await fleetOf(['a']);
  await fleet.place(request('r'));
  expect(await tokens('a')).toBe(1_000);
  await fleet.started('r', 'a');
  await fleet.started('r', 'a');
  expect(await tokens('a')).toBe(runningTokens);
  await fleet.finished('r', 'a', null);
  await fleet.finished('r', 'a', null);
  expect(await tokens('a')).toBe(0);
});

test('three missed heartbeats take a worker out, and the next brings it back', async () => {
  const { fleet, clock } = await fleetOf(['a']);
  clock.advance(15_000);
  expect((await fleet.place(request('r1'))).kind).toBe('placed');
  clock.advance(1);
  expect((await fleet.status())[0]?.state).toBe('lost');
  expect(await fleet.place(request('r2'))).toEqual({
    kind: 'no-worker',
    reason: 'none-serves',
    retryAfterSeconds: 5,
  });
  await fleet.heartbeat(heartbeatOf({ id: 'a' }));
  expect((await fleet.place(request('r3'))).kind).toBe('placed');
});

test('a worker that restarts has nothing in flight and nothing cached', async () => {
  const { fleet, tokens } = await fleetOf(['a', 'b']);
  await fleet.place(request('r1', { prefixHits: [{ worker: 'a', epoch: 1, tokens: 64 }] }));
  expect(await tokens('a')).toBe(936);
  await fleet.heartbeat(heartbeatOf({ id: 'a', epoch: 2 }));
  expect(await tokens('a')).toBe(0);
  await fleet.place(request('r2', { prefixHits: [{ worker: 'a', epoch: 1, tokens: 999 }] }));
  expect([await tokens('a'), await tokens('b')]).toContain(1_000);
});

test('a heartbeat of an older epoch is refused', async () => {
  const { fleet } = await fleetOf([]);
  await fleet.heartbeat(heartbeatOf({ id: 'a', epoch: 7 }));
  const late = await fleet.heartbeat(heartbeatOf({ id: 'a', epoch: 6 }));
  expect(late.accepted).toBe(false);
  expect((await fleet.status())[0]?.epoch).toBe(7);
});

test('a heartbeat that is not one is refused with the field at fault', async () => {
  const { fleet } = await fleetOf([]);
  for (const body of [null, 'x', {}, { ...heartbeatOf({ id: 'a' }), epoch: -1 }]) {
    const answer = await fleet.heartbeat(body);
    expect(answer.accepted).toBe(false);
    expect(answer.reason).toBeTruthy();
  }
  expect(await fleet.status()).toEqual([]);
});

test('a worker that is starting, failed or draining gets nothing', async () => {
  for (const state of ['starting', 'failed', 'draining'] as const) {
    const { fleet } = await fleetOf([]);
    await fleet.heartbeat(heartbeatOf({ id: 'a', state }));
    expect((await fleet.place(request('r'))).kind).toBe('no-worker');
  }
});

test('a drained worker stays drained over its heartbeats and over a restart of the edge', async () => {
  const { fleet, saved, clock } = await fleetOf(['a', 'b']);
  expect(await fleet.drain('a', true)).toBe(true);
  expect(await fleet.drain('nobody', true)).toBe(false);
  await fleet.heartbeat(heartbeatOf({ id: 'a' }));
  const snapshot = saved.at(-1);
  const again = new LocalFleet({ clock, ...(snapshot && { snapshot }) });
  for (const each of [fleet, again]) {
    const placed = await each.place(request('r'));
    expect(placed).toMatchObject({ kind: 'placed', worker: 'b' });
    expect((await each.status()).map((worker) => worker.state)).toEqual(['draining', 'ready']);
  }
  await fleet.drain('a', false);
  expect((await fleet.status())[0]?.state).toBe('ready');
});

test('heartbeats that say nothing new write nothing', async () => {
  const { fleet, saved } = await fleetOf(['a']);
  const before = saved.length;
  for (let index = 0; index < 5; index++) await fleet.heartbeat(heartbeatOf({ id: 'a' }));
  expect(saved).toHaveLength(before);
});

test('a worker that refused is passed over for a second, also by others', async () => {
  const { fleet, clock, tokens } = await fleetOf(['a', 'b']);
  const prefixHits = [{ worker: 'a', epoch: 1, tokens: 1_000 }];
  expect(await fleet.place(request('r1', { prefixHits }))).toMatchObject({ worker: 'a' });
  const second = await fleet.place(request('r1', { prefixHits, exclude: ['a'] }));
  expect(second).toMatchObject({ kind: 'placed', worker: 'b' });
  expect(await tokens('a')).toBe(0);
  expect(await fleet.place(request('r2', { prefixHits }))).toMatchObject({ worker: 'b' });
  clock.advance(1_001);
  expect(await fleet.place(request('r3', { prefixHits }))).toMatchObject({ worker: 'a' });
});

test('a worker that refused someone else is still tried when there is no other', async () => {
  const { fleet } = await fleetOf(['a']);
  await fleet.place(request('r1'));
  const none = await fleet.place(request('r1', { exclude: ['a'] }));
  expect(none).toEqual({ kind: 'no-worker', reason: 'all-refused', retryAfterSeconds: 1 });
  expect((await fleet.place(request('r2'))).kind).toBe('placed');
});

test('a model that no live worker serves is told from one whose workers are not ready', async () => {
  const { fleet, clock } = await fleetOf([]);
  expect(await fleet.place(request('r'))).toMatchObject({ reason: 'none-serves' });
  await fleet.heartbeat(heartbeatOf({ id: 'a' }));
  const other = await fleet.place(request('r', { model: 'other' }));
  expect(other).toMatchObject({ kind: 'no-worker', reason: 'none-serves' });
  await fleet.drain('a', true);
  expect(await fleet.place(request('r'))).toMatchObject({ reason: 'none-ready' });
  clock.advance(60_000);
  expect(await fleet.place(request('r'))).toMatchObject({ reason: 'none-serves' });
});

test('what others send to a worker shows in its load', async () => {
  const { fleet, clock, tokens } = await fleetOf(['a']);
  await fleet.place(request('r'));
  clock.advance(5_000);
  await fleet.heartbeat(heartbeatOf({ id: 'a', tokens: 9_000, waiting: 3 }));
  expect(await tokens('a')).toBe(9_000);
  clock.advance(5_000);
  await fleet.heartbeat(heartbeatOf({ id: 'a', tokens: 1_000, waiting: 1 }));
  expect(await tokens('a')).toBe(1_000);
});

test('requests whose end was never reported leave when the worker says that it is idle', async () => {
  const { fleet, clock, tokens } = await fleetOf(['a']);
  await fleet.place(request('r1'));
  await fleet.place(request('r2'));
  await fleet.started('r2', 'a');
  clock.advance(5_000);
  await fleet.place(request('just-sent'));
  await fleet.heartbeat(heartbeatOf({ id: 'a' }));
  expect(await tokens('a')).toBe(1_000);
  expect((await fleet.status())[0]?.requestsInFlight).toBe(1);
});

test('requests whose end was never reported leave after half an hour in any case', async () => {
  const { fleet, clock } = await fleetOf(['a']);
  await fleet.place(request('r'));
  for (let ms = 0; ms <= flightMsMax; ms += 5_000) {
    clock.advance(5_000);
    await fleet.heartbeat(heartbeatOf({ id: 'a', tokens: 500, running: 1 }));
  }
  expect((await fleet.status())[0]?.requestsInFlight).toBe(0);
});

test('a slow worker is learned and gets less', async () => {
  const { fleet, clock } = await fleetOf(['fast', 'slow']);
  const taken = { fast: 0, slow: 0 };
  for (let index = 0; index < 300; index++) {
    const id = `r${index}`;
    const placed = await fleet.place(request(id, { promptTokens: 2_000 }));
    if (placed.kind !== 'placed') throw new Error('not placed');
    const name = placed.worker === 'fast' ? 'fast' : 'slow';
    taken[name]++;
    clock.advance(name === 'fast' ? 100 : 2_000);
    await fleet.started(id, name);
    await fleet.finished(id, name, null);
    for (const worker of ['fast', 'slow']) await fleet.heartbeat(heartbeatOf({ id: worker }));
  }
  expect(taken.slow).toBeLessThan(30);
});

test('whatever happens in whatever order, load is never negative and ends at zero', async () => {
  const steps = fc.array(
    fc.record({
      kind: fc.constantFrom('place', 'start', 'finish', 'beat', 'wait', 'restart'),
      request: fc.integer({ min: 0, max: 9 }),
      worker: fc.constantFrom('a', 'b', 'c'),
      size: fc.integer({ min: 0, max: 20_000 }),
    }),
    { maxLength: 80 },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const { fleet, clock } = await fleetOf(['a', 'b', 'c']);
      let epoch = 1;
      for (const step of list) {
        const id = `r${step.request}`;
        const exclude = step.size % 3 === 0 ? [step.worker] : [];
        if (step.kind === 'place') {
          await fleet.place(request(id, { promptTokens: step.size, exclude }));
        } else if (step.kind === 'start') await fleet.started(id, step.worker);
        else if (step.kind === 'finish') await fleet.finished(id, step.worker, null);
        else if (step.kind === 'wait') clock.advance(step.size);
        else {
          if (step.kind === 'restart') epoch++;
          const tokens = step.size;
          await fleet.heartbeat(
            heartbeatOf({ id: step.worker, epoch, tokens, running: tokens % 4 }),
          );
        }
        for (const worker of await fleet.status()) {
          expect(worker.tokensInFlight).toBeGreaterThanOrEqual(0);
        }
      }
      clock.advance(3_000);
      for (const worker of ['a', 'b', 'c']) {
        await fleet.heartbeat(heartbeatOf({ id: worker, epoch: epoch + 1 }));
        await fleet.heartbeat(heartbeatOf({ id: worker, epoch: epoch + 1 }));
      }
      for (const worker of await fleet.status()) {
        expect([worker.tokensInFlight, worker.requestsInFlight]).toEqual([0, 0]);
      }
    }),
  );
});
