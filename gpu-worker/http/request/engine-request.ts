/**
 * Makes the engine's request of the fields that chat completions and completions share. Checks what
 * depends on the model: the context length and token ids within the vocabulary.
 */
import type { PackedGrammar } from '../../grammar/packed-grammar.ts';
import type { EngineRequest, SamplingOptions } from '../../engine/request.ts';
import { defaultOutputTokens, wholeLogprobsMax } from '../../protocol/limits.ts';
import type { Tool } from '../../protocol/messages.ts';
import type { ChatCompletionRequest, CompletionRequest } from '../../protocol/requests.ts';
import { TooManyTokensError } from '../../tokenizer/tokenizer.ts';
import { ApiError } from '../api-error.ts';
import type { OutputRules } from './output-grammar.ts';
import type { PromptModel, TextModel, UsageAsked } from '../text/text-model.ts';

/** Log-probabilities of prompt tokens and of alternatives to them in one answer. */
const promptLogprobsMax = 8_192;

type Body = ChatCompletionRequest | CompletionRequest;

interface GenerationOptions {
  readonly body: Body;
  readonly id: string;
  readonly promptTokens: Int32Array;
  readonly outputTokensMax: number;
  readonly logprobs: number | null;
  readonly promptLogprobs: number | null;
  readonly reasoningEndToken: number | null;
  readonly grammar: PackedGrammar | null;
}

/** @throws ApiError 400 naming the parameter. */
export function toEngineRequest(model: TextModel, options: GenerationOptions): EngineRequest {
  const { body, id, promptTokens } = options;
  return {
    id,
    promptTokens,
    cacheSalt: body.cache_salt ?? '',
    fairScope: body.fair_scope ?? body.cache_salt ?? '',
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

/** The model as it is sold to the caller, whose context may be shorter than the model's own. */
export function soldModel(model: TextModel, { context_length: sold }: Body): TextModel {
  const { contextLength: own } = model.description;
  const contextLength = Math.min(own, sold ?? own);
  return { ...model, description: { ...model.description, contextLength } };
}

export function usageAsked(body: Body): UsageAsked {
  return {
    atEnd: body.stream_options?.include_usage ?? false,
    running: body.stream_options?.continuous_usage_stats ?? false,
  };
}

/**
 * Refuses more log-probabilities of prompts than are told in a moment: they are made, sent and
 * written all at once, on the threads that serve everybody.
 * @throws ApiError 400
 */
export function refuseManyLogprobs(requests: readonly EngineRequest[], param: string): void {
  const values = requests.reduce(
    (sum, { promptTokens, promptLogprobs, choices }) =>
      sum + (promptLogprobs === null ? 0 : promptTokens.length * (promptLogprobs + 1) * choices),
    0,
  );
  if (values <= promptLogprobsMax) return;
  throw new ApiError(
    'invalid_value',
    `The log-probabilities of the prompt would be ${values} values, all choices and alternatives ` +
      `together; one request may have at most ${promptLogprobsMax}.`,
    { param },
  );
}

/**
 * Refuses a whole answer that could have more log-probabilities than are kept until its end.
 * @throws ApiError 400
 */
export function refuseLongLogprobs(
  requests: readonly EngineRequest[],
  asked: { readonly stream: boolean; readonly param: string },
): void {
  const values = requests.reduce(
    (sum, { logprobs, outputTokensMax: tokens, choices }) =>
      sum + (logprobs === null ? 0 : tokens * choices * (logprobs + 1)),
    0,
  );
  if (asked.stream || values <= wholeLogprobsMax) return;
  throw new ApiError(
    'invalid_value',
    `The answer could have ${values} log-probabilities, all choices and alternatives together; ` +
      `one that is not streamed may have at most ${wholeLogprobsMax}. ` +
      `Set 'stream', or lower 'max_tokens'.`,
    { param: asked.param },
  );
}

/** Refuses what both kinds of request refuse for the same reasons. @throws ApiError 400 */
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

/** Makes the grammar that a chat's answer is held to; null for none. @throws ApiError 400 */
export function chatGrammar(
  model: TextModel,
  body: ChatCompletionRequest,
  tools: readonly Tool[],
): PackedGrammar | null {
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

/** Makes the grammar that a completion's text is held to; null for none. @throws ApiError 400 */
export function textGrammar(model: TextModel, body: CompletionRequest): PackedGrammar | null {
  const format = body.response_format ?? null;
  return outputGrammar(model, body, { format, tools: [], choice: 'auto', parallelCalls: true });
}

function outputGrammar(model: TextModel, body: Body, rules: OutputRules): PackedGrammar | null {
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
  model: TextModel,
  request: { asked: number | null; promptTokens: number; promptParam: 'messages' | 'prompt' },
): number {
  const { contextLength, plan } = model.description;
  const { asked, promptTokens, promptParam } = request;
  const room = contextLength - promptTokens;
  if (asked !== null && asked <= room) return asked;
  if (asked === null && room >= 1) {
    // The default leaves room in the cache too, if that is the tighter limit; a prompt that is
    // larger than the cache is for the engine to refuse.
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
 * Bounds the tokens of a prompt that are counted: one that is somewhat too long is refused with its
 * exact count, and one that is far too long without tokenising the rest, which takes seconds.
 */
export function promptTokensMax({ description }: PromptModel): number {
  return 2 * description.contextLength;
}

/** Runs `encode`. @throws ApiError 400 context_length_exceeded where it finds too many tokens. */
export function refuseTooLong<Result>(
  { description }: PromptModel,
  promptParam: 'messages' | 'prompt',
  encode: () => Result,
): Result {
  try {
    return encode();
  } catch (error) {
    if (!(error instanceof TooManyTokensError)) throw error;
    const { contextLength } = description;
    throw new ApiError(
      'context_length_exceeded',
      `This model's maximum context length is ${contextLength} tokens. ` +
        `However, the ${promptParam} ` +
        `took at least ${error.tokens} tokens. Please reduce the length of the ${promptParam}.`,
      {
        param: promptParam,
        overflow: {
          prompt_tokens: error.tokens,
          output_tokens: null,
          context_tokens: contextLength,
        },
      },
    );
  }
}

function toSampling(model: TextModel, body: Body): SamplingOptions {
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

function stopTokens(model: TextModel, body: Body): readonly number[] {
  const tokens = body.stop_token_ids ?? [];
  tokens.forEach((token, index) => requireToken(model, token, `stop_token_ids[${index}]`));
  return tokens;
}

/** @throws ApiError 400 */
export function requireToken(model: TextModel, token: number, param: string): void {
  const { vocabSize } = model.description;
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
