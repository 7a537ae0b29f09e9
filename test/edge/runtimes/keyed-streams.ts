/**
 * Streams under an Idempotency-Key, read by real clients: their events have ids, and the same
 * request again gives the same answer, paid once. The reason why a prompt was not cached stands in
 * each client's own usage.
 */
import { createAnthropic } from '@ai-sdk/anthropic';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { streamText } from 'ai';
import OpenAI from 'openai';
import { describe, expect, test } from 'vitest';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import type { RunningEdge } from './end-to-end.ts';

const words = Array.from({ length: 30 }, (_, index) => ` ${index}`);
const answer = words.join('');

/** Reads a stream's text under the key, the way of that client. */
type Read = (edge: RunningEdge, key: string) => Promise<string>;

const headersOf = (key: string) => ({ 'Idempotency-Key': key });
const messagesOf = (key: string) => [{ role: 'user' as const, content: `Count, ${key}.` }];

const openaiOf = ({ baseUrl, apiKey }: RunningEdge) =>
  new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey, maxRetries: 0 });

async function joined(pieces: AsyncIterable<string | null | undefined>): Promise<string> {
  let text = '';
  for await (const piece of pieces) text += piece ?? '';
  return text;
}

async function* chatPieces(edge: RunningEdge, key: string) {
  const stream = await openaiOf(edge).chat.completions.create(
    { model: edge.model, messages: messagesOf(key), stream: true },
    { headers: headersOf(key) },
  );
  for await (const { choices } of stream) yield choices[0]?.delta.content;
}

async function* textPieces(edge: RunningEdge, key: string) {
  const stream = await openaiOf(edge).completions.create(
    { model: edge.model, prompt: `Count, ${key}.`, stream: true },
    { headers: headersOf(key) },
  );
  for await (const { choices } of stream) yield choices[0]?.text;
}

async function* responsePieces(edge: RunningEdge, key: string) {
  const stream = await openaiOf(edge).responses.create(
    { model: edge.model, input: `Count, ${key}.`, stream: true },
    { headers: headersOf(key) },
  );
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') yield event.delta;
  }
}

async function* messagePieces({ baseUrl, apiKey, model }: RunningEdge, key: string) {
  const client = new Anthropic({ baseURL: `${baseUrl}/anthropic`, apiKey, maxRetries: 0 });
  const body = { model, max_tokens: 64, messages: messagesOf(key) };
  const stream = client.messages.stream(body, { headers: headersOf(key) });
  for await (const event of stream) {
    if (event.type !== 'content_block_delta' || event.delta.type !== 'text_delta') continue;
    yield event.delta.text;
  }
}

const aiModelOf = {
  '@ai-sdk/openai': ({ baseUrl, apiKey, model }: RunningEdge) =>
    createOpenAI({ baseURL: `${baseUrl}/v1`, apiKey })(model),
  '@ai-sdk/openai, chat': ({ baseUrl, apiKey, model }: RunningEdge) =>
    createOpenAI({ baseURL: `${baseUrl}/v1`, apiKey }).chat(model),
  '@ai-sdk/openai-compatible': ({ baseUrl, apiKey, model }: RunningEdge) =>
    createOpenAICompatible({ name: 'sift', baseURL: `${baseUrl}/v1`, apiKey })(model),
  '@ai-sdk/deepseek': ({ baseUrl, apiKey, model }: RunningEdge) =>
    createDeepSeek({ baseURL: baseUrl, apiKey })(model),
  '@ai-sdk/anthropic': ({ baseUrl, apiKey, model }: RunningEdge) =>
    createAnthropic({ baseURL: `${baseUrl}/anthropic/v1`, apiKey })(model),
} as const;

const clients: Readonly<Record<string, Read>> = {
  'openai, chat': (edge, key) => joined(chatPieces(edge, key)),
  'openai, completions': (edge, key) => joined(textPieces(edge, key)),
  'openai, responses': (edge, key) => joined(responsePieces(edge, key)),
  '@anthropic-ai/sdk': (edge, key) => joined(messagePieces(edge, key)),
  ...Object.fromEntries(
    Object.entries(aiModelOf).map(([name, modelOf]) => [
      name,
      async (edge: RunningEdge, key: string) =>
        await streamText({
          model: modelOf(edge),
          prompt: `Count, ${key}.`,
          maxOutputTokens: 64,
          headers: headersOf(key),
          maxRetries: 0,
          telemetry: { isEnabled: false },
        }).text,
    ]),
  ),
};

export function describeKeyedStreams(edgeOf: () => RunningEdge): void {
  describe('a stream under an Idempotency-Key', () => {
    test.each(Object.keys(clients))('is read by %s, live and once more', async (name) => {
      const edge = edgeOf();
      edge.stub.script = { ...plainScript, words, pauseMs: 5 };
      const asked = edge.stub.requests.length;
      const key = `key-${crypto.randomUUID()}`;
      const read = clients[name];
      const texts = await Promise.all([read?.(edge, key), read?.(edge, key)]);
      texts.push(await read?.(edge, key));
      expect(texts).toEqual([answer, answer, answer]);
      expect(edge.stub.requests.length - asked).toBe(1);
    });

    test('goes on after the last event that its client has seen, once it was left', async () => {
      const { baseUrl, apiKey, model, stub } = edgeOf();
      stub.script = { ...plainScript, words, pauseMs: 20 };
      const asked = stub.requests.length;
      const key = headersOf(`key-${crypto.randomUUID()}`);
      const ask = (headers: Record<string, string>, signal?: AbortSignal) =>
        fetch(`${baseUrl}/v1/responses`, {
          method: 'POST',
          headers: { authorization: `Bearer ${apiKey}`, ...key, ...headers },
          body: JSON.stringify({ model, input: 'Count.', stream: true }),
          ...(signal && { signal }),
        });
      const leave = new AbortController();
      const first = await ask({}, leave.signal);
      const { value } = (await first.body?.getReader().read()) ?? {};
      leave.abort();
      expect(new TextDecoder().decode(value)).toMatch(/^id: 1\n/);
      const rest = await (await ask({ 'last-event-id': '3' })).text();
      expect(rest).toMatch(/^id: 4\n/);
      expect(rest).toContain('response.completed');
      const whole = await (await ask({})).text();
      expect(whole.endsWith(rest)).toBe(true);
      expect(stub.requests.length - asked).toBe(1);
    });

    test('has a Last-Event-ID that is a number of one of its events, or is refused', async () => {
      const { baseUrl, apiKey, model, stub } = edgeOf();
      stub.script = plainScript;
      for (const id of ['x', '7']) {
        const refused = await fetch(`${baseUrl}/v1/responses`, {
          method: 'POST',
          headers: {
            authorization: `Bearer ${apiKey}`,
            ...headersOf(`key-${crypto.randomUUID()}`),
            'last-event-id': id,
          },
          body: JSON.stringify({ model, input: 'Count.', stream: true }),
        });
        expect(refused.status).toBe(422);
        expect(await refused.json()).toMatchObject({ error: { param: 'Last-Event-ID' } });
      }
    });
  });
  describeMissReason(edgeOf);
}

function describeMissReason(edgeOf: () => RunningEdge): void {
  test('the reason why a prompt was not cached stands in the usage that clients read', async () => {
    const edge = edgeOf();
    edge.stub.script = plainScript;
    const ask = async (end: string) => {
      const content = `${crypto.randomUUID()} ${'Tell me of the sea. '.repeat(60)}`;
      const messages = (text: string) => [{ role: 'user' as const, content: text }];
      const create = (text: string) =>
        openaiOf(edge).chat.completions.create({ model: edge.model, messages: messages(text) });
      await create(content);
      return (await create(content + end)).usage;
    };
    expect(await ask('And then? '.repeat(40))).toMatchObject({
      cache_miss_reason: { type: 'first_difference', message: 0 },
    });
    expect(await ask('')).toMatchObject({ cache_miss_reason: null });
  });
}
