/**
 * Usage as Anthropic's clients read it: pure functions of the canonical counts, and back.
 * `input_tokens` is only what no cache had. Null cached tokens are unknown.
 */
import type { Usage } from '../../money.ts';

export interface AnthropicUsage {
  /** Counts what no cache had, unlike OpenAI's `prompt_tokens`. */
  readonly input_tokens: number;
  readonly cache_creation_input_tokens: 0;
  readonly cache_read_input_tokens: number | null;
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly thinking_tokens: number };
}

export function toAnthropicUsage(usage: Usage): AnthropicUsage {
  return {
    input_tokens: usage.inputUncached,
    // Filling the cache costs nothing extra here, so nothing is counted as written to it.
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: usage.inputCached,
    output_tokens: usage.outputText + usage.outputReasoning,
    output_tokens_details: { thinking_tokens: usage.outputReasoning },
  };
}

export function fromAnthropicUsage(wire: AnthropicUsage): Usage {
  const thinking = wire.output_tokens_details.thinking_tokens;
  return {
    inputUncached: wire.input_tokens + wire.cache_creation_input_tokens,
    inputCached: wire.cache_read_input_tokens,
    outputText: wire.output_tokens - thinking,
    outputReasoning: thinking,
  };
}
