/** The app on a real port, with real sockets: leaving clients, slow ones, stops and refusals. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { expect, test } from 'vitest';
import { ListenError, listen } from '../../../gpu-worker/http/server.ts';
import type { RunningServer } from '../../../gpu-worker/http/server.ts';
import { shutDown } from '../../../gpu-worker/http/shut-down.ts';
import { answering, httpWorker, parseEvents } from '../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../support/worker/http-worker.ts';
import type { Script } from '../../support/worker/scripted-engine.ts';

const question = { model: 'tiny', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 500 };

/** Goes on until it is stopped; each step takes a moment. */
const endless: Script = {
  *answer() {
    for (;;) yield { token: 100, text: 'word ' };
  },
  stepMs: 2,
};

async function serve(worker: HttpWorker): Promise<RunningServer & AsyncDisposable> {
  const server = await listen({ app: worker.app, host: '127.0.0.1', port: 0, token: null });
  return { ...server, [Symbol.asyncDispose]: () => server.close({ graceMs: 0 }) };
}

function post(server: RunningServer, body: object, init: RequestInit = {}) {
  return fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify(body),
    ...init,
    headers: { 'content-type': 'application/json', ...init.headers },
  });
}

/** Waits for something that another party does; the test's own timeout is the limit. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

async function rawRequest(server: RunningServer, body: object): Promise<Socket> {
  const socket = connect(server.port, '127.0.0.1');
  await once(socket, 'connect');
  const text = JSON.stringify(body);
  socket.write(
    'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: gone\r\n' +
      `content-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
  );
  return socket;
}

test.for([true, false])(
  'a client whose socket goes away stops its generation within a step (stream: %s)',
  async (stream) => {
    await using worker = await httpWorker({ script: endless, contextLength: 100_000 });
    await using server = await serve(worker);
    const socket = await rawRequest(server, { ...question, stream, max_tokens: 50_000 });
    const stepsOf = () => worker.engine.steps.get('gone') ?? 0;
    if (stream) await once(socket, 'data');
    await until(() => stepsOf() > 5);
    socket.destroy();
    await until(() => worker.engine.aborted.has('gone'));
    const steps = stepsOf();
    await sleep(20);
    expect(stepsOf()).toBe(steps);

    await until(() => worker.log.some((line) => line.requestId === 'gone'));
    expect(worker.log.find((line) => line.requestId === 'gone')).toMatchObject({
      status: 499,
      outcome: 'aborted',
    });
    const record = await worker.services.journal.lookup('gone');
    expect(record?.status).toBe('aborted');
    // The first step is the prompt's; the last one may have seen the end before it made a token.
    expect([steps - 2, steps - 1]).toContain(record?.usage.completion_tokens);
  },
);

test('a client that leaves while its request waits stops it too', async () => {
  const held = Promise.withResolvers<void>();
  const script: Script = { ...endless, beforeStep: () => held.promise };
  await using worker = await httpWorker({ script });
  await using server = await serve(worker);
  const socket = await rawRequest(server, { ...question, stream: true });
  await until(() => worker.engine.requests.length === 1);
  socket.destroy();
  await sleep(20);
  held.resolve();
  await until(() => worker.engine.aborted.has('gone'));
  expect(worker.engine.steps.get('gone')).toBe(1);
});

test('a client that reads slowly slows its stream, and gets all of it', async () => {
  const piece = 'x'.repeat(10_000);
  const script: Script = {
    *answer() {
      for (let token = 0; token < 2_000; token++) yield { token: 100, text: piece };
    },
  };
  await using worker = await httpWorker({ script, contextLength: 10_000 });
  await using server = await serve(worker);
  const socket = await rawRequest(server, { ...question, stream: true, max_tokens: 2_000 });
  await once(socket, 'readable');
  // Nobody reads: the kernel's buffers fill, and then the engine is not asked for more.
  let before = -1;
  while (before !== (worker.engine.steps.get('gone') ?? 0)) {
    before = worker.engine.steps.get('gone') ?? 0;
    await sleep(100);
  }
  expect(before).toBeLessThan(2_000);
  let received = 0;
  socket.on('data', (chunk: Buffer) => {
    received += chunk.length;
    if (chunk.includes('[DONE]')) socket.end();
  });
  await once(socket, 'close');
  expect(received).toBeGreaterThan(2_000 * piece.length);
});

test('a stream that has nothing to say says that it is alive', async () => {
  const held = Promise.withResolvers<void>();
  const script: Script = { ...answering('late'), beforeStep: () => held.promise };
  await using worker = await httpWorker({ script, settings: { keepAliveMs: 20 } });
  await using server = await serve(worker);
  const response = await post(server, { ...question, stream: true });
  // The headers came with the first comment, before any token.
  expect(response.status).toBe(200);
  const reader = response.body?.getReader();
  const first = await reader?.read();
  expect(Buffer.from(first?.value ?? []).toString()).toBe(': keep-alive\n\n');
  held.resolve();
  let text = '';
  for (let next = await reader?.read(); next?.done === false; next = await reader?.read()) {
    text += Buffer.from(next.value).toString();
  }
  expect(parseEvents(text).at(-1)).toBe('[DONE]');
  expect(text).toContain('late');
});

test('an engine that is full answers 429 with Retry-After, streamed or not', async () => {
  const refusal = { kind: 'busy', message: 'the queue is full', retryAfterSeconds: 1.2 } as const;
  await using worker = await httpWorker({ script: { ...answering('x'), refuse: () => refusal } });
  await using server = await serve(worker);
  for (const stream of [true, false]) {
    const response = await post(server, { ...question, stream });
    expect(response.headers.get('retry-after')).toBe('2');
    expect([response.status, await response.json()]).toEqual([
      429,
      {
        error: {
          message: 'the queue is full',
          type: 'rate_limit_error',
          param: null,
          code: 'engine_busy',
        },
      },
    ]);
  }
});

test('an overflow that only the engine finds is told in numbers', async () => {
  const refusal = { kind: 'too-long' as const, message: 'needs 9 blocks', retryAfterSeconds: null };
  await using worker = await httpWorker({ script: { ...answering('x'), refuse: () => refusal } });
  const response = await worker.app.request('/v1/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', prompt: [1, 2, 3], max_tokens: 5 }),
  });
  const overflow = { prompt_tokens: 3, output_tokens: 5, context_tokens: 1024 };
  expect(await response.json()).toMatchObject({ error: { overflow } });
});

test('what the engine finds too long or invalid is the request’s fault, with its words', async () => {
  for (const [kind, code] of [
    ['too-long', 'context_length_exceeded'],
    ['invalid', 'invalid_value'],
  ] as const) {
    const refusal = { kind, message: 'needs 9 blocks', retryAfterSeconds: null };
    await using worker = await httpWorker({ script: { ...answering('x'), refuse: () => refusal } });
    const response = await worker.app.request('/v1/chat/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(question),
    });
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { code, message: 'needs 9 blocks' } },
    ]);
  }
});

test('an engine that fails within a stream ends it with an error event and no [DONE]', async () => {
  const script: Script = {
    ...endless,
    beforeStep(_, step) {
      if (step === 4) throw new Error('secret details of a bug');
    },
  };
  await using worker = await httpWorker({ script });
  await using server = await serve(worker);
  const response = await post(
    server,
    { ...question, stream: true },
    { headers: { 'x-request-id': 'broken' } },
  );
  const text = await response.text();
  const events = parseEvents(text);
  expect(events.at(-1)).toMatchObject({ error: { type: 'server_error', code: 'internal_error' } });
  expect(text).not.toContain('secret');
  // The log keeps what the client does not see.
  expect(JSON.stringify(worker.log)).toContain('secret details of a bug');
  const record = await worker.services.journal.lookup('broken');
  expect(record).toMatchObject({ status: 'failed', usage: { completion_tokens: 2 } });

  const whole = await post(server, question);
  expect(whole.status).toBe(500);
});

test('an id that is in use is refused until its request has ended', async () => {
  await using worker = await httpWorker({ script: endless, contextLength: 100_000 });
  await using server = await serve(worker);
  const leaving = new AbortController();
  const headers = { 'x-request-id': 'twice' };
  const body = { ...question, stream: true, max_tokens: 50_000 };
  const first = await post(server, body, { headers, signal: leaving.signal });
  const second = await post(server, body, { headers });
  expect([second.status, await second.json()]).toMatchObject([
    409,
    { error: { code: 'request_id_in_use' } },
  ]);
  leaving.abort();
  await first.text().catch(() => {});
  await until(() => worker.engine.aborted.has('twice'));
  await until(() => worker.log.some((line) => line.requestId === 'twice' && line.status === 499));
  const third = await post(server, { ...question, max_tokens: 1 }, { headers });
  expect(third.status).toBe(200);
  // The newest use of an id is the one that its record tells of.
  const record = await worker.services.journal.lookup('twice');
  expect(record).toMatchObject({ status: 'done', usage: { completion_tokens: 1 } });
});

test('a port in use gives one clear line', async () => {
  await using worker = await httpWorker({ script: endless });
  await using server = await serve(worker);
  const again = listen({ app: worker.app, host: '127.0.0.1', port: server.port, token: null });
  await expect(again).rejects.toThrow(ListenError);
  await expect(again).rejects.toThrow(`port ${server.port} on 127.0.0.1 is in use`);
});

test('without a token only loopback is listened on', async () => {
  await using worker = await httpWorker({ script: endless });
  for (const host of ['0.0.0.0', '::', '192.168.1.5', 'example.com', '127.0.0.1.example.com']) {
    const open = listen({ app: worker.app, host, port: 0, token: null });
    await expect(open).rejects.toThrow('set WORKER_TOKEN');
  }
  const closed = await listen({ app: worker.app, host: '0.0.0.0', port: 0, token: 'secret' });
  await closed.close({ graceMs: 0 });
});

test('a worker that stops finishes what it began and takes nothing new', async () => {
  await using worker = await httpWorker({
    script: { ...answering(...Array<string>(20).fill('word ')), stepMs: 5 },
  });
  const { lifecycle, journal } = worker.services;
  const server = await listen({ app: worker.app, host: '127.0.0.1', port: 0, token: null });
  const response = await post(server, { ...question, stream: true });
  const stopped = shutDown({
    lifecycle,
    server,
    journal,
    tracing: null,
    heartbeat: null,
    graceMs: 60_000,
  });
  const late = await worker.app.request('/v1/chat/completions', {
    method: 'POST',
    body: JSON.stringify(question),
  });
  expect([late.status, await late.json()]).toMatchObject([503, { error: { code: 'not_ready' } }]);
  expect(parseEvents(await response.text()).at(-1)).toBe('[DONE]');
  await stopped;
  await expect(post(server, question)).rejects.toThrow('fetch failed');
});

test('a stop does not wait longer than its grace', async () => {
  await using worker = await httpWorker({ script: endless, contextLength: 1_000_000 });
  const { lifecycle, journal } = worker.services;
  const server = await listen({ app: worker.app, host: '127.0.0.1', port: 0, token: null });
  const response = await post(server, { ...question, stream: true, max_tokens: 900_000 });
  await shutDown({ lifecycle, server, journal, tracing: null, heartbeat: null, graceMs: 50 });
  await expect(response.text()).rejects.toThrow('terminated');
});

test('nothing of a request stays in memory once it is answered', async () => {
  const script: Script = {
    *answer() {
      yield { token: 100, text: 'word ' };
    },
  };
  await using worker = await httpWorker({ script });
  await using server = await serve(worker);
  const askSome = async (): Promise<void> => {
    for (let each = 0; each < 25; each++) {
      for (const stream of [false, true]) {
        const answer = await post(server, { ...question, max_tokens: 1, stream });
        await answer.text();
      }
      const refused = await post(server, { ...question, max_tokens: -1 });
      await refused.text();
      await (await fetch(`${server.url}/health`)).text();
    }
  };
  await askSome();
  const before = queryObjects(AbortSignal, { format: 'count' });
  await askSome();
  expect(queryObjects(AbortSignal, { format: 'count' }) - before).toBeLessThan(25);
});
