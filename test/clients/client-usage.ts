/** Usage as each client names it, read to the same counts. */
import { z } from 'zod';

const count = z.int().min(0);
const cost = { cost_nano_usd: count.optional() };

/** Undefined is what a client leaves out. */
export interface ClientUsage {
  /** Cached tokens included. */
  readonly input: number;
  readonly cached: number;
  /** Reasoning included. */
  readonly output: number;
  readonly reasoning: number | undefined;
  readonly costNanoUsd: number | undefined;
}

const openAi = z
  .object({
    prompt_tokens: count,
    completion_tokens: count,
    prompt_tokens_details: z.object({ cached_tokens: count }),
    completion_tokens_details: z.object({ reasoning_tokens: count }),
    ...cost,
  })
  .transform((usage) => ({
    input: usage.prompt_tokens,
    cached: usage.prompt_tokens_details.cached_tokens,
    output: usage.completion_tokens,
    reasoning: usage.completion_tokens_details.reasoning_tokens,
    costNanoUsd: usage.cost_nano_usd,
  }));

const responses = z
  .object({
    input_tokens: count,
    output_tokens: count,
    input_tokens_details: z.object({ cached_tokens: count }),
    output_tokens_details: z.object({ reasoning_tokens: count }),
    ...cost,
  })
  .transform((usage) => ({
    input: usage.input_tokens,
    cached: usage.input_tokens_details.cached_tokens,
    output: usage.output_tokens,
    reasoning: usage.output_tokens_details.reasoning_tokens,
    costNanoUsd: usage.cost_nano_usd,
  }));

const anthropic = z
  .object({
    input_tokens: count,
    cache_read_input_tokens: count,
    cache_creation_input_tokens: z.literal(0),
    output_tokens: count,
    output_tokens_details: z.object({ thinking_tokens: count }),
    ...cost,
  })
  .transform((usage) => ({
    input: usage.input_tokens + usage.cache_read_input_tokens,
    cached: usage.cache_read_input_tokens,
    output: usage.output_tokens,
    reasoning: usage.output_tokens_details.thinking_tokens,
    costNanoUsd: usage.cost_nano_usd,
  }));

const vercel = z
  .object({
    inputTokens: count,
    inputTokenDetails: z.object({ noCacheTokens: count, cacheReadTokens: count }),
    outputTokens: count,
    outputTokenDetails: z.object({ textTokens: count, reasoningTokens: count }),
    raw: z.object(cost),
  })
  .transform((usage) => ({
    input: usage.inputTokenDetails.noCacheTokens + usage.inputTokenDetails.cacheReadTokens,
    cached: usage.inputTokenDetails.cacheReadTokens,
    output: usage.outputTokens,
    reasoning: usage.outputTokenDetails.reasoningTokens,
    costNanoUsd: usage.raw.cost_nano_usd,
  }));

const langchain = z
  .object({
    input_tokens: count,
    input_token_details: z.object({ cache_read: count }),
    output_tokens: count,
    output_token_details: z.object({ reasoning: count.optional() }).optional(),
  })
  .transform((usage) => ({
    input: usage.input_tokens,
    cached: usage.input_token_details.cache_read,
    output: usage.output_tokens,
    reasoning: usage.output_token_details?.reasoning,
    costNanoUsd: undefined,
  }));

const agents = z
  .object({
    inputTokens: count,
    inputTokensDetails: z.tuple([z.object({ cached_tokens: count })]),
    outputTokens: count,
    outputTokensDetails: z.tuple([z.object({ reasoning_tokens: count })]),
  })
  .transform((usage) => ({
    input: usage.inputTokens,
    cached: usage.inputTokensDetails[0].cached_tokens,
    output: usage.outputTokens,
    reasoning: usage.outputTokensDetails[0].reasoning_tokens,
    costNanoUsd: undefined,
  }));

export const clientUsageSchema: z.ZodType<ClientUsage> = z.union([
  openAi,
  responses,
  anthropic,
  vercel,
  langchain,
  agents,
]);
