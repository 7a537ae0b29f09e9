/** Requests that wait in the fleet for a slot of a worker: who goes when, and who is refused. */
import { expect, test } from 'vitest';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import { waitingMax } from '../../../edge/fleet/waiting-requests.ts';
import type { PlaceInput, PlaceResult, Turn } from '../../../edge/fleet/placement-contract.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';
import { seededRandom } from '../../support/random.ts';

/** Fleets whose workers have as many slots each. */
async function fleetOf(workers: readonly string[], slots = 8) {
  const clock = manualClock();
  const waits: number[] = [];
  const fleet = new LocalFleet({ clock, onWaiting: (count) => void waits.push(count) });
  const beat = (id: string, more: object = {}) =>
    fleet.heartbeat({
      ...heartbeatOf({ id }),
      capacity: { sequences: slots, waiting: 32, step_tokens: 512, cache_tokens: 65_536 },
      ...more,
    });
  for (const id of workers) await beat(id);

  const results = new Map<string, PlaceResult>();
  const ask = async (id: string, turn: Partial<Turn> = {}, more: Partial<PlaceInput> = {}) => {
    const placing = fleet
      .place({
        requestId: id,
        model: 'tiny',
        promptTokens: 50,
        outputTokensMax: 50,
        prefixHits: [],
        exclude: [],
        turn: {
          tenant: id.split('-')[0] ?? id,
          weight: 1,
          priority: 'normal',
          slots: 1,
          waitMsMax: 30_000,
          busyWorker: null,
          ...turn,
        },
        ...more,
      })
      .then((result) => void results.set(id, result));
    await settled();
    return placing;
  };
  const workerOf = (id: string): string | null => {
    const result = results.get(id);
    return result?.kind === 'placed' ? result.worker : null;
  };
  /** The answer took that long and ended. */
  const finish = async (id: string, tookMs = 0) => {
    clock.advance(tookMs);
    const computed = { promptTokens: 50, outputTokens: 50 };
    await fleet.finished(id, workerOf(id) ?? '', computed);
    await settled();
  };
  const kinds = () => [...results].map(([id, { kind }]) => `${id} ${kind}`);
  const placed = () => [...results.keys()].filter((id) => workerOf(id) !== null);
  return { fleet, clock, waits, beat, ask, finish, results, kinds, placed, workerOf };
}

/** Lets what was resolved be noticed. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

const names = (tenant: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${tenant}-${index}`);

test('a worker gets as many answers as it has slots, and the next one as soon as one ends', async () => {
  const { ask, finish, placed, fleet } = await fleetOf(['a'], 2);
  for (const id of names('t', 4)) void ask(id);
  await settled();
  expect(placed()).toEqual(['t-0', 't-1']);
  expect((await fleet.status())[0]).toMatchObject({ slots: 2, slotsInFlight: 2 });
  await finish('t-1');
  expect(placed()).toEqual(['t-0', 't-1', 't-2']);
  fleet.close();
});

test('the fleet tells how many wait whenever that changes', async () => {
  const { ask, finish, waits, fleet } = await fleetOf(['a'], 2);
  for (const id of names('t', 5)) void ask(id);
  await settled();
  expect([waits.at(-1), fleet.waitingRequests()]).toEqual([3, 3]);
  await finish('t-1');
  expect([waits.at(-1), fleet.waitingRequests()]).toEqual([2, 2]);
  await fleet.withdraw('t-4');
  expect(waits.at(-1)).toBe(1);
  fleet.close();
  expect(waits.at(-1)).toBe(0);
});

test('a tenant without an answer under way has one beyond the slots that others fill', async () => {
  const { ask, placed, fleet } = await fleetOf(['a'], 8);
  for (const id of names('heavy', 50)) void ask(id);
  await settled();
  // Two more are there to take the next slots.
  expect(placed()).toHaveLength(10);
  void ask('light-0');
  void ask('light-1');
  await settled();
  expect(placed().slice(10)).toEqual(['light-0']);
  fleet.close();
});

test('two tenants that fill the queue are served in turn, whoever came first', async () => {
  const { ask, finish, placed, fleet } = await fleetOf(['a'], 1);
  for (const id of names('early', 30)) void ask(id);
  for (const id of names('late', 30)) void ask(id);
  await settled();
  for (let ended = 0; ended < 40; ended++) await finish(placed()[ended] ?? '');
  const late = placed().filter((id) => id.startsWith('late')).length;
  expect(Math.abs(late - 20)).toBeLessThanOrEqual(6);
  fleet.close();
});

test('a request of many answers takes a slot for each, and goes when its worker can hold them', async () => {
  const { ask, finish, placed, fleet } = await fleetOf(['a'], 8);
  void ask('many', { slots: 24 });
  void ask('few');
  void ask('few-1');
  await settled();
  // The worker lets what has no slot wait; a tenant without one is still owed one, others are not.
  expect(placed()).toEqual(['many']);
  await finish('many');
  expect(placed()).toEqual(['many', 'few', 'few-1']);
  fleet.close();
});

test('more answers than a worker can ever hold go to it at once, for it to say so', async () => {
  const { ask, placed, fleet } = await fleetOf(['a'], 8);
  for (const id of names('heavy', 8)) void ask(id);
  void ask('huge', { slots: 33 });
  await settled();
  expect(placed()).toContain('huge');
  fleet.close();
});

test('a wait that would be too long is refused at once, with its length', async () => {
  const { ask, finish, results, fleet } = await fleetOf(['a'], 2);
  for (const id of names('t', 2)) void ask(id);
  await settled();
  // 100 tokens in 10 s on each of two slots: 20 tokens a second.
  await finish('t-0', 10_000);
  await finish('t-1');
  for (const id of names('u', 8)) void ask(id, { waitMsMax: 20_000 });
  await settled();
  const refused = [...results].filter(([, { kind }]) => kind === 'overloaded').map(([id]) => id);
  // Two run; four wait for up to 15 s and the 5 s until the next slot is free.
  expect(refused).toEqual(['u-6', 'u-7']);
  expect(results.get('u-6')).toEqual({
    kind: 'overloaded',
    reason: 'wait',
    retryAfterSeconds: 25,
  });
  fleet.close();
});

test('a refusal can be expected before anything is asked for, and only where a wait is known', async () => {
  const { ask, finish, fleet } = await fleetOf(['a'], 1);
  const expected = async (tenant: string, waitMsMax: number) =>
    await fleet.expectedRefusal({
      model: 'tiny',
      turn: {
        tenant,
        weight: 1,
        priority: 'normal',
        slots: 1,
        waitMsMax,
        busyWorker: null,
      },
    });
  await ask('t-0');
  expect(await expected('t', 0)).toBeNull();
  await finish('t-0', 10_000);
  for (const id of names('t', 3)) void ask(id);
  await settled();
  expect(await expected('t', 20_000)).toMatchObject({ kind: 'overloaded', retryAfterSeconds: 30 });
  expect(await expected('t', 30_000)).toBeNull();
  expect(await expected('light', 0)).toBeNull();
  fleet.close();
});

test('a light tenant is not told to wait for the queue of a heavy one', async () => {
  const { ask, finish, kinds, fleet } = await fleetOf(['a'], 8);
  void ask('heavy-first');
  await settled();
  await finish('heavy-first', 10_000);
  for (const id of names('heavy', 60)) void ask(id);
  await ask('light-0', { waitMsMax: 3_000 });
  void ask('light-1', { waitMsMax: 3_000 });
  await settled();
  expect(kinds().filter((each) => each.startsWith('light'))).toEqual(['light-0 placed']);
  expect(kinds().some((each) => each.endsWith('overloaded'))).toBe(true);
  fleet.close();
});

test('a wait that turns out too long ends when it is over', async () => {
  const { ask, clock, results, beat, fleet } = await fleetOf(['a'], 1);
  void ask('t-0');
  void ask('t-1', { waitMsMax: 9_000 });
  void ask('t-2', { waitMsMax: 12_000 });
  await settled();
  clock.advance(9_000);
  await beat('a', { load: heartbeatOf({ id: 'a', running: 1 }).load });
  fleet.tick();
  await settled();
  expect([...results.keys()]).toEqual(['t-0', 't-1']);
  expect(results.get('t-1')).toMatchObject({ kind: 'overloaded', reason: 'wait' });
  fleet.close();
});

test('a client that will not wait at all is refused unless there is a slot', async () => {
  const { ask, kinds, fleet } = await fleetOf(['a'], 1);
  await ask('t-0', { waitMsMax: 0 });
  void ask('t-1');
  await ask('t-2', { waitMsMax: 0 });
  // Nothing has been learned yet, so its time is over at the next look.
  fleet.tick();
  await settled();
  expect(kinds()).toEqual(['t-0 placed', 't-2 overloaded']);
  fleet.close();
});

test('a client that leaves gives up its place in the queue, and no slot is lost', async () => {
  const { ask, finish, kinds, fleet } = await fleetOf(['a'], 1);
  for (const id of names('t', 3)) void ask(id);
  await settled();
  await fleet.withdraw('t-1');
  await finish('t-0');
  expect(kinds()).toEqual(['t-0 placed', 't-1 withdrawn', 't-2 placed']);
  await finish('t-2');
  expect((await fleet.status())[0]).toMatchObject({ slotsInFlight: 0, requestsInFlight: 0 });
});

test('a worker that says it has no slot gets nothing for a second, and fewer from then on', async () => {
  const { ask, clock, placed, fleet, workerOf } = await fleetOf(['a', 'b'], 4);
  await ask('t-0');
  const busyWorker = workerOf('t-0');
  await ask('t-0', { busyWorker });
  expect(workerOf('t-0')).not.toBe(busyWorker);
  for (const id of names('u', 8)) void ask(id);
  await settled();
  expect(placed().every((id) => workerOf(id) !== busyWorker)).toBe(true);
  clock.advance(1_001);
  fleet.tick();
  await settled();
  const taken = placed().filter((id) => workerOf(id) === busyWorker);
  expect(taken).toHaveLength(1);
  fleet.close();
});

test('what waits for a worker that is lost is refused, or goes to another', async () => {
  const { ask, clock, kinds, beat, fleet } = await fleetOf(['a'], 1);
  for (const id of names('t', 3)) void ask(id, { waitMsMax: 60_000 });
  await settled();
  await fleet.withdraw('t-2');
  clock.advance(14_000);
  await beat('b');
  await settled();
  expect(kinds()).toEqual(['t-0 placed', 't-2 withdrawn', 't-1 placed']);
  void ask('t-3', { waitMsMax: 60_000 });
  await settled();
  clock.advance(15_001);
  fleet.tick();
  await settled();
  expect(kinds().at(-1)).toBe('t-3 no-worker');
});

test('a drained worker gets nothing more, and those who would wait too long are told at once', async () => {
  const { ask, finish, kinds, fleet } = await fleetOf(['a', 'b'], 1);
  void ask('t-0');
  await settled();
  await finish('t-0', 10_000);
  // A slot gets free every 5 s, and then serves a request.
  for (const id of names('u', 5)) void ask(id, { waitMsMax: 12_000 });
  await settled();
  const refused = () => kinds().filter((each) => each.endsWith('overloaded'));
  expect(refused()).toEqual(['u-4 overloaded']);
  await fleet.drain('a', true);
  await settled();
  expect(refused()).toEqual(['u-4 overloaded', 'u-3 overloaded']);
  fleet.close();
});

test('the queue is bounded, and no tenant can fill all of it', async () => {
  const { ask, results, fleet, kinds } = await fleetOf(['a'], 1);
  for (const id of names('heavy', waitingMax)) void ask(id);
  await settled();
  const queued = waitingMax - results.size + 1;
  expect(queued).toBeGreaterThan(waitingMax / 2 - 2);
  expect(queued).toBeLessThan(waitingMax / 2 + 2);
  expect(results.get(`heavy-${waitingMax - 1}`)).toMatchObject({ reason: 'queue' });
  void ask('light-0');
  void ask('light-1');
  await settled();
  expect(kinds()).not.toContain('light-1 overloaded');
  fleet.close();
});

test('an edge that ends refuses all who wait, and all who come', async () => {
  const { ask, results, fleet } = await fleetOf(['a'], 1);
  for (const id of names('t', 3)) void ask(id);
  await settled();
  fleet.close();
  await ask('t-3');
  for (const id of ['t-1', 't-2', 't-3']) {
    expect(results.get(id)).toMatchObject({ kind: 'overloaded', reason: 'closing' });
  }
});

test('whatever comes, ends, leaves and dies, each request ends once and no slot is lost', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = seededRandom(seed);
    const { ask, finish, fleet, clock, beat, results, workerOf } = await fleetOf(['a', 'b'], 4);
    const epochs = new Map([
      ['a', 1],
      ['b', 1],
    ]);
    const asked: Promise<void>[] = [];
    const running = () =>
      [...results.keys()].filter((id) => workerOf(id) !== null && !ended.has(id));
    const ended = new Set<string>();
    for (let step = 0; step < 300; step++) {
      const kind = random.choose(['ask', 'ask', 'ask', 'finish', 'finish', 'leave', 'die', 'wait']);
      if (kind === 'ask') {
        const id = `${random.choose(['t', 'u', 'v'])}-${step}`;
        const slots = random.choose([1, 1, 1, 3, 20]);
        asked.push(ask(id, { slots, weight: random.integer(1, 3) }));
      } else if (kind === 'finish') {
        const some = running();
        if (some.length === 0) continue;
        const id = random.choose(some);
        ended.add(id);
        await finish(id, random.integer(0, 500));
      } else if (kind === 'leave') await fleet.withdraw(`t-${random.integer(0, step)}`);
      else if (kind === 'die') {
        const id = random.choose(['a', 'b']);
        const epoch = (epochs.get(id) ?? 0) + 1;
        epochs.set(id, epoch);
        await beat(id, { epoch });
        for (const each of running()) if (workerOf(each) === id) ended.add(each);
      } else {
        clock.advance(random.integer(0, 2_000));
        for (const [id, epoch] of epochs) {
          const used = (await fleet.status()).find((each) => each.id === id)?.slotsInFlight ?? 0;
          const { load } = heartbeatOf({ id, running: used });
          await beat(id, { epoch, load });
        }
        fleet.tick();
      }
      await settled();
    }
    for (let left = running(); left.length > 0; left = running()) {
      for (const id of left) {
        ended.add(id);
        await finish(id);
      }
    }
    await Promise.all(asked);
    expect(results.size, `seed ${seed}`).toBe(asked.length);
    const slots = (await fleet.status()).map((each) => [each.slotsInFlight, each.requestsInFlight]);
    expect(slots, `seed ${seed}`).toEqual([
      [0, 0],
      [0, 0],
    ]);
  }
});
