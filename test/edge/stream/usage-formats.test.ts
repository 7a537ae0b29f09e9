import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  fromAnthropicUsage,
  fromDeepSeekUsage,
  fromOpenAiUsage,
  fromWorkerUsage,
  toAnthropicUsage,
  toOpenAiUsage,
} from '../../../edge/stream/usage-formats.ts';

const count = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 10_000_000 }));
const usages = fc.record({
  inputUncached: count,
  inputCached: count,
  outputText: count,
  outputReasoning: count,
});
const reports = { reportsCachedTokens: true };

test('usage survives the way through each format', () => {
  fc.assert(
    fc.property(usages, (usage) => {
      const openAi = toOpenAiUsage(usage);
      expect(fromOpenAiUsage(openAi)).toEqual(usage);
      expect(fromDeepSeekUsage(openAi)).toEqual(usage);
      expect(fromAnthropicUsage(toAnthropicUsage(usage))).toEqual(usage);
    }),
  );
});

test('cached tokens are billed in whole blocks, whichever block the worker caches in', () => {
  fc.assert(
    fc.property(usages, (usage) => {
      const billed = fromWorkerUsage({ ...toOpenAiUsage(usage) }, reports);
      const { inputCached, inputUncached } = usage;
      expect(billed.inputCached).toBe(Math.floor(inputCached / 64) * 64);
      expect(billed.inputCached + billed.inputUncached).toBe(inputCached + inputUncached);
    }),
  );
  const wire = { prompt_tokens: 2_511, prompt_tokens_details: { cached_tokens: 2_510 } };
  expect(fromWorkerUsage(wire, reports)).toMatchObject({ inputCached: 2_496, inputUncached: 15 });
});

test('hits and misses are the prompt, and input tokens are the misses', () => {
  fc.assert(
    fc.property(usages, (usage) => {
      const wire = toOpenAiUsage(usage);
      expect(wire.prompt_cache_hit_tokens + wire.prompt_cache_miss_tokens).toBe(wire.prompt_tokens);
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

test('details that a worker leaves out are 0, and an explicit 0 is not replaced', () => {
  const bare = { prompt_tokens: 10, completion_tokens: 3 };
  const plain = { inputUncached: 10, inputCached: 0, outputText: 3, outputReasoning: 0 };
  expect(fromWorkerUsage(bare, reports)).toEqual(plain);
  expect(fromWorkerUsage({ prompt_tokens: 10 }, reports)).toEqual({ ...plain, outputText: 0 });
  const both = {
    ...bare,
    prompt_tokens_details: { cached_tokens: 0 },
    prompt_cache_hit_tokens: 8,
  };
  expect(fromWorkerUsage(both, reports)).toEqual(plain);
  expect(fromWorkerUsage({ ...bare, prompt_tokens_details: null }, reports)).toEqual(plain);
});

test('a worker that does not report cached tokens gets no discount', () => {
  const wire = { prompt_tokens: 128, prompt_tokens_details: { cached_tokens: 64 } };
  expect(fromWorkerUsage(wire, { reportsCachedTokens: false })).toMatchObject({
    inputCached: 0,
    inputUncached: 128,
  });
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
      expect(Math.min(...Object.values(usage))).toBeGreaterThanOrEqual(0);
      expect(usage.inputCached + usage.inputUncached).toBe(prompt);
      expect(usage.outputText + usage.outputReasoning).toBe(completion);
    }),
  );
});
