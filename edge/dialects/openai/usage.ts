/**
 * Usage as OpenAI's and DeepSeek's clients read it: pure functions of the canonical counts, and
 * back. `prompt_tokens` is the whole prompt. A count of 0 is a value like any other; null cached
 * tokens are unknown.
 */
import type { Usage } from '../../money.ts';

/** OpenAI's fields and DeepSeek's at once. */
export interface OpenAiUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number | null };
  readonly completion_tokens_details: { readonly reasoning_tokens: number };
  readonly prompt_cache_hit_tokens: number | null;
  readonly prompt_cache_miss_tokens: number;
}

export function toOpenAiUsage(usage: Usage): OpenAiUsage {
  const prompt = (usage.inputCached ?? 0) + usage.inputUncached;
  const completion = usage.outputText + usage.outputReasoning;
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: usage.inputCached },
    completion_tokens_details: { reasoning_tokens: usage.outputReasoning },
    prompt_cache_hit_tokens: usage.inputCached,
    prompt_cache_miss_tokens: usage.inputUncached,
  };
}

type OpenAiFields = Pick<
  OpenAiUsage,
  'prompt_tokens' | 'completion_tokens' | 'prompt_tokens_details' | 'completion_tokens_details'
>;

/** Reads OpenAI's fields alone. */
export function fromOpenAiUsage(wire: OpenAiFields): Usage {
  const cached = wire.prompt_tokens_details.cached_tokens;
  const reasoning = wire.completion_tokens_details.reasoning_tokens;
  return {
    inputUncached: wire.prompt_tokens - (cached ?? 0),
    inputCached: cached,
    outputText: wire.completion_tokens - reasoning,
    outputReasoning: reasoning,
  };
}

type DeepSeekFields = Pick<
  OpenAiUsage,
  | 'prompt_cache_hit_tokens'
  | 'prompt_cache_miss_tokens'
  | 'completion_tokens'
  | 'completion_tokens_details'
>;

/** Reads DeepSeek's fields alone: what hit and what missed. */
export function fromDeepSeekUsage(wire: DeepSeekFields): Usage {
  const reasoning = wire.completion_tokens_details.reasoning_tokens;
  return {
    inputUncached: wire.prompt_cache_miss_tokens,
    inputCached: wire.prompt_cache_hit_tokens,
    outputText: wire.completion_tokens - reasoning,
    outputReasoning: reasoning,
  };
}
