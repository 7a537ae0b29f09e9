/**
 * The requests that the edge sends to a worker: the OpenAI protocol with DeepSeek's additions, so
 * that vLLM and SGLang can serve in a sift worker's place. Schemas say what is well-formed; what
 * depends on the model (vocabulary, context length, chat format) is checked where it is known.
 * Optional fields may be null, which means absent, as at OpenAI.
 */
import { z } from 'zod';
import { tokenId, boundedArray } from './fields.ts';
import {
  choicesMax,
  messagesMax,
  promptsMax,
  stopStringsMax,
  stopStringCharactersMax,
  logprobsMax,
} from './limits.ts';
import { messageSchema, toolSchema, toolChoiceSchema } from './messages.ts';
import { responseFormatSchema } from './response-format.ts';

/** DeepSeek's and OpenAI's words together. */
export const reasoningEfforts = [
  'none',
  'minimal',
  'low',
  'medium',
  'high',
  'xhigh',
  'max',
  'ultra',
] as const;

const stopSchema = z.union([
  z.string().min(1).max(stopStringCharactersMax),
  boundedArray(z.string().min(1).max(stopStringCharactersMax), { max: stopStringsMax }),
]);

const streamOptionsSchema = z.strictObject({
  /** One more event before `[DONE]`, with `choices: []` and the final usage. */
  include_usage: z.boolean().nullish(),
  /** Every event carries the usage so far. */
  continuous_usage_stats: z.boolean().nullish(),
});

/** OpenAI's seeds are integers of 64 bits. */
const seedMax = 2 ** 63;

/** So many seeds can be told apart once a choice is added to them. */
const seedsExact = Number.MAX_SAFE_INTEGER - choicesMax;

/**
 * JSON numbers beyond 2^53 arrive rounded to 53 bits, the same ones each time: they are folded into
 * the seeds that a double holds exactly, so that a request with such a seed is reproducible too.
 */
export const seedSchema = z
  .number()
  .refine(Number.isInteger, 'expected an integer')
  .min(-seedMax)
  .max(seedMax)
  .transform((seed) => (Math.abs(seed) <= seedsExact ? seed : seed % seedsExact));

/** Fields that chat completions and completions have in common. */
const generationFields = {
  model: z.string().min(1).max(256),
  n: z.int().min(1).max(choicesMax).nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema.nullish(),
  stop: stopSchema.nullish(),
  stop_token_ids: boundedArray(tokenId, { max: 64 }).nullish(),
  ignore_eos: z.boolean().nullish(),
  /** 0 is greedy. */
  temperature: z.number().min(0).max(2).nullish(),
  /** 0 keeps the likeliest token alone. */
  top_p: z.number().min(0).max(1).nullish(),
  /** 0 and -1 keep all tokens. */
  top_k: z.int().min(-1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  /** Choice i of n uses seed + i. */
  seed: seedSchema.nullish(),
  repetition_penalty: z.number().gt(0).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  /** Token id -> added to its logit. */
  logit_bias: z
    .record(z.string(), z.unknown())
    .refine((bias) => Object.keys(bias).length <= 1024, 'expected at most 1024 tokens')
    .pipe(z.record(z.string().regex(/^\d{1,9}$/), z.number().min(-100).max(100)))
    .nullish(),
  /** vLLM's: logprobs of the prompt's own tokens, with this many alternatives. */
  prompt_logprobs: z.int().min(0).max(logprobsMax).nullish(),
  /** Cached prefixes are shared only between requests of equal salt. */
  cache_salt: z.string().min(1).max(512).nullish(),
  /** A context that is sold shorter than the model's own; the longer of the two has no effect. */
  context_length: z.int().min(1).nullish(),
  /**
   * Requests of one scope share one turn in the order of work; without it those of equal salt do.
   */
  fair_scope: z.string().min(1).max(512).nullish(),
  /** The operator's end user; written to the request log. */
  user: z.string().max(512).nullish(),
  response_format: responseFormatSchema.nullish(),
};

/** Variables of chat templates, by the names that the families have for them. */
const chatTemplateKwargsSchema = z.strictObject({
  /** DeepSeek's. */
  thinking: z.boolean().nullish(),
  /** GLM's, for the same. */
  enable_thinking: z.boolean().nullish(),
  /** GLM's: `false` shows the model the reasoning of all turns. */
  clear_thinking: z.boolean().nullish(),
  reasoning_effort: z.enum(reasoningEfforts).nullish(),
});

export const chatCompletionRequestSchema = z.strictObject({
  ...generationFields,
  messages: boundedArray(messageSchema, { min: 1, max: messagesMax }),
  max_tokens: z.int().min(1).nullish(),
  /** OpenAI's newer name of `max_tokens`. */
  max_completion_tokens: z.int().min(1).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(logprobsMax).nullish(),
  /** `adaptive`: on where the model has a thinking mode. Without it the model's family decides. */
  thinking: z.strictObject({ type: z.enum(['enabled', 'adaptive', 'disabled']) }).nullish(),
  /**
   * Turns thinking on, and `none` off, unless `thinking` or `chat_template_kwargs` says; of the
   * depths that the model knows the nearest is taken.
   */
  reasoning_effort: z.enum(reasoningEfforts).nullish(),
  chat_template_kwargs: chatTemplateKwargsSchema.nullish(),
  /** An empty list is none. */
  tools: boundedArray(toolSchema, { max: 128 }).nullish(),
  /** A function that has to be called is called after any reasoning. */
  tool_choice: toolChoiceSchema.nullish(),
  /** `false`: at most one call. */
  parallel_tool_calls: z.boolean().nullish(),
});

/**
 * `POST /tokenize`, vLLM's route, for conversations: the prompt that a chat completion of these
 * fields would have.
 */
export const tokenizeRequestSchema = chatCompletionRequestSchema
  .pick({
    model: true,
    messages: true,
    thinking: true,
    chat_template_kwargs: true,
    reasoning_effort: true,
    tools: true,
    tool_choice: true,
    response_format: true,
  })
  .extend({
    /** vLLM's; they say what the last message's `prefix` says. */
    add_generation_prompt: z.boolean().nullish(),
    continue_final_message: z.boolean().nullish(),
  });

export type Prompt = string | string[] | number[] | number[][];

/** A union by hand: what the first element is says what the others have to be. */
const promptSchema = z.custom<Prompt>().superRefine((prompt: unknown, context) => {
  const fault = promptFault(prompt);
  if (fault) context.addIssue({ code: 'custom', input: prompt, ...fault });
});

function promptFault(prompt: unknown): { message: string; path: number[] } | null {
  if (typeof prompt === 'string') return null;
  if (!Array.isArray(prompt) || prompt.length === 0) {
    return { message: 'expected text or token ids, one prompt or several', path: [] };
  }
  if (typeof prompt[0] === 'number') return tokenFault(prompt);
  if (prompt.length > promptsMax) {
    return { message: `expected at most ${promptsMax} prompts`, path: [] };
  }
  const kind = typeof prompt[0] === 'string' ? 'text' : 'tokens';
  for (const [index, each] of prompt.entries()) {
    if (kind === 'text' && typeof each !== 'string') {
      return { message: 'expected a string', path: [index] };
    }
    if (kind === 'text') continue;
    if (!Array.isArray(each) || each.length === 0) {
      return { message: 'expected text or a list of token ids', path: [index] };
    }
    const fault = tokenFault(each);
    if (fault) return { ...fault, path: [index, ...fault.path] };
  }
  return null;
}

function tokenFault(tokens: readonly unknown[]): { message: string; path: number[] } | null {
  const index = tokens.findIndex((token) => !Number.isSafeInteger(token) || Number(token) < 0);
  return index === -1 ? null : { message: 'expected a token id', path: [index] };
}

export const completionRequestSchema = z.strictObject({
  ...generationFields,
  prompt: promptSchema,
  /** 0 computes the prompt alone: useful with `echo` and `logprobs`. */
  max_tokens: z.int().min(0).nullish(),
  echo: z.boolean().nullish(),
  /** Text after the gap that the answer fills; needs a tokenizer with fill-in-the-middle tokens. */
  suffix: z.string().nullish(),
  logprobs: z.int().min(0).max(logprobsMax).nullish(),
});

export type ChatCompletionRequest = z.infer<typeof chatCompletionRequestSchema>;

export type CompletionRequest = z.infer<typeof completionRequestSchema>;

export type TokenizeRequest = z.infer<typeof tokenizeRequestSchema>;
