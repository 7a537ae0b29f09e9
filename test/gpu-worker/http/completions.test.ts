/** Completions through the app, with answers that the test wrote. */
import { expect, test } from 'vitest';
import { answering, httpWorker, parseEvents } from '../../support/worker/http-worker.ts';
import type { HttpWorker } from '../../support/worker/http-worker.ts';
import type { Completion } from '../../../gpu-worker/protocol/responses.ts';

const script = answering('It', ' is', ' té.');

async function complete(worker: HttpWorker, body: object) {
  return worker.app.request('/v1/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', ...body }),
  });
}

async function completed(worker: HttpWorker, body: object): Promise<Completion> {
  const response = await complete(worker, body);
  expect(response.status, await response.clone().text()).toBe(200);
  // The test's own assertions look at each field that matters.
  return (await response.json()) as Completion;
}

test('a text prompt gets the begin token in front and is continued', async () => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, { prompt: 'Tea' });
  expect(completion).toMatchObject({
    object: 'text_completion',
    choices: [
      { index: 0, text: 'It is té.', logprobs: null, finish_reason: 'stop', stop_reason: null },
    ],
    usage: { completion_tokens: 3 },
  });
  const tokens = worker.engine.requests[0]?.promptTokens ?? [];
  expect(worker.text.tokenizer.decode(tokens, { skipSpecial: false })).toBe('<|begin|>Tea');
});

test('a prompt that begins with the begin token gets no second one', async () => {
  await using worker = await httpWorker({ script });
  await completed(worker, { prompt: '<|begin|>Tea' });
  const tokens = worker.engine.requests[0]?.promptTokens ?? [];
  expect(worker.text.tokenizer.decode(tokens, { skipSpecial: false })).toBe('<|begin|>Tea');
});

test('a body is taken piece by piece, whoever writes over a piece later', async () => {
  await using worker = await httpWorker({ script });
  const prompt = Array.from({ length: 200 }, (_, at) => 300 + at);
  const bytes = Buffer.from(JSON.stringify({ model: 'tiny', prompt, max_tokens: 1 }));
  for (const lengths of [{}, { 'content-length': String(bytes.length) }]) {
    const piece = new Uint8Array(100);
    let sent = 0;
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          // The piece before this one is the same memory.
          const part = bytes.subarray(sent, sent + piece.length);
          if (part.length === 0) return controller.close();
          piece.set(part);
          sent += part.length;
          controller.enqueue(piece.subarray(0, part.length));
        },
      },
      { highWaterMark: 0 },
    );
    const headers = { 'content-type': 'application/json', ...lengths };
    const init = { method: 'POST', headers, body, duplex: 'half' };
    const response = await worker.app.request('/v1/completions', init);
    expect(response.status, await response.text()).toBe(200);
    expect(worker.engine.requests.at(-1)?.promptTokens).toEqual(Int32Array.from(prompt));
  }
});

test('log-probabilities of a long answer are those of its stream, and come in pieces', async () => {
  const words = Array.from({ length: 900 }, (_, at) => ` word${at}`);
  await using worker = await httpWorker({ script: answering(...words) });
  const asked = { prompt: 'Tea', logprobs: 3, max_tokens: 900, n: 8 };
  const response = await complete(worker, asked);
  expect(response.status, response.ok ? '' : await response.text()).toBe(200);
  const pieces = await Array.fromAsync(response.body ?? []);
  expect(pieces.length).toBeGreaterThan(3);
  const whole = JSON.parse(Buffer.concat(pieces).toString()) as Completion;
  const streamed = await complete(worker, { ...asked, stream: true });
  const events = parseEvents(await streamed.text()).slice(0, -1) as Completion[];
  const logprobs = events.flatMap(({ choices }) =>
    choices.flatMap((choice) => (choice.index === 1 ? [choice.logprobs] : [])),
  );
  for (const field of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const) {
    const expected = logprobs.flatMap((each): readonly unknown[] => each?.[field] ?? []);
    expect(whole.choices[1]?.logprobs?.[field]).toEqual(expected);
  }
});

test('a prompt of token ids is taken as it is', async () => {
  await using worker = await httpWorker({ script });
  await completed(worker, { prompt: [5, 6, 7] });
  expect(worker.engine.requests[0]?.promptTokens).toEqual(Int32Array.of(5, 6, 7));
});

test.for([
  { prompt: ['Tea', 'Water'] },
  {
    prompt: [
      [300, 301],
      [400, 401],
    ],
  },
])('several prompts have their choices in order: %j', async (prompts) => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, { ...prompts, n: 2 });
  expect(completion.choices.map(({ index, text }) => [index, text])).toEqual([
    [0, 'It is té.'],
    [1, 'It1 is1 té.1'],
    [2, 'It is té.'],
    [3, 'It1 is1 té.1'],
  ]);
  const [first, second] = worker.engine.requests;
  expect(completion.usage).toMatchObject({
    prompt_tokens: (first?.promptTokens.length ?? 0) + (second?.promptTokens.length ?? 0),
    completion_tokens: 12,
  });
  expect(first?.id).not.toBe(second?.id);
});

test('echo puts the prompt in front, streamed or not', async () => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, { prompt: 'Tea?', echo: true });
  expect(completion.choices[0]?.text).toBe('Tea?It is té.');
  const response = await complete(worker, { prompt: 'Tea?', echo: true, stream: true });
  const events = parseEvents(await response.text()).slice(0, -1) as Completion[];
  expect(events.map((event) => event.choices[0]?.text)).toEqual(['Tea?', 'It', ' is', ' té.', '']);
  expect(events.at(-1)?.choices[0]?.finish_reason).toBe('stop');
});

test('logprobs are parallel arrays whose offsets count the characters of the text', async () => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, { prompt: 'Tea', logprobs: 2 });
  expect(completion.choices[0]?.logprobs).toEqual({
    tokens: ['It', ' is', ' té.'],
    token_logprobs: [-1, -1, -1],
    top_logprobs: [
      { It: -1, 'bytes:\\xe2\\x81': -2 },
      { ' is': -1, 'bytes:\\xe2\\x81': -2 },
      { ' té.': -1, 'bytes:\\xe2\\x81': -2 },
    ],
    text_offset: [0, 2, 5],
  });
});

test("echo with logprobs includes the prompt's, the first of them unknown", async () => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, {
    prompt: 'Tea',
    echo: true,
    logprobs: 0,
    max_tokens: 1,
  });
  const [request] = worker.engine.requests;
  expect(request).toMatchObject({ promptLogprobs: 0, logprobs: 0, outputTokensMax: 1 });
  const [choice] = completion.choices;
  const promptTokens = [...(request?.promptTokens ?? [])];
  const pieces = promptTokens.map((token) =>
    Buffer.from(worker.text.tokenizer.tokenBytes(token)).toString(),
  );
  expect(choice?.text).toBe('TeaIt');
  expect(choice?.logprobs?.tokens).toEqual([...pieces, 'It']);
  expect(choice?.logprobs?.token_logprobs[0]).toBeNull();
  expect(choice?.logprobs?.top_logprobs[0]).toBeNull();
  // The begin token is ours: it takes no place in the text.
  expect(choice?.logprobs?.text_offset[0]).toBe(0);
  expect(choice?.logprobs?.text_offset[1]).toBe(0);
  expect(choice?.logprobs?.text_offset.at(-1)).toBe(3);
});

test('a token that goes on with a character has the offset of that character', async () => {
  await using worker = await httpWorker({ script });
  // The bytes of é as two tokens, as byte-level vocabularies have them.
  const byteToken = (byte: number) => {
    for (let token = 0; token < worker.text.tokenizer.vocabSize; token++) {
      const bytes = worker.text.tokenizer.tokenBytes(token);
      if (bytes.length === 1 && bytes[0] === byte) return token;
    }
    throw new Error(`no token for byte ${byte}`);
  };
  const prompt = [byteToken(0x61), byteToken(0xc3), byteToken(0xa9), byteToken(0x62)];
  const completion = await completed(worker, { prompt, echo: true, logprobs: 0, max_tokens: 0 });
  expect(completion.choices[0]).toMatchObject({
    text: 'aéb',
    finish_reason: 'length',
    logprobs: { tokens: ['a', 'bytes:\\xc3', 'bytes:\\xa9', 'b'], text_offset: [0, 1, 1, 2] },
  });
});

test('prompt_logprobs are given per choice', async () => {
  await using worker = await httpWorker({ script });
  const completion = await completed(worker, { prompt: [8, 9], prompt_logprobs: 0, max_tokens: 0 });
  expect(completion.choices[0]?.prompt_logprobs).toEqual([
    null,
    { '9': { logprob: -1, rank: null, decoded_token: '"' } },
  ]);
});

test('running usage begins with the prompt and ends with the sum', async () => {
  await using worker = await httpWorker({ script });
  const response = await complete(worker, {
    prompt: ['a', 'b'],
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  const events = parseEvents(await response.text()).slice(0, -1) as Completion[];
  const totals = events.map((event) => event.usage?.completion_tokens ?? -1);
  expect(totals[0]).toBe(0);
  expect(totals).toEqual(totals.toSorted((a, b) => a - b));
  expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 6 } });
});

test('suffix is refused by a tokenizer without fill-in-the-middle tokens', async () => {
  await using worker = await httpWorker({ script });
  const response = await complete(worker, { prompt: 'a', suffix: 'b' });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({
    error: { param: 'suffix', code: 'unsupported_parameter' },
  });
});
