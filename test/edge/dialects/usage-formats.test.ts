import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fromWorkerUsage, readCounts } from '../../../edge/engines/usage.ts';
import { fromAnthropicUsage, toAnthropicUsage } from '../../../edge/dialects/anthropic/usage.ts';
import { fromResponsesUsage, toResponsesUsage } from '../../../edge/dialects/responses/usage.ts';
import {
  fromDeepSeekUsage,
  fromOpenAiUsage,
  toOpenAiUsage,
} from '../../../edge/dialects/openai/usage.ts';

const count = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 10_000_000 }));
const usages = fc.record({
  inputUncached: count,
  inputCached: count,
  outputText: count,
  outputReasoning: count,
});
const reports = { reportsCachedTokens: true };

test('usage survives the way through each format, unknown cached tokens too', () => {
  const row = usages.map((usage) => ({ ...usage, inputCached: null }));
  fc.assert(
    fc.property(fc.oneof(usages, row), (usage) => {
      const openAi = toOpenAiUsage(usage);
      expect(fromOpenAiUsage(openAi)).toEqual(usage);
      expect(fromDeepSeekUsage(openAi)).toEqual(usage);
      expect(fromAnthropicUsage(toAnthropicUsage(usage))).toEqual(usage);
      expect(fromResponsesUsage(toResponsesUsage(usage))).toEqual(usage);
    }),
  );
});

test('cached tokens are billed in whole blocks, whichever block the worker caches in', () => {
  fc.assert(
    fc.property(usages, (usage) => {
      const billed = fromWorkerUsage({ ...toOpenAiUsage(usage) }, reports);
      const { inputCached, inputUncached } = usage;
      expect(billed.inputCached).toBe(Math.floor(inputCached / 64) * 64);
      expect(Number(billed.inputCached) + billed.inputUncached).toBe(inputCached + inputUncached);
    }),
  );
  const wire = { prompt_tokens: 2_511, prompt_tokens_details: { cached_tokens: 2_510 } };
  expect(fromWorkerUsage(wire, reports)).toMatchObject({ inputCached: 2_496, inputUncached: 15 });
});

test('hits and misses are the prompt, and input tokens are the misses', () => {
  fc.assert(
    fc.property(usages, (usage) => {
      const wire = toOpenAiUsage(usage);
      expect((wire.prompt_cache_hit_tokens ?? 0) + wire.prompt_cache_miss_tokens).toBe(
        wire.prompt_tokens,
      );
      expect(wire.prompt_tokens + wire.completion_tokens).toBe(wire.total_tokens);
      expect(toAnthropicUsage(usage).input_tokens).toBe(wire.prompt_cache_miss_tokens);
    }),
  );
});

test('a miss of 0 is a value: the whole prompt was cached', () => {
  const usage = { inputUncached: 0, inputCached: 128, outputText: 1, outputReasoning: 0 };
  expect(toOpenAiUsage(usage)).toMatchObject({ prompt_tokens: 128, prompt_cache_miss_tokens: 0 });
  expect(toAnthropicUsage(usage)).toMatchObject({ input_tokens: 0, cache_read_input_tokens: 128 });
});

test('cached tokens left out are unknown, and an explicit 0 is not replaced', () => {
  const bare = { prompt_tokens: 10, completion_tokens: 3 };
  const plain = { inputUncached: 10, inputCached: null, outputText: 3, outputReasoning: 0 };
  expect(fromWorkerUsage(bare, reports)).toEqual(plain);
  expect(fromWorkerUsage({ prompt_tokens: 10 }, reports)).toEqual({ ...plain, outputText: 0 });
  const both = {
    ...bare,
    prompt_tokens_details: { cached_tokens: 0 },
    prompt_cache_hit_tokens: 8,
  };
  expect(fromWorkerUsage(both, reports)).toEqual({ ...plain, inputCached: 0 });
  expect(fromWorkerUsage({ ...bare, prompt_tokens_details: null }, reports)).toEqual(plain);
});

test('a worker that does not report cached tokens gets no discount', () => {
  const wire = { prompt_tokens: 128, prompt_tokens_details: { cached_tokens: 64 } };
  expect(fromWorkerUsage(wire, { reportsCachedTokens: false })).toMatchObject({
    inputCached: null,
    inputUncached: 128,
  });
});

test('unknown cached tokens are null for clients, in the words of each protocol', () => {
  const usage = { inputUncached: 10, inputCached: null, outputText: 1, outputReasoning: 0 };
  expect(toOpenAiUsage(usage)).toMatchObject({
    prompt_tokens: 10,
    prompt_tokens_details: { cached_tokens: null },
    prompt_cache_hit_tokens: null,
    prompt_cache_miss_tokens: 10,
  });
  expect(toAnthropicUsage(usage)).toMatchObject({
    input_tokens: 10,
    cache_read_input_tokens: null,
  });
});

test('counts are read wherever an engine writes them', () => {
  const usage = { prompt_tokens: 640, completion_tokens: 9 };
  const reasoning = { ...usage, reasoning_tokens: 4 };
  expect(fromWorkerUsage(reasoning, reports)).toMatchObject({ outputText: 5, outputReasoning: 4 });
  const counts = readCounts({ usage, timings: { cache_n: 128, prompt_n: 512 } });
  expect(counts && fromWorkerUsage(counts, reports)).toMatchObject({ inputCached: 128 });
  const stated = { ...usage, prompt_tokens_details: { cached_tokens: 64 } };
  const both = readCounts({ usage: stated, timings: { cache_n: 128 } });
  expect(both && fromWorkerUsage(both, reports)).toMatchObject({ inputCached: 64 });
  for (const none of [undefined, null, {}, { prompt_tokens: null }]) {
    expect(readCounts({ usage: none })).toBeNull();
  }
  for (const prompt_tokens of [-1, 1.5, '5']) {
    expect(() => readCounts({ usage: { prompt_tokens } })).toThrow('prompt_tokens');
  }
});

test('details beyond their total never make a count negative', () => {
  fc.assert(
    fc.property(count, count, count, count, (prompt, cached, completion, reasoning) => {
      const usage = fromWorkerUsage(
        {
          prompt_tokens: prompt,
          completion_tokens: completion,
          prompt_tokens_details: { cached_tokens: cached },
          completion_tokens_details: { reasoning_tokens: reasoning },
        },
        reports,
      );
      expect(Math.min(...Object.values(usage).map(Number))).toBeGreaterThanOrEqual(0);
      expect(Number(usage.inputCached) + usage.inputUncached).toBe(prompt);
      expect(usage.outputText + usage.outputReasoning).toBe(completion);
    }),
  );
});
