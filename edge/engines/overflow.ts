/** Tells an overflow of the context from other faults, and its numbers, in each engine's words. */
import { z } from 'zod';
import { overflowSchema } from '../../gpu-worker/protocol/errors.ts';
import type { Overflow } from '../errors.ts';

/** The codes of an overflow: ours, llama.cpp's, and those of gateways in front of engines. */
const names = /^(context_length_exceeded|context_window_exceeded|exceed_context_size)/;

/** Names that engines have for the context, in a sentence about an overflow. */
const contextWords =
  /context[ _](length|window|size)|n_ctx|max_model_len|max_num_tokens|max(imum)?[ _](model|seq|sequence|input|allowed)[ _]?(len|length|tokens)/i;
/** Words that say that something does not fit. */
const excessWords =
  /exceed|longer than|larger than|greater than|too (long|large)|should not|reduce|is only|maximum context length is/i;
/**
 * Sentences of vLLM and TensorRT-LLM where the prompt leaves no room; Anthropic's words, which some
 * have too.
 */
const sentences =
  /max_tokens must be at least \d+, got -|default_max_tokens.*(greater than 0|\(-)|prompt is too long/i;

export function isOverflow(error: { message: string; names: readonly unknown[] }): boolean {
  const { message } = error;
  return (
    error.names.some((name) => typeof name === 'string' && names.test(name)) ||
    sentences.test(message) ||
    (contextWords.test(message) && excessWords.test(message))
  );
}

const promptPattern =
  /(\d+) (?:tokens )?(?:in|from) the (?:messages|prompt|input messages)|(?:has|passed) (\d+) input tokens|prompt \(length (\d+)\)|(?:input|request|input length) \((\d+) tokens\)|prompt length \((\d+)/i;
const outputPattern =
  /(\d+) (?:tokens )?(?:in|for) the completion|is too large: (\d+)|requested (\d+) output tokens|max_tokens \((\d+)\)/i;
const contextPattern =
  /(?:context length|model length|context size|max_seq_len|max_num_tokens|maximum (?:allowed|input|sequence) length)(?: is| of)?(?: only)? \(?(\d+)/i;

const fieldsSchema = z.looseObject({
  overflow: overflowSchema.optional().catch(undefined),
  /** llama.cpp's name for the length of the prompt. */
  n_prompt_tokens: z.int().min(0).optional().catch(undefined),
  n_ctx: z.int().min(0).optional().catch(undefined),
});

/** The numbers are null as far as the engine does not tell them. */
export function readOverflow(error: unknown, message: string): Overflow | null {
  const fields = fieldsSchema.safeParse(error).data ?? {};
  if (fields.overflow) {
    const { prompt_tokens, output_tokens, context_tokens } = fields.overflow;
    return {
      promptTokens: prompt_tokens,
      outputTokens: output_tokens,
      contextTokens: context_tokens,
    };
  }
  const promptTokens = fields.n_prompt_tokens ?? numberIn(promptPattern, message);
  const contextTokens = fields.n_ctx ?? numberIn(contextPattern, message);
  if (promptTokens === null || contextTokens === null) return null;
  return { promptTokens, outputTokens: numberIn(outputPattern, message), contextTokens };
}

function numberIn(pattern: RegExp, message: string): number | null {
  const found = pattern.exec(message)?.slice(1).find(Boolean);
  return found === undefined ? null : Number(found);
}
