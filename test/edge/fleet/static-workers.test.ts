import { expect, test } from 'vitest';
import type { FleetSnapshot } from '../../../edge/fleet/fleet-snapshot.ts';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import { createStaticWorkers } from '../../../edge/fleet/static-workers.ts';
import type { StaticWorker } from '../../../edge/fleet/worker-contract.ts';
import { heartbeatOf, manualClock } from '../../support/edge/fleet-of-runtime.ts';

/** A foreign engine: healthy or not, with or without a report of cached tokens. */
function engine(state: {
  up: boolean;
  models: string[];
  cached: number | null;
  reportsZero?: boolean;
  completions?: 'fail' | 'hang';
  /** Fields of each entry of its list of models beside the name. */
  listed?: object;
}) {
  const requests: { path: string; token: string | null }[] = [];
  let prompts = 0;
  const answer = async (url: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const { pathname } = new URL(String(url));
    requests.push({ path: pathname, token: new Headers(init?.headers).get('authorization') });
    if (!state.up) throw new TypeError('fetch failed', { cause: new Error('connection refused') });
    if (pathname === '/health') return new Response('');
    if (pathname === '/v1/models') {
      const { listed = { object: 'model', created: 1, owned_by: 'x' } } = state;
      const data = state.models.map((id) => ({ id, ...listed }));
      return Response.json({ object: 'list', data });
    }
    if (state.completions === 'fail') return new Response('warming up', { status: 503 });
    if (state.completions === 'hang') await new Promise(() => {});
    const body: { prompt: string; max_tokens: number } = JSON.parse(String(init?.body));
    expect(body.max_tokens).toBe(1);
    // vLLM, too, leaves the detail out while nothing is cached.
    const cached = prompts++ > 0 || state.reportsZero ? state.cached : null;
    const usage = {
      prompt_tokens: body.prompt.split(' ').length,
      completion_tokens: 1,
      ...(cached !== null && { prompt_tokens_details: { cached_tokens: cached } }),
    };
    return Response.json({ id: 'x', choices: [], usage });
  };
  return { requests, fetch: answer as typeof fetch };
}

const vllm: StaticWorker = {
  id: 'vllm',
  url: 'http://vllm.test',
  ownToken: { bearer: 'its-own-token' },
};

function fleetOf(fetch: typeof globalThis.fetch, configured: readonly StaticWorker[] = [vllm]) {
  const clock = manualClock();
  let saved: FleetSnapshot | undefined;
  const fleet = new LocalFleet({
    clock,
    configured,
    save: (snapshot) => void (saved = snapshot()),
  });
  const logged: unknown[] = [];
  const workers = createStaticWorkers({
    workers: () => fleet.staticWorkers(),
    workerToken: 'shared-token',
    clock,
    fetch,
    announce: (announcement) => void fleet.announce(announcement),
    log: (_, event, fields) => void logged.push({ event, ...fields }),
  });
  const status = async () => (await fleet.status())[0];
  /** Probes, and waits until what goes on beside it is known. */
  const probed = async () => {
    await workers.probe();
    const asked = 'it is being asked whether it reports cached tokens';
    await expect.poll(async () => (await status())?.noDiscountReason).not.toBe(asked);
  };
  const place = () =>
    fleet.place({
      requestId: 'r1',
      model: 'm1',
      promptTokens: 10,
      outputTokensMax: 10,
      prefixHits: [],
      exclude: [],
      turn: null,
    });
  return { clock, fleet, workers, probed, status, place, logged, saved: () => saved };
}

test('a worker that reports cached tokens is ready with its discount', async () => {
  const { fetch, requests } = engine({ up: true, models: ['m1'], cached: 512 });
  const { probed, status, place } = fleetOf(fetch);
  await probed();
  expect(await status()).toMatchObject({ state: 'ready', static: true, noDiscountReason: null });
  expect(await place()).toMatchObject({ reportsCachedTokens: true, hasJournal: false });
  expect(requests.map(({ path }) => path)).toEqual([
    '/health',
    '/v1/models',
    '/v1/completions',
    '/v1/completions',
  ]);
  expect(new Set(requests.map(({ token }) => token))).toEqual(new Set(['Bearer its-own-token']));
});

test('a worker is given as many answers at a time as the settings say of it', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: null });
  const { probed, status } = fleetOf(fetch, [{ ...vllm, slots: 2 }]);
  await probed();
  expect(await status()).toMatchObject({ slots: 2, slotsInFlight: 0 });
});

test('a worker that reports none serves without the discount, and its status says why', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: null });
  const { probed, status, place } = fleetOf(fetch);
  await probed();
  expect((await status())?.noDiscountReason).toMatch(/does not report cached tokens/);
  expect(await place()).toMatchObject({ kind: 'placed', reportsCachedTokens: false });
});

test('a list of models may name them alone', async () => {
  for (const listed of [
    {},
    { object: 'model', created: 1.5, owned_by: null, max_model_len: null },
  ]) {
    const { fetch } = engine({ up: true, models: ['m1'], cached: 512, listed });
    const { probed, status } = fleetOf(fetch);
    await probed();
    expect(await status()).toMatchObject({ state: 'ready', models: ['m1'] });
  }
});

test('a count of 0 is a report', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: 0, reportsZero: true });
  const { probed, status } = fleetOf(fetch);
  await probed();
  expect((await status())?.noDiscountReason).toBeNull();
});

test('a worker that is down gets nothing, and comes back under a new epoch', async () => {
  const state = { up: true, models: ['m1'], cached: 512 };
  const { fetch, requests } = engine(state);
  const { clock, probed, status, place, logged } = fleetOf(fetch);
  await probed();
  const first = await status();
  state.up = false;
  clock.advance(5_000);
  await probed();
  expect(await status()).toMatchObject({ state: 'failing', epoch: first?.epoch });
  expect((await status())?.noDiscountReason).toContain('connection refused');
  expect((await place()).kind).toBe('no-worker');
  state.up = true;
  clock.advance(5_000);
  await probed();
  expect((await status())?.epoch).toBeGreaterThan(first?.epoch ?? Infinity);
  expect((await place()).kind).toBe('placed');
  expect(logged.map((event) => Object(event).state)).toEqual([
    'failing',
    'ready',
    'failing',
    'failing',
    'ready',
  ]);
  const prompts = requests.filter(({ path }) => path === '/v1/completions');
  clock.advance(5_000);
  await probed();
  // A healthy worker is only asked for its health.
  expect(requests.filter(({ path }) => path === '/v1/completions')).toHaveLength(prompts.length);
});

test('a heartbeat cannot take the name of a configured worker', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: 512 });
  const { fleet, probed, status } = fleetOf(fetch);
  await probed();
  const beat = heartbeatOf({ id: 'vllm', url: 'http://elsewhere.test', epoch: 9_999_999_999_999 });
  expect((await fleet.heartbeat(beat)).accepted).toBe(false);
  expect((await status())?.url).toBe('http://vllm.test');
});

test('each worker is shown its own token, the shared one or none, and no log or status holds any', async () => {
  const tokens: [StaticWorker['ownToken'], string | null][] = [
    [{ bearer: 'its-own-token' }, 'Bearer its-own-token'],
    [null, 'Bearer shared-token'],
    [{ bearer: null }, null],
  ];
  for (const [ownToken, shown] of tokens) {
    const { fetch, requests } = engine({ up: true, models: ['m1'], cached: 512 });
    const { probed, place, logged, status } = fleetOf(fetch, [{ ...vllm, ownToken }]);
    await probed();
    expect(new Set(requests.map(({ token }) => token))).toEqual(new Set([shown]));
    expect(await place()).toMatchObject({ kind: 'placed', ownToken });
    expect(JSON.stringify([logged, await status()])).not.toMatch(/own-token|shared-token/);
  }
});

test('a worker that the operator adds serves after a probe, outlives a restart, and can go', async () => {
  const { fetch, requests } = engine({ up: true, models: ['m1'], cached: 512 });
  const { fleet, probed, place, saved, clock, status } = fleetOf(fetch, []);
  expect(await fleet.addStatic(vllm)).toEqual({ accepted: true, reason: null });
  expect((await place()).kind).toBe('no-worker');
  await probed();
  expect(await place()).toMatchObject({ kind: 'placed', ownToken: { bearer: 'its-own-token' } });

  const again = new LocalFleet({ clock, snapshot: saved() ?? { workers: [], drained: [] } });
  expect(again.staticWorkers()).toEqual([vllm]);
  expect(JSON.stringify(saved()?.workers)).not.toContain('its-own-token');

  const first = await status();
  clock.advance(1_000);
  const moved = { ...vllm, url: 'http://moved.test', ownToken: null };
  expect((await fleet.addStatic(moved)).accepted).toBe(true);
  await probed();
  expect(await place()).toMatchObject({ url: 'http://moved.test', ownToken: null });
  expect((await status())?.epoch).toBeGreaterThan(first?.epoch ?? Infinity);
  expect(requests.at(-1)?.token).toBe('Bearer shared-token');

  const { epoch } = (await status()) ?? {};
  clock.advance(1_000);
  // Its prefixes are believed on: only the count has changed.
  for (const slots of [7, undefined]) {
    await fleet.addStatic({ ...moved, ...(slots !== undefined && { slots }) });
    await probed();
    expect(await status()).toMatchObject({ epoch, slots: slots ?? 128 });
  }

  expect(await fleet.removeStatic('vllm')).toBe(true);
  expect(await fleet.removeStatic('vllm')).toBe(false);
  await probed();
  expect(await fleet.status()).toEqual([]);
  expect(saved()?.added).toEqual([]);
});

test('a worker that is removed while it is probed does not come back', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: 512 });
  const { fleet, workers } = fleetOf(fetch, []);
  await fleet.addStatic(vllm);
  const probing = workers.probe();
  await fleet.removeStatic('vllm');
  await probing;
  expect(await fleet.status()).toEqual([]);
});

test('the operator cannot add a worker under a name that is taken', async () => {
  const { fetch } = engine({ up: true, models: ['m1'], cached: 512 });
  const { fleet } = fleetOf(fetch);
  expect((await fleet.addStatic(vllm)).reason).toContain('EDGE_STATIC_WORKERS');
  expect(await fleet.removeStatic('vllm')).toBe(false);
  await fleet.heartbeat(heartbeatOf({ id: 'w1' }));
  expect((await fleet.addStatic({ ...vllm, id: 'w1' })).reason).toContain('announces itself');
  await fleet.addStatic({ ...vllm, id: 'added' });
  expect((await fleet.heartbeat(heartbeatOf({ id: 'added' }))).accepted).toBe(false);
});

test('a worker that could not say whether it reports cached tokens is asked again', async () => {
  const state: Parameters<typeof engine>[0] = { up: true, models: ['m1'], cached: 512 };
  state.completions = 'fail';
  const { fetch, requests } = engine(state);
  const { clock, probed, workers, status, place } = fleetOf(fetch);
  await probed();
  const first = await status();
  expect(first).toMatchObject({ state: 'ready' });
  expect(first?.noDiscountReason).toContain('/v1/completions answers 503');
  delete state.completions;
  const asked = requests.length;
  clock.advance(5_000);
  await workers.probe();
  expect(requests.slice(asked).map(({ path }) => path)).toEqual(['/health', '/v1/models']);
  clock.advance(60_000);
  await workers.probe();
  await expect.poll(async () => (await status())?.noDiscountReason).toBeNull();
  expect(await status()).toMatchObject({ state: 'ready', epoch: first?.epoch });
  expect(await place()).toMatchObject({ reportsCachedTokens: true });
  expect(requests.filter(({ path }) => path === '/v1/completions')).toHaveLength(3);
});

test('a worker that takes long over its first completion keeps no other from being announced', async () => {
  const slow = engine({ up: true, models: ['m1'], cached: 512, completions: 'hang' });
  const fine = engine({ up: true, models: ['m1'], cached: 512 });
  const fetch = ((url: string, init?: RequestInit) =>
    (new URL(url).host === 'slow.test' ? slow : fine).fetch(url, init)) as typeof globalThis.fetch;
  const { clock, workers, fleet } = fleetOf(fetch, [
    { ...vllm, id: 'slow', url: 'http://slow.test' },
    { ...vllm, id: 'fine', url: 'http://fine.test' },
  ]);
  const states = async () => (await fleet.status()).map(({ id, state }) => `${id} ${state}`);
  await workers.probe();
  await expect.poll(states).toEqual(['slow failing', 'fine ready']);
  for (let beat = 0; beat < 4; beat++) {
    clock.advance(5_000);
    await workers.probe();
  }
  expect(await states()).toEqual(['slow failing', 'fine ready']);
  expect(slow.requests.filter(({ path }) => path === '/v1/completions')).toHaveLength(1);
});
