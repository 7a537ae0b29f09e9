/** Large bodies on threads of their own: the same comes of them as of work in place. */
import { afterAll, expect, test } from 'vitest';
import { prepareBody, rewrite, textOf } from '../../../edge/bodies/body-work.ts';
import type { PrepareInput } from '../../../edge/inference/prepare.ts';
import { createBodyThreads } from '../../../edge/node/body-threads.ts';

const threads = createBodyThreads({ edges: 1 });
afterAll(() => threads.close());
const onThreads = { threads };
const inPlace = { threads: null };

const model = {
  id: 'm',
  contextLength: 10_000_000,
  revision: 'r',
  tokenizer: 't',
  ownedBy: 'sift',
  createdAtMs: 0,
};
const { signal } = new AbortController();
const client = { tenant: 'acme', signal };
const long = 'lorem "ipsum" é 漢 '.repeat(10_000);
const messages = [
  { role: 'user', content: long },
  { role: 'assistant', content: long, reasoning_content: 'so' },
  { role: 'user', content: 'x' },
];
const parameters = {
  type: 'object',
  properties: Object.fromEntries(
    Array.from({ length: 20_000 }, (_, at) => [`p${at}`, { type: 'string' }]),
  ),
};
const tools = [{ type: 'function', function: { name: 'f', parameters } }];

const inputOf = (reader: string, json: unknown): PrepareInput => ({
  bytes: new TextEncoder().encode(typeof json === 'string' ? json : JSON.stringify(json)),
  reader,
  hashedPath: '/v1/x',
  tenant: 'acme',
  cacheSecret: 'secret',
  models: [model],
  aliases: [],
  passedOver: [],
  context: { storesUnasked: false, earlier: null },
});

const requests: readonly [string, unknown][] = [
  ['chat', { model: 'm', messages, tools, stop: ['a', 'b'], service_tier: 'auto', stream: true }],
  ['text', { model: 'm', prompt: long, suffix: long, max_tokens: 7 }],
  ['text', { model: 'm', prompt: Array.from({ length: 100_000 }, (_, at) => at % 50) }],
  ['messages', { model: 'm', max_tokens: 3, messages: [{ role: 'user', content: long }] }],
  ['count', { model: 'm', messages: [{ role: 'user', content: long }] }],
  ['quote', { model: 'm', prompt: long }],
  ['responses', { model: 'm', input: [{ role: 'user', content: long }], instructions: long }],
  ['response-tokens', { model: 'm', input: long }],
];

test.each(requests)('a large request (%s) is prepared as a small one is', async (reader, json) => {
  const expected = await prepareBody(inPlace, inputOf(reader, json), client);
  const input = inputOf(reader, json);
  const prepared = await prepareBody(onThreads, input, client);
  // They were handed over.
  expect(input.bytes.length).toBe(0);
  expect(textOf(prepared.body)).toBe(expected.body);
  const { chain, body: _, ...rest } = prepared;
  const { chain: expectedChain, body: _body, ...expectedRest } = expected;
  expect(rest).toEqual(expectedRest);
  expect(chain?.keys).toEqual(expectedChain?.keys);
  expect(chain && Buffer.from(chain.lastKey).toString('hex')).toBe(
    expectedChain && Buffer.from(expectedChain.lastKey).toString('hex'),
  );
  expect(chain?.rest).toEqual(expectedChain?.rest);
  for (const to of ['answer-elsewhere', 'count', 'count-elsewhere'] as const) {
    const rewritten = await rewrite(onThreads, { body: prepared.body, to }, client);
    expect(textOf(rewritten)).toBe(await rewrite(inPlace, { body: expected.body, to }, client));
  }
});

const faulty: readonly [string, unknown][] = [
  ['chat', `{"model":"m","messages":[${' '.repeat(100_000)}`],
  ['chat', { model: 'm', messages, temprature: 1 }],
  ['chat', { model: 'other', messages }],
  ['messages', { model: 'm', messages: [{ role: 'user', content: long }], thread: {} }],
  ['text', { model: 'm', prompt: long, temperature: 7 }],
  ['chat', { model: 'm', messages, stream_options: {} }],
];

test.each(faulty)(
  'a large faulty request (%s) gets the error of a small one',
  async (reader, json) => {
    const errorOf = (work: Promise<unknown>) =>
      work.then(
        () => null,
        (error: unknown) => error,
      );
    const expected = await errorOf(prepareBody(inPlace, inputOf(reader, json), client));
    const error = await errorOf(prepareBody(onThreads, inputOf(reader, json), client));
    expect(expected).not.toBeNull();
    expect(error).toEqual(expected);
  },
);

test('the event loop goes on turning while a large body is worked on', async () => {
  let turns = 0;
  let working = true;
  const count = (): void => {
    turns++;
    if (working) setImmediate(count);
  };
  setImmediate(count);
  await prepareBody(onThreads, inputOf('chat', { model: 'm', messages, tools }), client);
  working = false;
  expect(turns).toBeGreaterThan(1);
});

test('a client that leaves takes its work along, and the next is served', async () => {
  const leaving = new AbortController();
  const left = Array.from({ length: 5 }, () =>
    prepareBody(onThreads, inputOf('chat', { model: 'm', messages, tools }), {
      tenant: 'acme',
      signal: leaving.signal,
    }),
  );
  const stays = prepareBody(onThreads, inputOf('text', { model: 'm', prompt: long }), client);
  leaving.abort();
  for (const work of left) await expect(work).rejects.toMatchObject({ code: 'client_left' });
  expect((await stays).model.id).toBe('m');
});
