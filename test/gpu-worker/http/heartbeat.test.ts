/** Heartbeats to an edge that the test plays; the pause between beats is the test's too. */
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { startHeartbeat } from '../../../gpu-worker/http/heartbeat.ts';
import type { HeartbeatSender } from '../../../gpu-worker/http/heartbeat.ts';
import { createLifecycle } from '../../../gpu-worker/http/lifecycle.ts';
import type { Lifecycle } from '../../../gpu-worker/http/lifecycle.ts';
import { heartbeatSchema } from '../../../gpu-worker/protocol/heartbeat.ts';
import type { Heartbeat } from '../../../gpu-worker/protocol/heartbeat.ts';
import { answering, httpWorker } from '../../support/worker/http-worker.ts';

interface PlayedEdge extends AsyncDisposable {
  readonly beats: { url: string; authorization: string | null; body: Heartbeat }[];
  readonly log: { level: number; msg: string }[];
  readonly pausesMs: number[];
  readonly sender: HeartbeatSender;
  /** Ends the pause that the sender is in, and waits for the beat that follows. */
  nextBeat(): Promise<void>;
  answer: () => Response;
}

function playEdge(lifecycle: Lifecycle): PlayedEdge {
  let pause = Promise.withResolvers<void>();
  let paused = Promise.withResolvers<void>();
  const log: { level: number; msg: string }[] = [];
  const edge: Omit<PlayedEdge, 'sender'> = {
    beats: [],
    log,
    pausesMs: [],
    answer: () => new Response(null, { status: 204 }),
    async nextBeat() {
      paused = Promise.withResolvers<void>();
      pause.resolve();
      await paused.promise;
    },
    async [Symbol.asyncDispose]() {
      await sender.stop();
    },
  };
  const sender = startHeartbeat({
    edgeUrl: 'http://edge.test:8787',
    workerUrl: 'http://127.0.0.1:8788',
    workerId: 'worker-1',
    epoch: 1_795_000_000_000,
    start: 'a-start-of-it',
    token: 'w-secret',
    lifecycle,
    logger: pino({ level: 'info' }, { write: (line) => log.push(JSON.parse(line)) }),
    async fetch(input, init) {
      const request = new Request(input, init);
      edge.beats.push({
        url: request.url,
        authorization: request.headers.get('authorization'),
        body: heartbeatSchema.parse(await request.json()),
      });
      return edge.answer();
    },
    sleep(ms, signal) {
      edge.pausesMs.push(ms);
      pause = Promise.withResolvers<void>();
      signal.addEventListener('abort', () => pause.resolve());
      paused.resolve();
      return pause.promise;
    },
  });
  return Object.assign(edge, { sender });
}

test('a beat says who the worker is, what it serves and how loaded it is', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  await using edge = playEdge(worker.services.lifecycle);
  await edge.nextBeat();
  expect(edge.beats[0]).toEqual({
    url: 'http://edge.test:8787/internal/workers/heartbeat',
    authorization: 'Bearer w-secret',
    body: {
      id: 'worker-1',
      url: 'http://127.0.0.1:8788',
      epoch: 1_795_000_000_000,
      start: 'a-start-of-it',
      engine: 'sift',
      state: 'ready',
      models: [
        {
          id: 'tiny',
          revision: '0123456789abcdef'.repeat(4),
          tokenizer: 'tiny-tokenizer',
          block_tokens: 64,
          context_length: 1024,
        },
      ],
      capacity: { sequences: 8, waiting: 16, step_tokens: 256, cache_tokens: 6400 },
      load: {
        running_sequences: 0,
        waiting_sequences: 0,
        tokens_in_flight: 0,
        blocks_total: 100,
        blocks_free: 100,
        blocks_cached: 3,
      },
    },
  });
  expect(edge.pausesMs).toContain(5_000);
});

test('the state follows the worker, and a last beat can say that it drains', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const lifecycle = createLifecycle();
  await using edge = playEdge(lifecycle);
  await edge.nextBeat();
  expect(edge.beats.at(-1)?.body).toMatchObject({ state: 'starting', models: [], load: null });
  lifecycle.serve(worker.model);
  await edge.nextBeat();
  expect(edge.beats.at(-1)?.body).toMatchObject({ state: 'ready', models: [{ id: 'tiny' }] });
  lifecycle.drain();
  await edge.sender.beat();
  expect(edge.beats.at(-1)?.body).toMatchObject({ state: 'draining' });
});

test('an edge that is away is tried again, and only the changes are logged', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  await using edge = playEdge(worker.services.lifecycle);
  await edge.nextBeat();
  edge.answer = () => {
    throw new TypeError('fetch failed');
  };
  for (let beat = 0; beat < 3; beat++) await edge.nextBeat();
  edge.answer = () => new Response('no', { status: 401 });
  for (let beat = 0; beat < 3; beat++) await edge.nextBeat();
  edge.answer = () => new Response(null, { status: 204 });
  for (let beat = 0; beat < 3; beat++) await edge.nextBeat();
  expect(edge.beats.length).toBeGreaterThanOrEqual(10);
  expect(edge.log.map((line) => line.msg)).toEqual([
    'the edge answers',
    'the edge did not take the heartbeat',
    'the edge did not take the heartbeat',
    'the edge answers',
  ]);
  expect(JSON.stringify(edge.log)).not.toContain('w-secret');
});

test('an edge that refuses the token says so in words that tell what to set', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  await using edge = playEdge(worker.services.lifecycle);
  edge.answer = () => new Response('no', { status: 401 });
  for (let beat = 0; beat < 3; beat++) await edge.nextBeat();
  const refused = edge.log.filter(({ msg }) => msg === 'the edge did not take the heartbeat');
  expect(JSON.stringify(refused)).toContain("WORKER_TOKEN must be the edge's");
});

test('a heartbeat that is stopped beats no more', async () => {
  await using worker = await httpWorker({ script: answering('x') });
  const edge = playEdge(worker.services.lifecycle);
  await edge.nextBeat();
  await edge.sender.stop();
  const count = edge.beats.length;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(edge.beats).toHaveLength(count);
});
