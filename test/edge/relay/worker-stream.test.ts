import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bytesOf } from '../../../edge/relay/post.ts';
import { readWorkerStream, WorkerFailure } from '../../../edge/relay/worker-stream.ts';

const encoder = new TextEncoder();
const dialect = {
  kind: 'text',
  requestId: 'r-1',
  stops: { strings: [], tokens: [] },
  answers: 1,
  reportsCachedTokens: true,
  secrets: [],
} as const;
const running = { prompt_tokens: 7, completion_tokens: 2 };
const event = (text: string) => ({
  id: 'a',
  object: 'text_completion',
  choices: [{ index: 0, text }],
  usage: running,
});
const sse = (...values: unknown[]) =>
  values.map((value) => `data: ${JSON.stringify(value)}\n\n`).join('');
const whole = `${sse(event('é'), event('漢'), event('🌍'))}data: [DONE]\n\n`;

function bodyOf(pieces: readonly (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const rest = [...pieces];
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const piece = rest.shift();
      if (piece === undefined) controller.close();
      else controller.enqueue(typeof piece === 'string' ? encoder.encode(piece) : piece);
    },
  });
}

async function read(
  body: ReadableStream<Uint8Array>,
  options: { silenceMsMax?: number; bytesMax?: number; signal?: AbortSignal } = {},
) {
  const events = [];
  const batches = readWorkerStream(bytesOf(body), {
    ...dialect,
    silenceMsMax: options.silenceMsMax ?? 60_000,
    bytesMax: options.bytesMax ?? 10_000_000,
    signal: options.signal ?? new AbortController().signal,
  });
  for await (const batch of batches) events.push(...batch);
  return events;
}

test('events arrive as they were sent, wherever the network cuts them', async () => {
  const bytes = encoder.encode(whole);
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(fc.nat(bytes.length), { maxLength: 20 }), async (cuts) => {
      const ends = [...cuts.toSorted((a, b) => a - b), bytes.length];
      const pieces = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
      const events = await read(bodyOf(pieces));
      expect(events.map(({ chunk }) => chunk.choices[0]?.text)).toEqual(['é', '漢', '🌍']);
      expect(events.at(-1)?.usage).toEqual({
        inputUncached: 7,
        inputCached: null,
        outputText: 2,
        outputReasoning: 0,
      });
    }),
    { numRuns: 50 },
  );
});

test('all else has its turn between the slices of a long read', async () => {
  const events = Array.from({ length: 2_000 }, (_, at) => event(`é${at}`));
  const text = `${sse(...events)}data: [DONE]\n\n`;
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  const all = [];
  let batches = 0;
  for await (const batch of readWorkerStream(bytesOf(bodyOf([text])), {
    ...dialect,
    silenceMsMax: 60_000,
    bytesMax: 10_000_000,
    signal: new AbortController().signal,
  })) {
    batches++;
    all.push(...batch.map(({ chunk }) => chunk.choices[0]?.text));
  }
  clearInterval(timer);
  expect(all).toEqual(events.map(({ choices }) => choices[0]?.text));
  expect(batches).toBeGreaterThan(10);
  expect(turns).toBeGreaterThanOrEqual(batches - 2);
});

test('lines may end in CR LF, and comments are skipped', async () => {
  const text = `: keep-alive\r\n\r\ndata: ${JSON.stringify(event('x'))}\r\n\r\ndata: [DONE]\r\n\r\n`;
  expect(await read(bodyOf([text]))).toHaveLength(1);
});

test('what comes after [DONE] is not read', async () => {
  expect(await read(bodyOf([`${whole}data: garbage\n\n`]))).toHaveLength(3);
});

test.each([
  ['ends before [DONE]', [sse(event('x'))]],
  ['sends an event that is not JSON', ['data: <html>\n\n']],
  ['sends choices that are none', [sse({ id: 'a', choices: 'none' })]],
  ['sends an error', [sse({ error: { message: 'm', type: 't', param: null, code: null } })]],
  ['sends nothing', []],
  ['sends bytes that are no events', ['\u0000\u0001 hello', new Uint8Array([0xff, 0xfe])]],
  ['counts below zero', [sse({ ...event('x'), usage: { prompt_tokens: -1 } })]],
  ['sends one event without end', [`data: "${'x'.repeat(5_000_000)}`]],
])('a worker that %s has failed', async (_, pieces) => {
  await expect(read(bodyOf(pieces))).rejects.toThrow(WorkerFailure);
});

test('a worker whose answer does not end has failed', async () => {
  for (const piece of [sse(event('x')), ': comment\n\n', '\n']) {
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(encoder.encode(piece.repeat(100))),
    });
    await expect(read(endless, { bytesMax: 100_000 })).rejects.toThrow('does not end');
  }
});

test.each([
  [
    'nested too deeply',
    `{"choices":[],"prompt_logprobs":${'['.repeat(5_000)}${']'.repeat(5_000)}}`,
  ],
  ['beyond all counts', JSON.stringify({ ...event('x'), usage: { prompt_tokens: 2 ** 31 } })],
])('a worker that sends what is %s has failed', async (_, json) => {
  await expect(read(bodyOf([`data: ${json}\n\n`]))).rejects.toThrow(WorkerFailure);
});

test('a worker whose connection breaks has failed', async () => {
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.error(new Error('reset')),
  });
  await expect(read(body)).rejects.toThrow(WorkerFailure);
});

test('a worker that falls silent has failed, and one that only comments has not', async () => {
  const silent = new ReadableStream<Uint8Array>({});
  await expect(read(silent, { silenceMsMax: 20 })).rejects.toThrow('silent');
  let comments = 0;
  const patient = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      controller.enqueue(encoder.encode(comments++ < 10 ? ': keep-alive\n\n' : whole));
    },
  });
  expect(await read(patient, { silenceMsMax: 60 })).toHaveLength(3);
});

test('an abort lets go of the worker, even while nobody takes the events', async () => {
  const stop = new AbortController();
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encoder.encode(sse(event('x')))),
    cancel: () => void (cancelled = true),
  });
  const batches = readWorkerStream(bytesOf(body), {
    ...dialect,
    silenceMsMax: 60_000,
    bytesMax: 10_000_000,
    signal: stop.signal,
  });
  await batches.next();
  stop.abort();
  expect(cancelled).toBe(true);
  await expect(batches.next()).rejects.toThrow('aborted');
});
