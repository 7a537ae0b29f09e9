/**
 * One list of promises, kept with every make of engine behind the edge, our own worker among them,
 * in both protocols, whole and streamed, as the official clients of both see it.
 */
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { costNanoUsd } from '../../../edge/money.ts';
import { dataOf, startHarness, testModel, testPrice } from '../../support/edge/edge-harness.ts';
import type { Harness } from '../../support/edge/edge-harness.ts';
import { llamaCpp, llamaCppOlder } from '../../support/engines/llama-cpp.ts';
import { outputTokens, plainScenario, validationMessage } from '../../support/engines/scenario.ts';
import type { Scenario } from '../../support/engines/scenario.ts';
import { startEngine, startOwnWorker } from '../../support/engines/server.ts';
import type { ScriptedServer } from '../../support/engines/server.ts';
import { sglang } from '../../support/engines/sglang.ts';
import { tensorrtLlm } from '../../support/engines/tensorrt-llm.ts';
import { vllm, vllmOlder } from '../../support/engines/vllm.ts';

interface Subject {
  readonly name: string;
  readonly isOwn: boolean;
  readonly tellsStop: boolean;
  /** The count of reasoning; our own counts the token that ends it. */
  readonly reasoningTokens: (scenario: Scenario) => number;
  readonly start: () => Promise<ScriptedServer>;
}

const subjects: readonly Subject[] = [
  ...[vllm, vllmOlder, sglang, tensorrtLlm, llamaCpp, llamaCppOlder].map((make) => ({
    name: make.name,
    isOwn: false,
    tellsStop: make.tellsStop,
    reasoningTokens: ({ reasoning }: Scenario) => (make.countsReasoning ? reasoning.length : 0),
    start: () => startEngine(make, testModel),
  })),
  {
    name: 'our own worker',
    isOwn: true,
    tellsStop: true,
    reasoningTokens: ({ reasoning }) => reasoning.length + 1,
    start: () => startOwnWorker(testModel),
  },
];

const thoughtSchema = z.looseObject({ reasoning_content: z.string().default('') });

/** Longer than some billed blocks, by any tokenizer. */
const question = 'Hello there, and how are you? '.repeat(30);

const tools = ['look', 'clock'].map((name) => ({
  type: 'function' as const,
  function: { name, parameters: { type: 'object', properties: {} } },
}));
const calls = [
  { id: 'call_a', name: 'look', pieces: ['{"city"', ':"Ber', 'gen"}'] },
  { id: 'call_b', name: 'clock', pieces: ['{"zone":', '"UTC"}'] },
];
const inputs = [{ city: 'Bergen' }, { zone: 'UTC' }];

describe.each(subjects)('$name', (subject) => {
  let edge: Harness;
  let engine: ScriptedServer;
  let openai: OpenAI;
  let anthropic: Anthropic;
  const startEdge = async (options: { reports?: boolean; silenceMsMax?: number } = {}) => {
    edge = await startHarness({
      scripts: [],
      ...(options.silenceMsMax !== undefined && {
        settings: { workerSilenceMsMax: options.silenceMsMax },
      }),
    });
    edge.fleet.announce({
      id: 'engine',
      url: engine.url,
      epoch: 1,
      state: 'ready',
      models: [testModel],
      static: !subject.isOwn,
      hasJournal: subject.isOwn,
      noDiscountReason: options.reports === false ? 'it does not report cached tokens' : null,
    });
    const client = {
      maxRetries: 0,
      apiKey: edge.apiKey,
      fetch: async (url: string | URL | Request, init?: RequestInit) =>
        edge.app.request(String(url), init),
    };
    openai = new OpenAI({ ...client, baseURL: 'http://edge.example/v1' });
    anthropic = new Anthropic({ ...client, baseURL: 'http://edge.example/anthropic' });
  };
  beforeEach(async () => {
    engine = await subject.start();
  });
  afterEach(async () => {
    await edge.close();
    await engine.close();
  });
  const play = async (scenario: Partial<Scenario>, options?: Parameters<typeof startEdge>[0]) => {
    engine.scenario = { ...plainScenario, ...scenario };
    await startEdge(options);
    return engine.scenario;
  };

  type ChatBody = Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, 'model' | 'messages'>;
  const chat = async (more: ChatBody = {}) => {
    const messages = [{ role: 'user' as const, content: question }];
    const body = { model: testModel, messages, ...more };
    const whole = await openai.chat.completions.create(body);
    const stream = openai.chat.completions.stream({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    let reasoning = '';
    stream.on('chunk', ({ choices: [choice] }) => {
      reasoning += thoughtSchema.parse(choice?.delta ?? {}).reasoning_content;
    });
    const streamed = await stream.finalChatCompletion();
    const [choice] = streamed.choices;
    // The client keeps the last piece alone of fields that it does not know.
    if (choice && reasoning !== '') Object.assign(choice.message, { reasoning_content: reasoning });
    return { whole, streamed };
  };
  type MessageBody = Partial<Anthropic.MessageCreateParamsNonStreaming>;
  const message = async (more: MessageBody = {}) => {
    const messages = [{ role: 'user' as const, content: question }];
    const body = { model: testModel, max_tokens: 64, messages, ...more };
    const whole = await anthropic.messages.create({ ...body, stream: false });
    return { whole, streamed: await anthropic.messages.stream(body).finalMessage() };
  };

  test('a plain answer', async () => {
    await play({});
    for (const answer of Object.values(await chat())) {
      expect(answer.choices).toMatchObject([
        { message: { role: 'assistant', content: 'Hello wörld!' }, finish_reason: 'stop' },
      ]);
      expect(JSON.stringify(answer.choices)).not.toMatch(/matched_stop|token_ids|"reasoning/);
    }
    for (const answer of Object.values(await message())) {
      expect(answer).toMatchObject({
        content: [{ type: 'text', text: 'Hello wörld!' }],
        stop_reason: 'end_turn',
        stop_sequence: null,
      });
    }
  });

  test('a completion of text', async () => {
    await play({});
    const body = { model: testModel, prompt: 'Hello' };
    const whole = await openai.completions.create(body);
    expect(whole.choices).toMatchObject([{ text: 'Hello wörld!', finish_reason: 'stop' }]);
    let text = '';
    for await (const event of await openai.completions.create({ ...body, stream: true })) {
      text += event.choices[0]?.text ?? '';
    }
    expect(text).toBe('Hello wörld!');
  });

  test('reasoning', async () => {
    const scenario = await play({ reasoning: ['hm', ', well'] });
    const thinking = { reasoning_effort: 'high' as const };
    for (const answer of Object.values(await chat(thinking))) {
      expect(answer.choices[0]?.message).toMatchObject({
        content: 'Hello wörld!',
        reasoning_content: 'hm, well',
      });
      expect(answer.choices[0]?.message).not.toHaveProperty('reasoning');
      const reasoning = subject.reasoningTokens(scenario);
      expect(answer.usage?.completion_tokens_details?.reasoning_tokens).toBe(reasoning);
    }
    const enabled = { type: 'enabled' as const, budget_tokens: 32 };
    for (const answer of Object.values(await message({ thinking: enabled }))) {
      expect(answer.content).toMatchObject([
        { type: 'thinking', thinking: 'hm, well' },
        { type: 'text', text: 'Hello wörld!' },
      ]);
    }
  });

  test('tool calls in pieces', async () => {
    await play({ words: [], calls });
    for (const answer of Object.values(await chat({ tools }))) {
      const [choice] = answer.choices;
      expect(choice?.finish_reason).toBe('tool_calls');
      const said = choice?.message.tool_calls ?? [];
      expect(said.map((each) => (each.type === 'function' ? each.function.name : ''))).toEqual([
        'look',
        'clock',
      ]);
      const parsed = said.map((each) =>
        JSON.parse(each.type === 'function' ? each.function.arguments : ''),
      );
      expect(parsed).toEqual(inputs);
      const ids = said.map(({ id }) => id);
      expect(new Set(ids).size).toBe(2);
      if (!subject.isOwn) expect(ids).toEqual(['call_a', 'call_b']);
    }
    const anthropicTools = tools.map(({ function: { name } }) => ({
      name,
      input_schema: { type: 'object' as const },
    }));
    for (const answer of Object.values(await message({ tools: anthropicTools }))) {
      expect(answer.stop_reason).toBe('tool_use');
      expect(answer.content).toMatchObject([
        { type: 'tool_use', name: 'look', input: inputs[0] },
        { type: 'tool_use', name: 'clock', input: inputs[1] },
      ]);
    }
  });

  test('a stop string that matched', async () => {
    await play({ matchedStop: 'END' });
    for (const answer of Object.values(await chat({ stop: ['STOP', 'END'] }))) {
      expect(answer.choices[0]?.finish_reason).toBe('stop');
    }
    for (const answer of Object.values(await message({ stop_sequences: ['STOP', 'END'] }))) {
      expect(answer).toMatchObject(
        subject.tellsStop
          ? { stop_reason: 'stop_sequence', stop_sequence: 'END' }
          : { stop_reason: 'end_turn', stop_sequence: null },
      );
    }
  });

  test('an answer that reached its length', async () => {
    const { words } = await play({ finish: 'length' });
    const max_tokens = words.length;
    for (const answer of Object.values(await chat({ max_tokens }))) {
      expect(answer.choices[0]?.finish_reason).toBe('length');
    }
    for (const answer of Object.values(await message({ max_tokens }))) {
      expect(answer.stop_reason).toBe('max_tokens');
    }
  });

  const cachedCases = [0, 64, ...(subject.isOwn ? [] : [null])];
  test.each(cachedCases)('cached tokens of which it says %j', async (cachedTokens) => {
    const scenario = await play({ cachedTokens, words: ['a', 'b'] });
    const cachedOf = (prompt: number) =>
      cachedTokens === null ? null : Math.min(cachedTokens, prompt - (prompt % 64));
    for (const answer of Object.values(await chat())) {
      const prompt = engine.promptTokens();
      const cached = cachedOf(prompt);
      expect(answer.usage).toMatchObject({
        prompt_tokens: prompt,
        completion_tokens: outputTokens(scenario),
        prompt_tokens_details: { cached_tokens: cached },
        prompt_cache_hit_tokens: cached,
        prompt_cache_miss_tokens: prompt - (cached ?? 0),
        cost_nano_usd: costNanoUsd(
          {
            inputCached: cached,
            inputUncached: prompt - (cached ?? 0),
            outputText: outputTokens(scenario),
            outputReasoning: 0,
          },
          testPrice,
        ),
      });
    }
    for (const answer of Object.values(await message())) {
      const prompt = engine.promptTokens();
      const cached = cachedOf(prompt);
      expect(answer.usage).toMatchObject({
        input_tokens: prompt - (cached ?? 0),
        cache_read_input_tokens: cached,
      });
    }
    await edge.idle();
    const entries = await edge.tenant.entries({ afterId: 0, limit: 100 });
    const posted = entries.filter(({ kind }) => kind === 'posted');
    expect(posted).toHaveLength(4);
    for (const { usage } of posted) {
      const prompt = (usage?.inputCached ?? 0) + (usage?.inputUncached ?? 0);
      expect(usage?.inputCached).toBe(cachedOf(prompt));
    }
  });

  test('no discount from an engine that is not known to report cached tokens', async () => {
    await play({ cachedTokens: 64 }, { reports: false });
    for (const answer of Object.values(await chat())) {
      expect(answer.usage?.prompt_tokens_details?.cached_tokens).toBeNull();
    }
    const [status] = await edge.fleet.status();
    expect(status?.noDiscountReason).toMatch(/does not report cached tokens/);
  });

  const post = async (path: string, more: object = {}) => {
    const messages = [{ role: 'user', content: question }];
    const response = await edge.post(path, { model: testModel, max_tokens: 16, messages, ...more });
    return { status: response.status, json: JSON.parse(await response.text()) };
  };
  const streams = [{ stream: false }, { stream: true }];

  test.each(streams)('a fault of the request in its own words, %j', async (more) => {
    await play({ fault: 'validation' });
    const { status, json } = await post('/v1/chat/completions', more);
    expect([400, 422]).toContain(status);
    expect(json.error).toMatchObject({ type: 'invalid_request_error', message: validationMessage });
    const said = await post('/anthropic/v1/messages', more);
    expect(said.json.error).toMatchObject({
      type: 'invalid_request_error',
      message: validationMessage,
    });
    await edge.idle();
    expect((await edge.tenant.balance()).held).toBe(0);
    expect(edge.settles.map(({ usage }) => usage)).toEqual([null, null]);
  });

  test.each(streams)('an overflow under one code, %j', async (more) => {
    await play({ fault: 'overflow' });
    const { status, json } = await post('/v1/chat/completions', more);
    expect(status).toBe(400);
    expect(json.error).toMatchObject({
      type: 'invalid_request_error',
      code: 'context_length_exceeded',
      message: expect.stringContaining('8193'),
    });
    const said = await post('/anthropic/v1/messages', more);
    expect(said.status).toBe(400);
    expect(said.json.error.message).toMatch(
      /^prompt is too long: |^input length and `max_tokens` exceed /,
    );
  });

  const faults = ['error-event', 'death', 'silence'] as const;
  test.each(faults)('what was delivered before %s is billed, and no more', async (fault) => {
    const { words } = await play({ fault }, fault === 'silence' ? { silenceMsMax: 500 } : {});
    const messages = [{ role: 'user', content: question }];
    const body = { model: testModel, messages, stream: true };
    const response = await edge.post('/v1/chat/completions', body);
    expect(response.status).toBe(200);
    const events = dataOf(await response.text()).map((each) => JSON.parse(each));
    const texts = events.map((event) => event.choices?.[0]?.delta.content ?? '');
    expect(texts.join('')).toBe(words.join(''));
    expect(events.at(-1)).toMatchObject({ error: { code: 'worker_failed', type: 'server_error' } });
    await edge.idle();
    expect((await edge.tenant.balance()).held).toBe(0);
    expect(edge.settles).toHaveLength(1);
    const { outcome, usage } = edge.settles[0] ?? {};
    expect(outcome).toBe('failed');
    if (usage) expect(usage.outputText).toBe(words.length);
  });

  test('a whole answer that broke off is none', async () => {
    await play({ fault: 'error-event' });
    const { status, json } = await post('/v1/chat/completions');
    // Nothing was passed on, so the next worker would have been asked; there is none.
    expect([502, 503]).toContain(status);
    expect(JSON.stringify(json)).not.toMatch(/EngineCore|Scheduler|kernel|Compute/);
  });

  test('a client that leaves ends the work, and its hold', async () => {
    await play({ fault: 'silence' });
    const leave = new AbortController();
    const messages = [{ role: 'user', content: question }];
    const body = { model: testModel, messages, stream: true };
    const response = await edge.post('/v1/chat/completions', body, { signal: leave.signal });
    const reader = response.body?.getReader();
    let text = '';
    while (!text.includes('!')) text += new TextDecoder().decode((await reader?.read())?.value);
    leave.abort();
    if (!subject.isOwn) await expect.poll(() => engine.seen.left).toBe(1);
    await expect.poll(() => edge.settles.length, { timeout: 10_000 }).toBe(1);
    await edge.idle();
    expect((await edge.tenant.balance()).held).toBe(0);
    expect(edge.settles[0]?.outcome).toBe('aborted');
  });

  test.skipIf(subject.isOwn)('a stream that just ends, whole and counted', async () => {
    await play({ sendsDone: false });
    for (const answer of Object.values(await chat())) {
      expect(answer.choices[0]?.message.content).toBe('Hello wörld!');
      expect(answer.usage?.completion_tokens).toBe(plainScenario.words.length);
    }
    for (const answer of Object.values(await message())) {
      expect(answer.stop_reason).toBe('end_turn');
    }
    await edge.idle();
    expect(edge.settles.map(({ outcome }) => outcome)).toEqual(['done', 'done', 'done', 'done']);
  });
});
