/**
 * The promises of the public API, asked of a running edge by the clients that people have: the
 * official `openai` and `@anthropic-ai/sdk` packages. One suite for every runtime; a runtime only
 * says how it starts. Behind it answers a stub worker, whose script a test may change.
 */
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { signedReceiptSchema } from '../../../edge/receipts/receipt.ts';
import { receiptKeysSchema } from '../../../edge/receipts/receipt-keys.ts';
import { verifyReceipt } from '../../../edge/receipts/verify-receipt.ts';
import { plainScript } from '../../support/edge/edge-stub-worker.ts';
import type { StubWorker } from '../../support/edge/edge-stub-worker.ts';

export interface RunningEdge {
  /** Without a slash at the end. */
  readonly baseUrl: string;
  /** Scopes inference and read, no limits of its own, some dollars of balance. */
  readonly apiKey: string;
  /** A key of another tenant. */
  readonly otherApiKey: string;
  /** The key of a tenant without balance. */
  readonly poorApiKey: string;
  readonly model: string;
  /** The price in nano-USD per 1,000,000 tokens. */
  readonly price: {
    readonly inputCached: number;
    readonly inputUncached: number;
    readonly output: number;
  };
  readonly stub: StubWorker;
  close(): Promise<void>;
}

const answerText = 'Hello wörld 🌍!';

export function describeEndToEnd(name: string, start: () => Promise<RunningEdge>): void {
  describe(name, () => {
    let edge: RunningEdge;
    let openai: OpenAI;
    let anthropic: Anthropic;
    beforeAll(async () => {
      edge = await start();
      openai = new OpenAI({
        baseURL: `${edge.baseUrl}/v1`,
        apiKey: edge.apiKey,
        maxRetries: 0,
      });
      anthropic = new Anthropic({
        baseURL: `${edge.baseUrl}/anthropic`,
        apiKey: edge.apiKey,
        maxRetries: 0,
      });
    });
    afterAll(() => edge?.close());
    beforeEach(() => {
      edge.stub.script = plainScript;
    });

    const hello = (text = 'Say hello.') => ({
      model: edge.model,
      messages: [{ role: 'user' as const, content: text }],
    });

    const message = () => ({ ...hello(), max_tokens: 64 });

    const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
      fetch(`${edge.baseUrl}${path}`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${edge.apiKey}`,
          'content-type': 'application/json',
          ...headers,
        },
        body: JSON.stringify(body),
      });

    /** The balance in nano-USD, read from DeepSeek's decimal string. */
    const balanceOf = async (apiKey: string): Promise<number> => {
      const response = await fetch(`${edge.baseUrl}/user/balance`, {
        headers: { authorization: `Bearer ${apiKey}` },
      });
      const body: { balance_infos: { total_balance: string }[] } = JSON.parse(
        await response.text(),
      );
      const [dollars, decimals] = (body.balance_infos[0]?.total_balance ?? '').split('.');
      return Number(dollars) * 1e9 + Number((decimals ?? '').padEnd(9, '0'));
    };

    const cost = (tokens: { cached: number; uncached: number; output: number }) =>
      Math.ceil(
        (tokens.cached * edge.price.inputCached +
          tokens.uncached * edge.price.inputUncached +
          tokens.output * edge.price.output) /
          1_000_000,
      );

    describe('the openai package', () => {
      test('gets a whole answer, with usage and cost', async () => {
        edge.stub.script = { ...plainScript, promptTokens: 100, cachedTokens: 64 };
        const before = await balanceOf(edge.apiKey);
        const { data, response } = await openai.chat.completions.create(hello()).withResponse();
        expect(data.choices[0]?.message.content).toBe(answerText);
        expect(data.choices[0]?.finish_reason).toBe('stop');
        const expected = cost({ cached: 64, uncached: 36, output: 5 });
        expect(data.usage).toMatchObject({
          prompt_tokens: 100,
          completion_tokens: 5,
          total_tokens: 105,
          prompt_tokens_details: { cached_tokens: 64 },
          prompt_cache_hit_tokens: 64,
          prompt_cache_miss_tokens: 36,
          cost_nano_usd: expected,
        });
        expect(response.headers.get('x-sift-cost-nano-usd')).toBe(String(expected));
        expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f]{32}$/);
        expect(response.headers.get('x-ratelimit-remaining-requests')).toMatch(/^\d+$/);
        expect(before - (await balanceOf(edge.apiKey))).toBe(expected);
      });

      test('gets a stream, with the usage last', async () => {
        edge.stub.script = { ...plainScript, promptTokens: 70, cachedTokens: 0 };
        const stream = await openai.chat.completions.create({
          ...hello(),
          stream: true,
          stream_options: { include_usage: true },
        });
        let text = '';
        const usages: unknown[] = [];
        for await (const chunk of stream) {
          text += chunk.choices[0]?.delta.content ?? '';
          usages.push(chunk.usage);
        }
        expect(text).toBe(answerText);
        expect(usages.slice(0, -1).every((usage) => usage === null)).toBe(true);
        expect(usages.at(-1)).toMatchObject({
          prompt_tokens: 70,
          completion_tokens: 5,
          prompt_cache_hit_tokens: 0,
          prompt_cache_miss_tokens: 70,
          cost_nano_usd: cost({ cached: 0, uncached: 70, output: 5 }),
        });
      });

      test('reads a stream that arrives cut in the middle of characters', async () => {
        edge.stub.script = { ...plainScript, writes: { bytes: 7 }, words: ['é', '漢', '🌍'] };
        const stream = await openai.chat.completions.create({ ...hello(), stream: true });
        let text = '';
        for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
        expect(text).toBe('é漢🌍');
      });

      test('sees reasoning and tool calls', async () => {
        edge.stub.script = {
          ...plainScript,
          reasoning: ['hm', 'm'],
          words: [],
          toolCall: { name: 'weather', arguments: '{"city":"Rom"}' },
          finishReason: 'tool_calls',
        };
        const answer = await openai.chat.completions.create({
          ...hello(),
          tools: [{ type: 'function', function: { name: 'weather', parameters: {} } }],
        });
        expect(answer.choices[0]?.finish_reason).toBe('tool_calls');
        expect(answer.choices[0]?.message).toMatchObject({
          content: null,
          reasoning_content: 'hmm',
          tool_calls: [
            {
              id: 'call_1',
              type: 'function',
              function: { name: 'weather', arguments: '{"city":"Rom"}' },
            },
          ],
        });
        expect(answer.usage?.completion_tokens_details?.reasoning_tokens).toBe(2);
      });

      const place = {
        type: 'object',
        properties: { city: { type: 'string' } },
        required: ['city'],
        additionalProperties: false,
      };
      const tools = [
        {
          type: 'function' as const,
          function: { name: 'weather', parameters: place, strict: true },
        },
      ];

      test('parses an answer of a schema, whole and streamed', async () => {
        edge.stub.script = { ...plainScript, words: ['{"city"', ':"Rom"}'] };
        const asked = {
          ...hello(),
          response_format: {
            type: 'json_schema' as const,
            json_schema: { name: 'place', schema: place, strict: true },
          },
        };
        const whole = await openai.chat.completions.parse(asked);
        expect(whole.choices[0]?.message.parsed).toEqual({ city: 'Rom' });
        const stream = openai.chat.completions.stream(asked);
        const streamed = await stream.finalChatCompletion();
        expect(streamed.choices[0]?.message.parsed).toEqual({ city: 'Rom' });
        expect(edge.stub.requests.at(-1)?.body).toMatchObject({
          response_format: asked.response_format,
        });
        const object = { ...hello(), response_format: { type: 'json_object' as const } };
        const answer = await openai.chat.completions.create(object);
        expect(answer.choices[0]?.message.content).toBe('{"city":"Rom"}');
      });

      test('forces calls, whole and streamed', async () => {
        edge.stub.script = {
          ...plainScript,
          words: [],
          toolCall: { name: 'weather', arguments: '{"city":"Rom"}' },
          finishReason: 'tool_calls',
        };
        const named = { type: 'function' as const, function: { name: 'weather' } };
        for (const choice of ['required' as const, named]) {
          const asked = { ...hello(), tools, tool_choice: choice, parallel_tool_calls: false };
          const whole = await openai.chat.completions.parse(asked);
          expect(whole.choices[0]?.finish_reason).toBe('tool_calls');
          expect(whole.choices[0]?.message.tool_calls).toMatchObject([
            { function: { name: 'weather', parsed_arguments: { city: 'Rom' } } },
          ]);
          const streamed = await openai.chat.completions.stream(asked).finalChatCompletion();
          expect(streamed.choices[0]?.message.tool_calls).toMatchObject([
            { function: { name: 'weather', arguments: '{"city":"Rom"}' } },
          ]);
          expect(edge.stub.requests.at(-1)?.body).toMatchObject({
            tools,
            tool_choice: choice,
            parallel_tool_calls: false,
          });
        }
      });

      test('is told by its own error of a schema that the worker cannot keep', async () => {
        const param = 'response_format.json_schema.schema.not';
        const error = {
          message: `'${param}' is not supported: output can’t be held to it.`,
          type: 'invalid_request_error',
          param,
          code: 'unsupported_parameter',
        };
        edge.stub.script = {
          ...plainScript,
          fault: { kind: 'reject', status: 400, body: { error } },
        };
        const before = await balanceOf(edge.apiKey);
        const asked = openai.chat.completions.create({
          ...hello(),
          response_format: {
            type: 'json_schema',
            json_schema: { name: 'x', schema: { not: {} } },
          },
        });
        await expect(asked).rejects.toMatchObject({ status: 400, param, code: error.code });
        expect(await balanceOf(edge.apiKey)).toBe(before);
      });

      test('completes text, and fills in the middle', async () => {
        const answer = await openai.completions.create({
          model: edge.model,
          prompt: 'def f(',
          suffix: '    return x',
          max_tokens: 16,
        });
        expect(answer.choices[0]?.text).toBe(answerText);
        expect(edge.stub.requests.at(-1)?.body).toMatchObject({
          prompt: 'def f(',
          suffix: '    return x',
          max_tokens: 16,
        });
      });

      test('lists the models', async () => {
        const ids: string[] = [];
        for await (const model of openai.models.list()) ids.push(model.id);
        expect(ids).toContain(edge.model);
        expect((await openai.models.retrieve(edge.model)).id).toBe(edge.model);
      });

      test('throws its own error classes', async () => {
        const wrong = new OpenAI({
          baseURL: `${edge.baseUrl}/v1`,
          apiKey: 'sk-wrong',
          maxRetries: 0,
        });
        await expect(wrong.chat.completions.create(hello())).rejects.toThrow(
          OpenAI.AuthenticationError,
        );
        const unknown = openai.chat.completions.create({ ...hello(), model: 'no-such-model' });
        await expect(unknown).rejects.toThrow(OpenAI.NotFoundError);
        const hot = openai.chat.completions.create({ ...hello(), temperature: 3 });
        await expect(hot).rejects.toThrow(OpenAI.UnprocessableEntityError);
        const poor = new OpenAI({
          baseURL: `${edge.baseUrl}/v1`,
          apiKey: edge.poorApiKey,
          maxRetries: 0,
        });
        await expect(poor.chat.completions.create(hello())).rejects.toMatchObject({ status: 402 });
      });

      test('learns of a worker that dies in the middle of a stream, and pays for what came', async () => {
        edge.stub.script = {
          ...plainScript,
          promptTokens: 10,
          pauseMs: 5,
          fault: { kind: 'die', event: 3 },
        };
        const before = await balanceOf(edge.apiKey);
        const stream = await openai.chat.completions.create({ ...hello(), stream: true });
        let text = '';
        const read = async () => {
          for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
        };
        await expect(read()).rejects.toThrow(OpenAI.APIError);
        expect(text).toBe('Hello');
        await eventually(async () => {
          const paid = before - (await balanceOf(edge.apiKey));
          expect(paid).toBe(cost({ cached: 0, uncached: 10, output: 2 }));
        });
      });

      test('may leave in the middle of a stream, and pays what was generated', async () => {
        const words = Array.from({ length: 500 }, (_, index) => ` ${index}`);
        edge.stub.script = { ...plainScript, promptTokens: 10, words, pauseMs: 20 };
        const before = await balanceOf(edge.apiKey);
        const { data: stream, response } = await openai.chat.completions
          .create({ ...hello(), stream: true })
          .withResponse();
        let events = 0;
        for await (const _ of stream) if (++events === 5) break;
        const id = response.headers.get('x-request-id') ?? '';
        await eventually(() => {
          expect(edge.stub.records.get(id)?.status).toBe('aborted');
        });
        await eventually(async () => {
          const generated = edge.stub.records.get(id)?.output ?? -1;
          const paid = before - (await balanceOf(edge.apiKey));
          expect(paid).toBe(cost({ cached: 0, uncached: 10, output: generated }));
          expect(generated).toBeLessThan(words.length);
        });
      });
    });

    describe('the @anthropic-ai/sdk package', () => {
      test('forces tools, whole and streamed', async () => {
        edge.stub.script = {
          ...plainScript,
          words: [],
          toolCall: { name: 'weather', arguments: '{"city":"Rom"}' },
          finishReason: 'tool_calls',
        };
        const schema = { type: 'object' as const, properties: { city: { type: 'string' } } };
        const tools = [{ name: 'weather', input_schema: schema, strict: true }];
        const choices = [
          [{ type: 'any' as const }, 'required'],
          [
            { type: 'tool' as const, name: 'weather' },
            { type: 'function', function: { name: 'weather' } },
          ],
        ] as const;
        for (const [tool_choice, sent] of choices) {
          const asked = { ...message(), tools, tool_choice };
          const whole = await anthropic.messages.create(asked);
          const streamed = await anthropic.messages.stream(asked).finalMessage();
          for (const { content, stop_reason: reason } of [whole, streamed]) {
            expect(content).toMatchObject([
              { type: 'tool_use', name: 'weather', input: { city: 'Rom' } },
            ]);
            expect(reason).toBe('tool_use');
          }
          expect(edge.stub.requests.at(-1)?.body).toMatchObject({
            tools: [{ function: { name: 'weather', parameters: schema, strict: true } }],
            tool_choice: sent,
          });
        }
      });

      test('asks for an effort and for a format', async () => {
        edge.stub.script = { ...plainScript, words: ['{"city"', ':"Rom"}'] };
        const schema = { type: 'object', properties: { city: { type: 'string' } } };
        const answer = await anthropic.messages.create({
          ...message(),
          output_config: { effort: 'high', format: { type: 'json_schema', schema } },
        });
        expect(answer.content).toEqual([{ type: 'text', text: '{"city":"Rom"}' }]);
        expect(edge.stub.requests.at(-1)?.body).toMatchObject({
          reasoning_effort: 'high',
          response_format: { type: 'json_schema', json_schema: { schema } },
        });
      });

      test('gets a whole message, whose input tokens are the uncached ones', async () => {
        edge.stub.script = {
          ...plainScript,
          reasoning: ['hm'],
          promptTokens: 100,
          cachedTokens: 64,
        };
        const answer = await anthropic.messages.create({ ...message(), system: 'Be kind.' });
        expect(answer.content).toEqual([
          { type: 'thinking', thinking: 'hm', signature: '' },
          { type: 'text', text: answerText },
        ]);
        expect(answer.stop_reason).toBe('end_turn');
        expect(answer.usage).toMatchObject({
          input_tokens: 36,
          cache_read_input_tokens: 64,
          output_tokens: 6,
          cost_nano_usd: cost({ cached: 64, uncached: 36, output: 6 }),
        });
        expect(edge.stub.requests.at(-1)?.body.messages).toEqual([
          { role: 'system', content: 'Be kind.' },
          { role: 'user', content: 'Say hello.' },
        ]);
      });

      test('gets a stream of events that add up to a message', async () => {
        edge.stub.script = {
          ...plainScript,
          reasoning: ['hm', 'm'],
          toolCall: { name: 'weather', arguments: '{"city":"Rom"}' },
          finishReason: 'tool_calls',
        };
        const stream = anthropic.messages.stream({
          ...message(),
          tools: [{ name: 'weather', input_schema: { type: 'object' } }],
        });
        const final = await stream.finalMessage();
        expect(final.content).toMatchObject([
          { type: 'thinking', thinking: 'hmm' },
          { type: 'text', text: answerText },
          { type: 'tool_use', id: 'call_1', name: 'weather', input: { city: 'Rom' } },
        ]);
        expect(final.stop_reason).toBe('tool_use');
        expect(final.usage.output_tokens).toBe(8);
      });

      test('is told the stop sequence that matched, whole and streamed', async () => {
        edge.stub.script = { ...plainScript, stopReason: 'END' };
        const asked = { ...message(), stop_sequences: ['STOP', 'END'] };
        for (const answer of [
          await anthropic.messages.create(asked),
          await anthropic.messages.stream(asked).finalMessage(),
        ]) {
          expect(answer).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: 'END' });
        }
        expect(edge.stub.requests.at(-1)?.body).toMatchObject({ stop: asked.stop_sequences });
      });

      test.each([false, true])('runs tools to the end, streamed: %j', async (stream) => {
        edge.stub.script = {
          ...plainScript,
          words: [],
          toolCall: { name: 'weather', arguments: '{"city":"Rom"}' },
          finishReason: 'tool_calls',
        };
        const cities: unknown[] = [];
        const runner = anthropic.beta.messages.toolRunner({
          ...message(),
          stream,
          tools: [
            {
              type: 'custom',
              name: 'weather',
              input_schema: { type: 'object' },
              parse: (input) => input,
              run: (input) => {
                cities.push(input);
                edge.stub.script = plainScript;
                return 'rain';
              },
            },
          ],
        });
        const final = await runner;
        expect(cities).toEqual([{ city: 'Rom' }]);
        expect(final.content).toEqual([{ type: 'text', text: answerText }]);
        expect(edge.stub.requests.at(-1)?.body.messages).toMatchObject([
          { role: 'user', content: 'Say hello.' },
          { role: 'assistant', tool_calls: [{ id: 'call_1', function: { name: 'weather' } }] },
          { role: 'tool', tool_call_id: 'call_1', content: 'rain' },
        ]);
      });

      test('lists the models, and shows one', async () => {
        const listed = [];
        for await (const model of anthropic.models.list({ limit: 1 })) listed.push(model);
        const one = await anthropic.models.retrieve(edge.model);
        expect(listed).toContainEqual(one);
        expect(one).toMatchObject({ type: 'model', id: edge.model, display_name: edge.model });
        expect(Number.isNaN(Date.parse(one.created_at))).toBe(false);
        const beta = await anthropic.beta.models.list({ limit: 1_000 });
        expect(beta.data).toEqual(listed);
        await expect(anthropic.models.retrieve('no-such-model')).rejects.toThrow(
          Anthropic.NotFoundError,
        );
      });

      test('reads the id of its request from answers, streams and errors', async () => {
        edge.stub.script = plainScript;
        const answer = await anthropic.messages.create(message()).withResponse();
        expect(answer.request_id).toMatch(/^[0-9a-f]{32}$/);
        const stream = anthropic.messages.stream(message());
        await stream.finalMessage();
        expect(stream.request_id).toMatch(/^[0-9a-f]{32}$/);
        const wrong = anthropic.messages.create({ ...message(), model: 'no-such-model' });
        await expect(wrong).rejects.toMatchObject({
          requestID: expect.stringMatching(/^[0-9a-f]{32}$/),
        });
      });

      test('throws its own error classes', async () => {
        const wrong = new Anthropic({
          baseURL: `${edge.baseUrl}/anthropic`,
          apiKey: 'sk-wrong',
          maxRetries: 0,
        });
        await expect(wrong.messages.create(message())).rejects.toThrow(
          Anthropic.AuthenticationError,
        );
        edge.stub.script = { ...plainScript, fault: { kind: 'end-early', event: 2 }, pauseMs: 5 };
        await expect(anthropic.messages.stream(message()).finalMessage()).rejects.toThrow(
          Anthropic.APIError,
        );
      });
    });

    test('the @anthropic-ai/sdk package counts the tokens of a prompt, free of charge', async () => {
      edge.stub.script = { ...plainScript, promptTokens: 123 };
      const before = await balanceOf(edge.apiKey);
      const { max_tokens: _, ...prompt } = message();
      const { data, response } = await anthropic.messages
        .countTokens({
          ...prompt,
          system: 'Be kind.',
          tools: [{ name: 'weather', input_schema: { type: 'object' } }],
        })
        .withResponse();
      expect(data).toEqual({ input_tokens: 123 });
      expect(response.headers.get('x-sift-token-count')).toBe('exact');
      expect(response.headers.get('x-ratelimit-remaining-requests')).toMatch(/^\d+$/);
      expect(edge.stub.requests.at(-1)).toMatchObject({
        path: '/tokenize',
        body: {
          model: edge.model,
          messages: [
            { role: 'system', content: 'Be kind.' },
            { role: 'user', content: 'Say hello.' },
          ],
          tools: [{ type: 'function', function: { name: 'weather' } }],
        },
      });
      expect(await balanceOf(edge.apiKey)).toBe(before);
    });

    test('an idempotency key gives the same bytes again, and is billed once', async () => {
      const key = `key-${crypto.randomUUID()}`;
      const body = { ...hello('Once.'), stream: true, stream_options: { include_usage: true } };
      const before = await balanceOf(edge.apiKey);
      const first = await post('/v1/chat/completions', body, { 'idempotency-key': key });
      const bytes = await first.text();
      const paid = before - (await balanceOf(edge.apiKey));
      const again = await post('/v1/chat/completions', body, { 'idempotency-key': key });
      expect(await again.text()).toBe(bytes);
      expect(again.headers.get('idempotent-replayed')).toBe('true');
      expect(again.headers.get('content-type')).toBe(first.headers.get('content-type'));
      expect(before - (await balanceOf(edge.apiKey))).toBe(paid);
      const other = await post('/v1/chat/completions', hello('Twice.'), { 'idempotency-key': key });
      expect(other.status).toBe(422);
    });

    test('the same request under a key reads along while the first runs', async () => {
      edge.stub.script = { ...plainScript, pauseMs: 100 };
      const key = `key-${crypto.randomUUID()}`;
      const body = { ...hello('Slowly.'), stream: true };
      const before = await balanceOf(edge.apiKey);
      const first = await post('/v1/chat/completions', body, { 'idempotency-key': key });
      const second = await post('/v1/chat/completions', body, { 'idempotency-key': key });
      expect(second.headers.get('idempotent-replayed')).toBe('true');
      const [one, two] = await Promise.all([first.text(), second.text()]);
      expect(one).toContain('[DONE]');
      expect(two).toBe(one);
      const paid = before - (await balanceOf(edge.apiKey));
      expect(
        await (await post('/v1/chat/completions', body, { 'idempotency-key': key })).text(),
      ).toBe(one);
      expect(before - (await balanceOf(edge.apiKey))).toBe(paid);
    });

    test('a prompt is cached for its own tenant and its own user alone', async () => {
      const ask = async (apiKey: string, userId?: string) => {
        const client = new OpenAI({ baseURL: `${edge.baseUrl}/v1`, apiKey, maxRetries: 0 });
        const answer = await client.chat.completions.create({
          ...hello(`A long prompt: ${'tell me of the sea. '.repeat(60)}`),
          ...(userId !== undefined && { user_id: userId }),
        });
        return answer.usage?.prompt_tokens_details?.cached_tokens;
      };
      expect(await ask(edge.apiKey)).toBe(0);
      expect(await ask(edge.apiKey)).toBeGreaterThan(0);
      expect(await ask(edge.otherApiKey)).toBe(0);
      expect(await ask(edge.apiKey, 'user-1')).toBe(0);
      expect(await ask(edge.apiKey, 'user-1')).toBeGreaterThan(0);
    });

    test('usage is reported per day, model and key, for the own tenant alone', async () => {
      const report = async (apiKey: string) => {
        const response = await fetch(`${edge.baseUrl}/v1/usage`, {
          headers: { authorization: `Bearer ${apiKey}` },
        });
        const body: { total: { requests: number } } = JSON.parse(await response.text());
        return body.total.requests;
      };
      const before = { own: await report(edge.apiKey), other: await report(edge.otherApiKey) };
      await openai.chat.completions.create(hello());
      expect(await report(edge.apiKey)).toBe(before.own + 1);
      expect(await report(edge.otherApiKey)).toBe(before.other);
    });

    test('a quote holds nothing and bounds what the request then costs', async () => {
      const before = await balanceOf(edge.apiKey);
      const response = await post('/v1/quote', { ...hello(), max_tokens: 16 });
      const quote: { max_cost_nano_usd: number } = JSON.parse(await response.text());
      expect(await balanceOf(edge.apiKey)).toBe(before);
      const answer = await post('/v1/chat/completions', { ...hello(), max_tokens: 16 });
      const paid = Number(answer.headers.get('x-sift-cost-nano-usd'));
      expect(paid).toBeGreaterThan(0);
      expect(paid).toBeLessThanOrEqual(quote.max_cost_nano_usd);
    });

    test('a request has a receipt, which verifies against the keys that are published', async () => {
      const headers = { authorization: `Bearer ${edge.apiKey}` };
      const answer = await openai.chat.completions.create(hello()).asResponse();
      await answer.text();
      const id = answer.headers.get('x-request-id');
      await eventually(async () => {
        const response = await fetch(`${edge.baseUrl}/v1/receipts/${id}`, { headers });
        const signed = signedReceiptSchema.parse(await response.json());
        const published = await fetch(`${edge.baseUrl}/.well-known/sift-receipts.json`);
        const { keys } = receiptKeysSchema.parse(await published.json());
        expect(await verifyReceipt(signed, keys)).toEqual([]);
        expect(signed.receipt.cost_nano_usd).toBe(
          Number(answer.headers.get('x-sift-cost-nano-usd')),
        );
      });
    });

    test('a wrong, a malformed and no key are told apart from nothing but each other', async () => {
      const bodies = await Promise.all(
        [edge.apiKey.replace(/.$/, '_'), edge.apiKey.slice(0, -1), 'sk-sift-x'].map(async (key) => {
          const response = await post('/v1/chat/completions', hello(), {
            authorization: `Bearer ${key}`,
          });
          expect(response.status).toBe(401);
          return await response.text();
        }),
      );
      expect(new Set(bodies).size).toBe(1);
    });

    test('the reference is served, and its page loads nothing from elsewhere', async () => {
      const spec = await fetch(`${edge.baseUrl}/openapi.json`);
      const document: { paths: object } = JSON.parse(await spec.text());
      expect(Object.keys(document.paths)).toContain('/v1/chat/completions');
      const page = await fetch(`${edge.baseUrl}/docs`);
      expect(page.headers.get('content-type')).toContain('text/html');
      expect(await page.text()).not.toMatch(/(src|href)="(https?:)?\/\//);
    });
  });
}

/** Waits until `check` holds; what it checks goes on after the answer. */
async function eventually(check: () => Promise<void> | void): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return await check();
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
