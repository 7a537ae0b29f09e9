/**
 * Usage as clients of the Responses API read it, a pure function of the canonical counts, and back.
 * `input_tokens` is the whole prompt. Null cached tokens are unknown.
 */
import type { Usage } from '../../money.ts';

export interface ResponsesUsage {
  readonly input_tokens: number;
  readonly input_tokens_details: {
    readonly cached_tokens: number | null;
    readonly cache_write_tokens: 0;
  };
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly total_tokens: number;
}

export function toResponsesUsage(usage: Usage): ResponsesUsage {
  const input = (usage.inputCached ?? 0) + usage.inputUncached;
  const output = usage.outputText + usage.outputReasoning;
  return {
    input_tokens: input,
    // Filling the cache costs nothing extra here, so nothing is counted as written to it.
    input_tokens_details: { cached_tokens: usage.inputCached, cache_write_tokens: 0 },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: usage.outputReasoning },
    total_tokens: input + output,
  };
}

export function fromResponsesUsage(wire: ResponsesUsage): Usage {
  const { cached_tokens: cached } = wire.input_tokens_details;
  const { reasoning_tokens: reasoning } = wire.output_tokens_details;
  return {
    inputUncached: wire.input_tokens - (cached ?? 0),
    inputCached: cached,
    outputText: wire.output_tokens - reasoning,
    outputReasoning: reasoning,
  };
}
