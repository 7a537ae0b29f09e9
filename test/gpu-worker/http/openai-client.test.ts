/** The official OpenAI client against a whole worker: tiny model, cpu backend, real socket. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from 'openai';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { startWorker } from '../../../gpu-worker/main.ts';
import type { RunningWorker } from '../../../gpu-worker/main.ts';
import { usageRecordSchema } from '../../../gpu-worker/protocol/usage.ts';
import { settingsOfArgs } from '../../support/worker/worker-settings.ts';
import { faultOf } from '../../support/schemas/random-schema.ts';

const token = 'a-worker-token-of-length';
const model = 'tiny';
const messages = [{ role: 'user' as const, content: 'Hello' }];
const greedy = { model, messages, temperature: 0, max_tokens: 24 };

let data: string;
let worker: RunningWorker;
let client: OpenAI;

beforeAll(async () => {
  data = await mkdtemp(join(tmpdir(), 'sift-worker-'));
  const directory = fileURLToPath(new URL('../../../gpu-worker/models/tiny', import.meta.url));
  const flags = ['--model', directory, '--model-id', model, '--port', '0', '--data', data];
  const settings = settingsOfArgs([...flags, '--threads', '1', '--cache-tokens', '8192'], {
    WORKER_TOKEN: token,
  });
  worker = await startWorker(settings, pino({ level: 'silent' }));
  client = new OpenAI({ baseURL: `${worker.url}/v1`, apiKey: token, maxRetries: 0 });
});
afterAll(async () => {
  await worker?.close({ graceMs: 0 });
  await rm(data, { recursive: true });
});

function get(path: string): Promise<Response> {
  return fetch(`${worker.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
}

test('a chat is answered, and the same question gets the same answer', async () => {
  const { data: first, request_id: id } = await client.chat.completions
    .create(greedy)
    .withResponse();
  const second = await client.chat.completions.create(greedy);
  const [choice] = first.choices;
  expect(choice?.message.role).toBe('assistant');
  expect(choice?.message.content).not.toBe('');
  expect(second.choices).toEqual(first.choices);
  expect(first.usage?.prompt_tokens).toBe(5);
  expect(first.usage?.total_tokens).toBe(5 + (first.usage?.completion_tokens ?? 0));
  expect(first.id).toBe(`chatcmpl-${id}`);
});

test('a streamed chat has the same text and usage as one that is not', async () => {
  const whole = await client.chat.completions.create(greedy);
  const stream = await client.chat.completions.create({
    ...greedy,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let finish: string | null = null;
  let usage: OpenAI.CompletionUsage | null = null;
  for await (const chunk of stream) {
    const [choice] = chunk.choices;
    text += choice?.delta.content ?? '';
    finish = choice?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  expect(text).toBe(whole.choices[0]?.message.content);
  expect(finish).toBe(whole.choices[0]?.finish_reason);
  expect(usage).toEqual(whole.usage);
});

test('the client’s own helper puts a stream together', async () => {
  const whole = await client.chat.completions.create(greedy);
  const final = await client.chat.completions.stream(greedy).finalChatCompletion();
  expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
});

test('logprobs of a greedy answer name its own tokens as the likeliest', async () => {
  const answer = await client.chat.completions.create({
    ...greedy,
    logprobs: true,
    top_logprobs: 3,
  });
  const content = answer.choices[0]?.logprobs?.content ?? [];
  expect(content.length).toBeGreaterThan(0);
  for (const entry of content) {
    expect(entry.top_logprobs).toHaveLength(3);
    expect(entry.top_logprobs[0]?.bytes).toEqual(entry.bytes);
    expect(entry.logprob).toBeLessThanOrEqual(0);
    expect(entry.top_logprobs[0]?.logprob).toBe(entry.logprob);
  }
  const bytes = content.flatMap((entry) => entry.bytes ?? []);
  const text = Buffer.from(bytes).toString().replace('<|end|>', '');
  expect(text).toBe(answer.choices[0]?.message.content);
});

test('n answers of one seed differ from one another and come again the same', async () => {
  const sampled = { ...greedy, temperature: 1.5, top_p: 1, seed: 7, n: 3 };
  const first = await client.chat.completions.create(sampled);
  const second = await client.chat.completions.create(sampled);
  expect(first.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
  const texts = first.choices.map((choice) => choice.message.content);
  expect(new Set(texts).size).toBeGreaterThan(1);
  expect(second.choices.map((choice) => choice.message.content)).toEqual(texts);
});

test.each(['9223372036854775807', '-9223372036854775808', '9007199254740991', '-1'])(
  'the seed %s is taken, and gives the same answers each time',
  async (seed) => {
    // The number is compared as text: a JavaScript number can't hold all of them.
    const body = JSON.stringify({ ...greedy, temperature: 1.5, top_p: 1, n: 3 }).replace(
      '{',
      `{"seed":${seed},`,
    );
    const answers = async () => {
      const response = await fetch(`${worker.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body,
      });
      expect(response.status).toBe(200);
      return z.object({ choices: z.array(z.unknown()) }).parse(await response.json()).choices;
    };
    const first = await answers();
    expect(first).toHaveLength(3);
    expect(await answers()).toEqual(first);
  },
);

test('top_p 0 takes the likeliest token, whatever the temperature', async () => {
  const likeliest = await client.chat.completions.create(greedy);
  const narrow = await client.chat.completions.create({ ...greedy, temperature: 2, top_p: 0 });
  expect(narrow.choices).toEqual(likeliest.choices);
});

test('a stop string ends the answer before it', async () => {
  const whole = await client.chat.completions.create(greedy);
  const text = whole.choices[0]?.message.content ?? '';
  const stop = text.slice(2, 5);
  const stopped = await client.chat.completions.create({ ...greedy, stop: [stop] });
  expect(stopped.choices[0]?.message.content).toBe(text.slice(0, text.indexOf(stop)));
  expect(stopped.choices[0]?.finish_reason).toBe('stop');
});

const boat: Record<string, unknown> = {
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 1, maxLength: 30 },
    kind: { enum: ['barge', 'cutter', 'ketch'] },
    crew: { type: 'integer', minimum: 1, maximum: 40 },
    ports: { type: 'array', items: { type: 'string', maxLength: 12 }, minItems: 1, maxItems: 2 },
  },
  required: ['name', 'kind', 'crew', 'ports'],
  additionalProperties: false,
};
const boatFormat = {
  type: 'json_schema' as const,
  json_schema: { name: 'boat', schema: boat, strict: true },
};

test('an answer of a schema is parsed by the client, greedy and at any temperature', async () => {
  for (const temperature of [0, 0.7, 2]) {
    const answer = await client.chat.completions.parse({
      ...greedy,
      temperature,
      seed: 3,
      n: 2,
      max_tokens: 300,
      response_format: boatFormat,
    });
    for (const { message, finish_reason: reason } of answer.choices) {
      expect(reason).toBe('stop');
      expect(faultOf(boat, message.parsed), message.content ?? '').toBe(null);
    }
  }
});

test('a streamed answer of a schema has the same text, with logprobs and penalties too', async () => {
  const asked = {
    ...greedy,
    max_tokens: 300,
    response_format: boatFormat,
    frequency_penalty: 1,
    logprobs: true,
    top_logprobs: 2,
  };
  const whole = await client.chat.completions.create(asked);
  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  expect(streamed.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
  expect(faultOf(boat, JSON.parse(whole.choices[0]?.message.content ?? ''))).toBe(null);
  const entries = whole.choices[0]?.logprobs?.content ?? [];
  expect(entries).toHaveLength(whole.usage?.completion_tokens ?? -1);
});

test('an answer of any object begins as one, and ends as one or with length', async () => {
  const { choices } = await client.chat.completions.create({
    ...greedy,
    max_tokens: 400,
    response_format: { type: 'json_object' },
  });
  const [choice] = choices;
  expect(choice?.message.content).toMatch(/^\{/);
  if (choice?.finish_reason === 'stop') {
    expect(JSON.parse(choice.message.content ?? '')).toEqual(expect.any(Object));
  }
});

test('max_tokens ends the answer with length', async () => {
  const answer = await client.chat.completions.create({ ...greedy, max_tokens: 2 });
  expect(answer.choices[0]?.finish_reason).toBe('length');
  expect(answer.usage?.completion_tokens).toBe(2);
});

test('a completion echoes its prompt with the logprobs of both', async () => {
  const prompt = 'The harbour of';
  const completion = await client.completions.create({
    model,
    prompt,
    temperature: 0,
    max_tokens: 4,
    echo: true,
    logprobs: 1,
  });
  const [choice] = completion.choices;
  const logprobs = choice?.logprobs;
  expect(choice?.text.startsWith(prompt)).toBe(true);
  expect(logprobs?.tokens).toHaveLength(
    (completion.usage?.prompt_tokens ?? 0) + (completion.usage?.completion_tokens ?? 0),
  );
  expect(logprobs?.token_logprobs?.[0]).toBeNull();
  expect(logprobs?.token_logprobs?.slice(1).every((each) => each <= 0)).toBe(true);
  // Each token stands in the text where its offset says.
  logprobs?.tokens?.slice(1).forEach((each, index) => {
    const offset = logprobs.text_offset?.[index + 1] ?? -1;
    expect(choice?.text.slice(offset, offset + each.length)).toBe(each);
  });
});

test('several prompts are answered in order, each as if it were alone', async () => {
  const prompts = ['The harbour of', 'Once upon a'];
  const shared = { model, temperature: 0, max_tokens: 6 };
  const together = await client.completions.create({ ...shared, prompt: prompts });
  for (const [index, prompt] of prompts.entries()) {
    const alone = await client.completions.create({ ...shared, prompt });
    expect(together.choices[index]?.text).toBe(alone.choices[0]?.text);
  }
});

test('a prefix of whole blocks is cached for the next request of the same salt alone', async () => {
  const content = 'The harbour is old and its walls are thick. '.repeat(20);
  const ask = (cacheSalt: string) => {
    // Through a variable, because OpenAI's types have no cache_salt.
    const long = { ...greedy, messages: [{ role: 'user' as const, content }], max_tokens: 1 };
    const salted = { ...long, cache_salt: cacheSalt };
    return client.chat.completions.create(salted);
  };
  const first = await ask('tenant-a');
  const second = await ask('tenant-a');
  const other = await ask('tenant-b');
  const cached = [first, second, other].map((each) => each.usage?.prompt_tokens_details);
  expect(cached[0]).toEqual({ cached_tokens: 0 });
  expect(cached[1]?.cached_tokens).toBeGreaterThanOrEqual(64);
  expect((cached[1]?.cached_tokens ?? 1) % 64).toBe(0);
  expect(cached[2]).toEqual({ cached_tokens: 0 });
  expect(second.choices).toEqual(first.choices);
});

test('a client that leaves stops the generation, and the journal knows what it took', async () => {
  const leaving = new AbortController();
  const endless = { ...greedy, max_tokens: 4000, ignore_eos: true };
  const stream = await client.chat.completions.create(
    { ...endless, stream: true },
    { signal: leaving.signal, headers: { 'x-request-id': 'left-early' } },
  );
  const chunks = stream[Symbol.asyncIterator]();
  for (let chunk = 0; chunk < 5; chunk++) await chunks.next();
  leaving.abort();
  const usageOf = async () =>
    usageRecordSchema.parse(await (await get('/v1/requests/left-early/usage')).json());
  while ((await usageOf()).status === 'running') await sleep(10);
  const record = await usageOf();
  expect(record.status).toBe('aborted');
  expect(record.usage.completion_tokens).toBeGreaterThanOrEqual(3);
  expect(record.usage.completion_tokens).toBeLessThan(4000);
  const health = (await (await get('/health')).json()) as { load: { running_sequences: number } };
  expect(health.load.running_sequences).toBe(0);
});

test('the client finds the model, and raises its own errors for ours', async () => {
  const { data: models } = await client.models.list();
  expect(models.map((each) => each.id)).toEqual([model]);
  expect((await client.models.retrieve(model)).owned_by).toBe('sift');

  const unknown = client.chat.completions.create({ ...greedy, model: 'gpt-4o' });
  await expect(unknown).rejects.toThrow(NotFoundError);
  const invalid = client.chat.completions.create({ ...greedy, temperature: 3 });
  await expect(invalid).rejects.toMatchObject({ status: 400, param: 'temperature' });
  await expect(invalid).rejects.toThrow(BadRequestError);
  const tooLong = client.completions.create({ model, prompt: 'x', max_tokens: 1_000_000 });
  await expect(tooLong).rejects.toMatchObject({ code: 'context_length_exceeded' });
  const stranger = new OpenAI({ baseURL: `${worker.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
  await expect(stranger.models.list()).rejects.toThrow(AuthenticationError);
});

test('what the engine counted is in the metrics', async () => {
  const text = await (await get('/metrics')).text();
  const outputs = /^sift_output_tokens_total (\d+)$/m.exec(text)?.[1];
  expect(Number(outputs)).toBeGreaterThan(100);
  expect(text).toMatch(/^sift_build_info\{.*backend="cpu"\} 1$/m);
});
