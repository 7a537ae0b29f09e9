/**
 * From the fields that chat completions and completions share to what the engine takes. Checks what
 * depends on the model: the context length and token ids within the vocabulary.
 */
import type { Grammar } from '../grammar/grammar.ts';
import type { EngineRequest, SamplingOptions } from '../engine/request.ts';
import {
  defaultOutputTokens,
  type ChatCompletionRequest,
  type CompletionRequest,
  type Tool,
} from '../protocol.ts';
import { ApiError } from './errors.ts';
import type { ServedModel } from './lifecycle.ts';
import type { OutputRules } from './output-grammar.ts';

/** By how many tokens a cut can lengthen a text, with room to spare. */
const cutTokensMax = 64;

type Body = ChatCompletionRequest | CompletionRequest;

interface GenerationOptions {
  readonly body: Body;
  readonly id: string;
  readonly promptTokens: Int32Array;
  readonly outputTokensMax: number;
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
  readonly reasoningEndToken: number | null;
  readonly grammar: Grammar | null;
}

/** @throws ApiError 400 naming the parameter. */
export function toEngineRequest(model: ServedModel, options: GenerationOptions): EngineRequest {
  const { body, id, promptTokens } = options;
  return {
    id,
    promptTokens,
    cacheSalt: body.cache_salt ?? '',
    choices: body.n ?? 1,
    sampling: toSampling(model, body),
    outputTokensMax: options.outputTokensMax,
    stopStrings: toList(body.stop),
    stopTokens: stopTokens(model, body),
    ignoreEnd: body.ignore_eos ?? false,
    logprobs: options.logprobs,
    promptLogprobs: options.promptLogprobs,
    reasoningEndToken: options.reasoningEndToken,
    grammar: options.grammar,
  };
}

/** What both kinds of request refuse for the same reasons. @throws ApiError 400 */
export function checkCombinations(body: Body): void {
  if (body.stream_options && !body.stream) {
    throw new ApiError('invalid_value', "'stream_options' needs 'stream' to be true.", {
      param: 'stream_options',
    });
  }
  if (typeof body.prompt_logprobs === 'number' && body.stream) {
    throw new ApiError('invalid_value', "'prompt_logprobs' is not streamed; leave out 'stream'.", {
      param: 'prompt_logprobs',
    });
  }
}

/** What a chat's answer is held to; null for none. @throws ApiError 400 */
export function chatGrammar(
  model: ServedModel,
  body: ChatCompletionRequest,
  tools: readonly Tool[],
): Grammar | null {
  const choice = body.tool_choice ?? 'auto';
  const isContinued = body.messages.some((each) => each.role === 'assistant' && each.prefix);
  if (isContinued && (body.response_format?.type ?? 'text') !== 'text') {
    throw new ApiError(
      'unsupported_parameter',
      "'response_format' is not supported for a message that is continued: its beginning is given.",
      { param: 'response_format' },
    );
  }
  return outputGrammar(model, body, {
    format: body.response_format ?? null,
    tools,
    choice:
      typeof choice === 'object'
        ? { name: choice.function.name }
        : choice === 'required'
          ? choice
          : 'auto',
    parallelCalls: body.parallel_tool_calls ?? true,
  });
}

/** What a completion's text is held to; null for none. @throws ApiError 400 */
export function textGrammar(model: ServedModel, body: CompletionRequest): Grammar | null {
  const format = body.response_format ?? null;
  return outputGrammar(model, body, { format, tools: [], choice: 'auto', parallelCalls: true });
}

function outputGrammar(model: ServedModel, body: Body, rules: OutputRules): Grammar | null {
  const grammar = model.outputGrammars.of(rules);
  if (grammar !== null && body.ignore_eos) {
    throw new ApiError(
      'unsupported_parameter',
      "'ignore_eos' is not supported for an answer that ends where its format does.",
      { param: 'ignore_eos' },
    );
  }
  return grammar;
}

/**
 * The output tokens that a request may take: what it asks for, or the default as far as the context
 * has room for it.
 * @throws ApiError 400 context_length_exceeded
 */
export function outputTokensMax(
  model: ServedModel,
  request: {
    asked: number | null;
    promptTokens: number;
    promptParam: 'messages' | 'prompt';
    body: Body;
  },
): number {
  const { plan, contextLength: own } = model.engine.description;
  const contextLength = Math.min(own, request.body.context_length ?? own);
  const { asked, promptTokens, promptParam } = request;
  const room = contextLength - promptTokens;
  if (asked !== null && asked <= room) return asked;
  if (asked === null && room >= 1) {
    // Where the cache is the tighter limit the default leaves room too; a prompt that is larger
    // than the cache is for the engine to refuse.
    const cacheRoom = Math.max(1, plan.blocks * plan.blockTokens - promptTokens);
    return Math.min(defaultOutputTokens, room, cacheRoom);
  }
  const total = promptTokens + (asked ?? 1);
  throw new ApiError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextLength} tokens. However, you requested ` +
      `${total} tokens (${promptTokens} in the ${promptParam}, ${asked ?? 'at least 1'} in the ` +
      `completion). Please reduce the length of the ${promptParam} or completion.`,
    {
      param: promptParam,
      overflow: {
        prompt_tokens: promptTokens,
        output_tokens: asked,
        context_tokens: contextLength,
      },
    },
  );
}

/**
 * Refuses a text that is far too long before all of it is tokenised, which takes about a second per
 * megabyte, on the thread that all answers go through. The first part of a text has hardly more
 * tokens than the whole: a cut adds a few at most.
 * @throws ApiError 400 context_length_exceeded
 */
export function refuseHopelessText(
  model: ServedModel,
  text: string,
  promptParam: 'messages' | 'prompt',
): void {
  const { contextLength } = model.engine.description;
  const partCharacters = 8 * contextLength;
  if (text.length <= partCharacters) return;
  const tokens = model.tokenizer.encode(text.slice(0, partCharacters)).length;
  if (tokens <= contextLength + cutTokensMax) return;
  throw new ApiError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextLength} tokens. However, the ${promptParam} ` +
      `took more than ${contextLength} tokens. Please reduce the length of the ${promptParam}.`,
    {
      param: promptParam,
      overflow: { prompt_tokens: tokens, output_tokens: null, context_tokens: contextLength },
    },
  );
}

function toSampling(model: ServedModel, body: Body): SamplingOptions {
  const defaults = model.samplingDefaults;
  return {
    temperature: body.temperature ?? defaults.temperature,
    // The engine's nucleus holds at least one token; so small a one holds no more.
    topP: Math.max(body.top_p ?? defaults.top_p, 1e-6),
    topK: Math.max(0, body.top_k ?? defaults.top_k),
    minP: body.min_p ?? defaults.min_p,
    seed: body.seed ?? null,
    repetitionPenalty: body.repetition_penalty ?? defaults.repetition_penalty,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    logitBias: Object.entries(body.logit_bias ?? {}).map(([key, bias]) => {
      const token = Number(key);
      requireToken(model, token, `logit_bias.${key}`);
      return [token, bias] as const;
    }),
  };
}

function stopTokens(model: ServedModel, body: Body): readonly number[] {
  const tokens = body.stop_token_ids ?? [];
  tokens.forEach((token, index) => requireToken(model, token, `stop_token_ids[${index}]`));
  return tokens;
}

/** @throws ApiError 400 */
export function requireToken(model: ServedModel, token: number, param: string): void {
  const { vocabSize } = model.engine.description;
  if (token < vocabSize) return;
  throw new ApiError(
    'invalid_value',
    `Invalid '${param}': token ${token} is not in the vocabulary of ${vocabSize} tokens.`,
    { param },
  );
}

function toList(stop: Body['stop']): readonly string[] {
  if (stop === undefined || stop === null) return [];
  return typeof stop === 'string' ? [stop] : stop;
}
