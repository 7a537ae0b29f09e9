/** The threads that read requests: what is read of small ones while others take long. */
import { afterEach, expect, test, vi } from 'vitest';
import { openTextPool } from '../../../../gpu-worker/http/text/text-pool.ts';
import type { TextPool } from '../../../../gpu-worker/http/text/text-pool.ts';
import type { ReadChat, TextRequest } from '../../../../gpu-worker/http/text/text-model.ts';
import { tinyDescription } from '../../../support/worker/scripted-engine.ts';
import type { TextEntryOptions } from '../../../support/worker/text-entry.ts';
import { tinyExpected } from '../../tokenizer/fixture.ts';

const entry = new URL('../../../support/worker/text-entry.ts', import.meta.url);
/** So much that no text here is refused for its length. */
const description = { ...tinyDescription, contextLength: 2 ** 30 };
/** Seconds of tokenising, where a short text takes a millisecond. */
const endless = '4?7!'.repeat(2 ** 21);

let pool: TextPool | null = null;
afterEach(async () => {
  await pool?.close();
  pool = null;
});

async function open(
  options: { threads?: number; waitingBytesMax?: number } & Partial<TextEntryOptions> = {},
): Promise<TextPool> {
  const { threads = 2, jobMs = 600_000, waitingBytesMax, ...workerData } = options;
  pool = await openTextPool({
    entry,
    workerData: { jobMs, ...workerData } satisfies TextEntryOptions,
    threads,
    jobMs,
    ...(waitingBytesMax !== undefined && { waitingBytesMax }),
    onFailure(reason) {
      throw new Error(reason);
    },
  });
  return pool;
}

function chat(content: string, fields: object = {}): TextRequest<'chat'> {
  const messages = [{ role: 'user', content }];
  const text = Buffer.from(JSON.stringify({ model: 'tiny', messages, ...fields }));
  const body = new SharedArrayBuffer(text.length);
  new Uint8Array(body).set(text);
  return { route: 'chat', id: 'req', body, description };
}

const never = new AbortController().signal;
const tokensOf = ({ requests: [request] }: ReadChat): number => request.promptTokens.length;

/** Reads until the signal is aborted, and says that it was. */
function readEndlessly(reader: TextPool, signal: AbortSignal, fields: object = {}): Promise<void> {
  const reading = reader.read(chat(endless, fields), signal);
  return expect(reading).rejects.toThrow('the request was stopped before it was read');
}

test('a request is read as the model would have it', async () => {
  const reader = await open({ threads: 1 });
  const { input_ids: tokens } = tinyExpected[0] ?? { input_ids: [] };
  const text = Buffer.from(JSON.stringify({ model: 'tiny', prompt: tokens, stop: ['.'] }));
  const body = new SharedArrayBuffer(text.length);
  new Uint8Array(body).set(text);
  const read = await reader.read({ route: 'completion', id: 'req', body, description }, never);
  expect(read.requests[0]).toMatchObject({ id: 'req', stopStrings: ['.'] });
  expect([...(read.requests[0]?.promptTokens ?? [])]).toEqual(tokens);
});

test('small requests are read while more large ones than threads take for ever', async () => {
  const reader = await open();
  const stop = new AbortController();
  const large = [1, 2, 3].map(() => readEndlessly(reader, stop.signal));
  for (const content of ['a', 'b', 'c']) {
    expect(tokensOf(await reader.read(chat(content), never))).toBeGreaterThan(0);
  }
  stop.abort();
  await Promise.all(large);
});

test('one thread reads what is much smaller in between', async () => {
  const reader = await open({ threads: 1 });
  const stop = new AbortController();
  const large = readEndlessly(reader, stop.signal);
  expect(tokensOf(await reader.read(chat('a'), never))).toBeGreaterThan(0);
  stop.abort();
  await large;
});

test('one thread reads what is as large of another scope in between', async () => {
  const reader = await open({ threads: 1 });
  const stop = new AbortController();
  const large = readEndlessly(reader, stop.signal, { cache_salt: 'one' });
  const other = chat('a b '.repeat(2 ** 16), { cache_salt: 'other' });
  expect(tokensOf(await reader.read(other, never))).toBeGreaterThan(2 ** 16);
  stop.abort();
  await large;
});

test('a request whose client leaves makes room, also where it waits', async () => {
  const reader = await open({ threads: 1 });
  const clients = Array.from({ length: 8 }, () => new AbortController());
  const large = clients.map(({ signal }) => readEndlessly(reader, signal));
  await vi.waitUntil(() => reader.waiting === 7);
  for (const client of clients) client.abort();
  await Promise.all(large);
  expect(reader.waiting).toBe(0);
  expect(tokensOf(await reader.read(chat('a'), never))).toBeGreaterThan(0);
});

test('a request that takes too long is refused with the limit', async () => {
  const reader = await open({ jobMs: 100 });
  await expect(reader.read(chat(endless), never)).rejects.toMatchObject({
    code: 'request_too_complex',
    message: expect.stringContaining('longer than the 0.1 s'),
  });
  expect(tokensOf(await reader.read(chat('a'), never))).toBeGreaterThan(0);
});

test('a thread that can’t be interrupted is ended, and a new one reads on', async () => {
  // A template is not interrupted before its own limit of seconds.
  const template = '{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}';
  const reader = await open({ threads: 1, jobMs: 100, template });
  const stuck = reader.read(chat('a'), never);
  await expect(stuck).rejects.toMatchObject({ code: 'request_too_complex' });
  const text = Buffer.from(JSON.stringify({ model: 'tiny', prompt: 'a' }));
  const body = new SharedArrayBuffer(text.length);
  new Uint8Array(body).set(text);
  const read = await reader.read({ route: 'completion', id: 'req', body, description }, never);
  expect(read.requests).toHaveLength(1);
});

test('what waits is bounded, and the next one is told when to come back', async () => {
  const reader = await open({ threads: 1, waitingBytesMax: 2.5 * endless.length });
  const stop = new AbortController();
  const large = Array.from({ length: 3 }, () => readEndlessly(reader, stop.signal));
  const refused = reader.read(chat(endless), never);
  await expect(refused).rejects.toMatchObject({ status: 429, headers: { 'retry-after': '1' } });
  stop.abort();
  await Promise.all(large);
});

test('a thread that can’t open the text is the reason why the pool does not open', async () => {
  await expect(open({ opens: false })).rejects.toThrow('the tokenizer is broken');
});
