import { expect, test } from 'vitest';
import type { Log } from '../../../infra/log.ts';
import { createHoldSweeper } from '../../../edge/reconcile/hold-sweeper.ts';
import {
  journalMsMax,
  reconcileHolds,
  unknownMsMax,
} from '../../../edge/reconcile/reconcile-holds.ts';
import type { Services } from '../../../edge/services.ts';
import { openTestTenant } from '../../support/edge/tenant-opened.ts';
import { addKey, admitInput, settleInput } from '../../support/edge/tenant-samples.ts';

const holdMs = 10 * 60_000;

type Answer = Response | Error;

function journal(status: string, output: number): Response {
  return Response.json({
    object: 'request.usage',
    id: 'r1',
    model: 'm',
    status,
    created: 1,
    updated: 2,
    usage: {
      prompt_tokens: 100,
      completion_tokens: output,
      total_tokens: 100 + output,
      prompt_tokens_details: { cached_tokens: 64 },
      completion_tokens_details: { reasoning_tokens: 0 },
      prompt_cache_hit_tokens: 64,
      prompt_cache_miss_tokens: 36,
    },
  });
}

async function open(answers: Readonly<Record<string, () => Answer>> = {}) {
  const { tenant, clock } = openTestTenant();
  await addKey(tenant);
  await tenant.credit({ kind: 'granted', amountNanoUsd: 100_000_000, source: 'grant', note: '' });
  const asked: string[] = [];
  const logged: Readonly<Record<string, unknown>>[] = [];
  const log: Log = (_, event, fields) => void logged.push({ event, ...fields });
  const context = {
    tenant,
    clock,
    workerToken: 'token',
    log,
    fetch: (async (url: URL, init?: RequestInit) => {
      const id = url.pathname.split('/')[3] ?? '';
      asked.push(`${url.host} ${id} ${new Headers(init?.headers).get('authorization')}`);
      const answer = answers[id]?.() ?? new Response('{}', { status: 404 });
      if (answer instanceof Error) throw answer;
      return answer;
      // The code under test calls it with a URL alone.
    }) as typeof fetch,
  };
  const admit = async (requestId: string, placed = true): Promise<void> => {
    const { kind } = await tenant.admit(admitInput(requestId));
    expect(kind).toBe('admitted');
    if (!placed) return;
    const workerUrl = 'http://w1.test';
    await tenant.placed({ requestId, worker: 'w1', epoch: 1, workerUrl, chain: [] });
  };
  const resolved = async (requestId: string) =>
    (await tenant.entries({ afterId: 0, limit: 100 })).find(
      (entry) => entry.requestId === requestId && entry.kind !== 'pending',
    );
  return { tenant, clock, context, admit, resolved, asked, logged };
}

test('a hold that is younger than its time is left alone, and nobody is asked', async () => {
  const { context, admit, clock, asked } = await open();
  await admit('r1');
  clock.advance(holdMs - 1);
  expect(await reconcileHolds(context, holdMs)).toEqual({ settled: 0, voided: 0, left: 0 });
  expect(asked).toEqual([]);
});

test('an expired hold is settled from the journal of the worker that it went to', async () => {
  for (const status of ['done', 'aborted', 'failed', 'interrupted']) {
    const { tenant, context, admit, clock, resolved, asked } = await open({
      r1: () => journal(status, 7),
    });
    await admit('r1');
    clock.advance(holdMs);
    expect(await reconcileHolds(context, holdMs)).toEqual({ settled: 1, voided: 0, left: 0 });
    expect(asked).toEqual(['w1.test r1 Bearer token']);
    expect(await resolved('r1')).toMatchObject({
      kind: 'posted',
      usage: { inputUncached: 36, inputCached: 64, outputText: 7, outputReasoning: 0 },
    });
    expect((await tenant.balance()).held).toBe(0);
    expect(await tenant.audit()).toEqual([]);
  }
});

test('a request that was never placed is voided in full', async () => {
  const { tenant, context, admit, clock, resolved } = await open();
  const before = await tenant.balance();
  await admit('r1', false);
  clock.advance(holdMs);
  expect(await reconcileHolds(context, holdMs)).toEqual({ settled: 0, voided: 1, left: 0 });
  expect((await resolved('r1'))?.kind).toBe('voided');
  expect(await tenant.balance()).toEqual(before);
});

test('a foreign engine is never asked: its hold is voided once no answer can be under way', async () => {
  const { tenant, context, admit, clock, resolved, asked } = await open();
  await admit('r1', false);
  const place = { requestId: 'r1', worker: 'vllm', epoch: 1, workerUrl: null, chain: [] };
  await tenant.placed(place);
  clock.advance(holdMs);
  expect((await reconcileHolds(context, holdMs)).left).toBe(1);
  clock.advance(unknownMsMax);
  expect((await reconcileHolds(context, holdMs)).voided).toBe(1);
  expect((await resolved('r1'))?.kind).toBe('voided');
  expect(asked).toEqual([]);
});

test('a request that runs keeps its hold, unless it runs for longer than journals are kept', async () => {
  const { context, admit, clock } = await open({ r1: () => journal('running', 7) });
  await admit('r1');
  clock.advance(holdMs);
  expect((await reconcileHolds(context, holdMs)).left).toBe(1);
  clock.advance(journalMsMax);
  expect((await reconcileHolds(context, holdMs)).settled).toBe(1);
});

test('a request that no journal knows is voided once it cannot be running any more', async () => {
  const { context, admit, clock, resolved } = await open();
  await admit('r1');
  clock.advance(unknownMsMax - 1);
  expect((await reconcileHolds(context, holdMs)).left).toBe(1);
  clock.advance(1);
  expect((await reconcileHolds(context, holdMs)).voided).toBe(1);
  expect((await resolved('r1'))?.kind).toBe('voided');
});

test('a worker that is gone or answers nonsense is asked again, for a day', async () => {
  const answers: Answer[] = [
    new Error('refused'),
    new Response('down', { status: 503 }),
    new Response('<html>', { status: 200 }),
    Response.json({ object: 'request.usage', usage: { prompt_tokens: -1 } }),
    new Error('refused'),
  ];
  const { context, admit, clock } = await open({
    r1: () => answers.shift() ?? new Error('refused'),
  });
  await admit('r1');
  clock.advance(holdMs);
  for (let index = 0; index < 4; index++) {
    expect((await reconcileHolds(context, holdMs)).left).toBe(1);
  }
  clock.advance(journalMsMax);
  expect((await reconcileHolds(context, holdMs)).voided).toBe(1);
});

test('a settlement that comes at the same time stands, and nothing is billed twice', async () => {
  const racing = await open({ r1: () => journal('done', 7) });
  const { tenant, context, admit, clock } = racing;
  await admit('r1');
  clock.advance(holdMs);
  const [own] = await Promise.all([
    tenant.settle(settleInput('r1')),
    reconcileHolds(context, holdMs),
    reconcileHolds(context, holdMs),
  ]);
  expect(own.first).toBe(true);
  const entries = await tenant.entries({ afterId: 0, limit: 100 });
  expect(entries.filter(({ kind }) => kind === 'posted')).toHaveLength(1);
  expect(await tenant.audit()).toEqual([]);
});

test('many holds are resolved in one sweep, each by its own journal', async () => {
  const ids = Array.from({ length: 40 }, (_, index) => `r${index}`);
  const { tenant, context, admit, clock, resolved } = await open(
    Object.fromEntries(ids.map((id, index) => [id, () => journal('done', index)])),
  );
  for (const id of ids) await admit(id);
  clock.advance(holdMs);
  expect(await reconcileHolds(context, holdMs)).toEqual({ settled: 40, voided: 0, left: 0 });
  for (const [index, id] of ids.entries()) {
    expect((await resolved(id))?.usage?.outputText).toBe(index);
  }
  expect((await tenant.balance()).held).toBe(0);
});

test('the sweeper looks at all tenants once, then at those that were used or have open holds', async () => {
  const opened = { a: await open(), b: await open() };
  const { a, b } = opened;
  await a.admit('r1', false);
  const looked: string[] = [];
  let used: string[] = [];
  // The sweeper touches nothing else of the services.
  const services = {
    clock: a.clock,
    fetch: a.context.fetch,
    log: a.context.log,
    settings: { workerToken: 'token' },
    directory: { tenants: async () => [{ id: 'a' }, { id: 'b' }, { id: 'broken' }] },
  } as unknown as Services;
  const sweeper = createHoldSweeper({
    services,
    holdMs,
    owns: () => true,
    usedIds: () => used.splice(0),
    tenant: (id) => {
      looked.push(id);
      if (id === 'broken') throw new Error('its file is damaged');
      return id === 'a' ? a.tenant : b.tenant;
    },
  });
  const sweep = async (): Promise<string[]> => {
    looked.length = 0;
    await sweeper.sweep();
    return [...looked];
  };
  expect(await sweep()).toEqual(['a', 'b', 'broken']);
  // `a` has an open hold, and the broken one is tried again; one failure ends no sweep.
  expect(await sweep()).toEqual(['a', 'broken']);
  expect(a.logged).toContainEqual(expect.objectContaining({ event: 'hold-sweep-failed' }));
  used = ['b'];
  expect(await sweep()).toEqual(['a', 'broken', 'b']);
  a.clock.advance(holdMs);
  await sweep();
  expect((await a.tenant.balance()).held).toBe(0);
  expect(await sweep()).toEqual(['broken']);
});
