import { afterEach, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { startEngine } from '../../../gpu-worker/engine/engine-handle.ts';
import type { Engine, EngineEvent, EngineRequest } from '../../../gpu-worker/engine/request.ts';
import {
  createPrompt,
  createRequest,
  runAlone,
  tokensOf,
} from '../../support/worker/engine-driver.ts';
import type { HashEngineOptions } from '../../support/worker/hash-engine-entry.ts';

const entry = new URL('../../support/worker/hash-engine-entry.ts', import.meta.url);
const open: Engine[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((engine) => engine.close({ graceMs: 0 })));
});

async function start(options: Partial<HashEngineOptions> = {}): Promise<Engine> {
  const workerData: HashEngineOptions = {
    waitingMax: 16,
    stepMs: 0,
    failsAt: 'never',
    ...options,
  };
  const engine = await startEngine({ entry, workerData, onProgress: () => {} });
  open.push(engine);
  return engine;
}

async function collect(
  engine: Engine,
  request: EngineRequest,
  signal = new AbortController().signal,
): Promise<EngineEvent[]> {
  const events: EngineEvent[] = [];
  for await (const event of engine.submit([request], { signal })) events.push(event);
  return events;
}

const long = createRequest({ id: 'long', promptTokens: createPrompt(80), outputTokensMax: 3000 });

test('loading reports its progress, and then the engine describes itself', async () => {
  const progress: number[] = [];
  const engine = await startEngine({
    entry,
    workerData: { waitingMax: 16, stepMs: 0, failsAt: 'never' },
    onProgress: ({ done, total }) => progress.push(done / total),
  });
  open.push(engine);
  expect(progress).toEqual([0.5, 1]);
  expect(engine.description).toMatchObject({ modelType: 'hash', plan: { blocks: 128 } });
  expect(engine.load()).toMatchObject({ runningSequences: 0, blocksFree: 128 });
  expect(engine.failure()).toBeNull();
});

test('an engine that cannot open its model rejects with the reason', async () => {
  await expect(start({ failsAt: 'open' })).rejects.toThrow('config.json: hidden_size is missing');
  await expect(start({ failsAt: 'crash-open' })).rejects.toThrow('the entry module is broken');
});

test('requests in flight together each get their own events, as if alone', async () => {
  const engine = await start();
  const requests = [40, 90, 130, 200].map((length) =>
    createRequest({ id: `r${length}`, promptTokens: createPrompt(length), outputTokensMax: 12 }),
  );
  const all = await Promise.all(requests.map((request) => collect(engine, request)));
  for (const [index, { id }] of requests.entries()) {
    const events = at(all, index);
    expect(events.every((event) => event.id === id)).toBe(true);
    expect(tokensOf(events, id)).toEqual(tokensOf(runAlone(at(requests, index)), id));
  }
  expect(engine.load().counters.requestsFinished).toBe(4);
});

test('events that have piled up are taken in several turns of the event loop', async () => {
  const engine = await start({ stepMs: 1 });
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const outputsByTurn: number[] = [];
  let turn = 0;
  let blockMs = 300;
  const turns = setInterval(() => turn++, 0);
  for await (const { kind } of engine.submit([{ ...long, outputTokensMax: 40 }], {
    signal: new AbortController().signal,
  })) {
    if (kind !== 'output') continue;
    outputsByTurn[turn] = (outputsByTurn[turn] ?? 0) + 1;
    // Many steps are done meanwhile; later ones take more than a turn's time to read, each.
    Atomics.wait(pause, 0, 0, blockMs);
    blockMs = 20;
  }
  clearInterval(turns);
  expect(Math.max(...outputsByTurn.filter(Boolean))).toBeLessThanOrEqual(2);
});

test('aborting the signal ends the stream as aborted, and frees the engine', async () => {
  const engine = await start({ stepMs: 1 });
  const client = new AbortController();
  const kinds: string[] = [];
  for await (const event of engine.submit([long], client)) {
    kinds.push(event.kind === 'finished' ? event.reason : event.kind);
    if (event.kind === 'output') client.abort();
  }
  expect(kinds.at(-2)).toBe('aborted');
  expect(kinds.at(-1)).toBe('end');
  expect(kinds.length).toBeLessThan(1000);
  expect(engine.load()).toMatchObject({ runningSequences: 0, tokensInFlight: 0 });
});

test('a signal that was aborted before still ends as aborted', async () => {
  const engine = await start();
  const events = await collect(engine, long, AbortSignal.abort());
  expect(events.at(-2)).toMatchObject({ kind: 'finished', reason: 'aborted' });
  expect(events.at(-1)).toMatchObject({ kind: 'end', error: null });
});

test('leaving the loop stops the generation, and the id can be used again at once', async () => {
  const engine = await start({ stepMs: 1 });
  for await (const event of engine.submit([long], new AbortController())) {
    if (event.kind === 'output') break;
  }
  const again = createRequest({ id: 'long', outputTokensMax: 4 });
  const events = await collect(engine, again);
  expect(events.at(-2)).toMatchObject({ kind: 'finished', reason: 'length' });
  expect(engine.load()).toMatchObject({
    runningSequences: 0,
    counters: { requestsAborted: 1, requestsFinished: 1 },
  });
});

test('requests of one call end in one stream, also for a reader who is slower than they are', async () => {
  const engine = await start();
  const requests = ['a', 'b', 'c'].map((id) => createRequest({ id, outputTokensMax: 5 }));
  const events: EngineEvent[] = [];
  for await (const event of engine.submit(requests, new AbortController())) {
    events.push(event);
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  for (const { id } of requests) {
    expect(tokensOf(events, id)).toEqual(
      tokensOf(runAlone(createRequest({ id })), id).map((each) => each.slice(0, 5)),
    );
    expect(events.filter((event) => event.id === id && event.kind === 'end')).toHaveLength(1);
  }
});

test('an engine that fails in a step ends every stream with the reason, and takes no more', async () => {
  for (const [failsAt, reason] of [
    ['step', 'the backend lost its device'],
    ['exit-in-step', 'the engine thread ended with code 3'],
  ] as const) {
    const engine = await start({ failsAt });
    const streams = await Promise.all([
      collect(engine, createRequest({ id: 'a' })),
      collect(engine, createRequest({ id: 'b' })),
    ]);
    for (const events of streams) {
      expect(events.at(-1)).toMatchObject({
        kind: 'end',
        error: { kind: 'internal', message: reason },
      });
    }
    expect(engine.failure()).toBe(reason);
    expect(await collect(engine, createRequest({ id: 'c' }))).toMatchObject([
      { kind: 'end', error: { kind: 'internal' } },
    ]);
  }
});

test('an engine that fails in mid-answer ends it with the usage of what was delivered', async () => {
  const failures: string[] = [];
  const engine = await startEngine({
    entry,
    workerData: { waitingMax: 16, stepMs: 0, failsAt: 'tenth-step' },
    onProgress: () => {},
    onFailure: (reason) => failures.push(reason),
  });
  open.push(engine);
  const events = await collect(engine, long);
  const end = events.at(-1);
  expect(events.length).toBeGreaterThan(3);
  expect(end).toMatchObject({
    kind: 'end',
    error: { kind: 'internal', message: 'a device fault' },
  });
  expect(end?.usage).toEqual(events.at(-2)?.usage);
  expect(end?.usage.outputTokens).toBe(tokensOf(events, 'long')[0]?.length);
  const refused = await collect(engine, createRequest({ id: 'next' }));
  expect(refused).toMatchObject([{ kind: 'end', usage: { promptTokens: 0, outputTokens: 0 } }]);
  expect(failures).toEqual(['a device fault']);
});

test('closing an engine is no failure', async () => {
  const failures: string[] = [];
  const engine = await startEngine({
    entry,
    workerData: { waitingMax: 16, stepMs: 0, failsAt: 'never' },
    onProgress: () => {},
    onFailure: (reason) => failures.push(reason),
  });
  await engine.close({ graceMs: 0 });
  expect(failures).toEqual([]);
});

test('close lets running requests finish within the grace, and refuses new ones', async () => {
  const engine = await start({ stepMs: 1 });
  const running = collect(engine, createRequest({ id: 'a', outputTokensMax: 20 }));
  const closed = engine.close({ graceMs: 60_000 });
  expect(await collect(engine, createRequest({ id: 'b' }))).toMatchObject([
    { kind: 'end', error: { kind: 'busy', message: 'the engine is shutting down' } },
  ]);
  expect((await running).at(-2)).toMatchObject({ kind: 'finished', reason: 'length' });
  await closed;
  expect(engine.failure()).toBe('the engine is closed');
});

test('close aborts what is still running after the grace', async () => {
  const engine = await start({ stepMs: 1 });
  const running = collect(engine, long);
  await engine.close({ graceMs: 5 });
  const events = await running;
  expect(events.at(-2)).toMatchObject({ kind: 'finished', reason: 'aborted' });
  expect(events.at(-1)).toMatchObject({ kind: 'end', error: null });
  await engine.close({ graceMs: 5 });
});
