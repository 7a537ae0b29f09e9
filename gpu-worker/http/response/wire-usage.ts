/**
 * The engine's counts as the wire shows them: OpenAI's fields and DeepSeek's, of the same numbers.
 */
import { nothingComputed } from '../../engine/request.ts';
import type { EngineUsage } from '../../engine/request.ts';
import type { Usage } from '../../protocol/usage.ts';

export function toWireUsage(usage: EngineUsage): Usage {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.outputTokens,
    total_tokens: usage.promptTokens + usage.outputTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
    prompt_cache_hit_tokens: usage.cachedTokens,
    prompt_cache_miss_tokens: usage.promptTokens - usage.cachedTokens,
  };
}

/** A request with several prompts is several requests to the engine and one on the bill. */
export function sumUsage(usages: readonly EngineUsage[]): EngineUsage {
  return usages.reduce(
    (sum, usage) => ({
      promptTokens: sum.promptTokens + usage.promptTokens,
      cachedTokens: sum.cachedTokens + usage.cachedTokens,
      outputTokens: sum.outputTokens + usage.outputTokens,
      reasoningTokens: sum.reasoningTokens + usage.reasoningTokens,
    }),
    nothingComputed,
  );
}
