/** Reads the requests of `/chat/completions` and `/completions`. */
import { ApiError } from '../../errors.ts';
import type { PromptPart } from '../../prefix/chain.ts';
import { cacheScope } from '../inference-request.ts';
import type { InferenceRequest } from '../inference-request.ts';
import { parseRequest } from '../../middleware/parse-request.ts';
import { chatRequestSchema, textRequestSchema } from './request-schemas.ts';
import type { ChatRequest, TextRequest } from './request-schemas.ts';
import { unsupported } from './unsupported.ts';

/** A request's wishes for the form of its answer. */
export interface AnswerOptions {
  /** A stream ends with its usage. */
  readonly usage: boolean;
  /** Each event has the usage so far. */
  readonly runningUsage: boolean;
  /** Stated to a client that asked for a tier. */
  readonly tier: 'default' | null;
}

/** @throws ApiError naming the parameter at fault. */
export function parseChatRequest(json: unknown): InferenceRequest<AnswerOptions> {
  const request = parseRequest(chatRequestSchema, json, unsupported);
  const {
    max_tokens,
    max_completion_tokens,
    parallel_tool_calls: inParallel,
    tools,
    tool_choice: choice,
    metadata: _metadata,
    modalities: _modalities,
    prompt_cache_key: _cacheKey,
    prompt_cache_retention: _retention,
    verbosity: _verbosity,
    safety_identifier: safetyIdentifier,
    ...others
  } = request;
  const user = request.user ?? safetyIdentifier;
  const hasTools = Boolean(tools?.length);
  if (!hasTools && choice && choice !== 'auto' && choice !== 'none') throw choiceWithoutTools();
  if (max_tokens && max_completion_tokens && max_tokens !== max_completion_tokens) {
    throw new ApiError(
      'invalid_value',
      "'max_tokens' and 'max_completion_tokens' are two names of one limit; give one.",
      { param: 'max_completion_tokens' },
    );
  }
  return {
    ...commonParts(request),
    workerPath: '/v1/chat/completions',
    workerBody: forWorker({
      ...others,
      ...(hasTools && { tools, ...(choice && { tool_choice: choice }) }),
      ...(user && { user }),
      ...(inParallel === false && { parallel_tool_calls: false }),
    }),
    outputTokensStated: max_completion_tokens ?? max_tokens ?? null,
    prompts: 1,
    promptParts: chatParts(request),
    promptTokens: null,
    suffix: null,
    answer: { ...wantedUsage(request), tier: request.service_tier ? 'default' : null },
  };
}

/** Refuses a request that asks for a call and offers nothing to call. */
export function choiceWithoutTools(): ApiError {
  return new ApiError('invalid_value', "'tool_choice' asks for a call and 'tools' are none.", {
    param: 'tool_choice',
  });
}

/** @throws ApiError naming the parameter at fault. */
export function parseTextRequest(json: unknown): InferenceRequest<AnswerOptions> {
  const request = parseRequest(textRequestSchema, json, unsupported);
  const { max_tokens, best_of: _best, ...others } = request;
  const prompts = promptsOf(request.prompt);
  return {
    ...commonParts(request),
    workerPath: '/v1/completions',
    workerBody: forWorker(others),
    outputTokensStated: max_tokens ?? null,
    prompts: prompts.length,
    promptParts: [
      ...prompts.map((value) => ({ kind: 'text', value }) as const),
      ...(request.suffix ? [{ kind: 'text', value: request.suffix } as const] : []),
    ],
    promptTokens: tokensOf(request.prompt),
    suffix: request.suffix ?? null,
    answer: { ...wantedUsage(request), tier: null },
  };
}

/** Tools, then messages, as they were sent; `response_format` too, which some formats write out. */
export function chatParts(
  request: Pick<ChatRequest, 'tools' | 'messages' | 'response_format'>,
): PromptPart[] {
  const { tools, messages, response_format: format } = request;
  return [
    ...(tools?.length ? [{ kind: 'tools', value: tools } as const] : []),
    ...messages.map((value) => ({ kind: 'message', value }) as const),
    ...(format && format.type !== 'text' ? [{ kind: 'message', value: format } as const] : []),
  ];
}

function commonParts(request: ChatRequest | TextRequest) {
  if (request.stream_options && !request.stream) {
    throw new ApiError('invalid_value', "'stream_options' is only allowed with 'stream'.", {
      param: 'stream_options',
    });
  }
  const { model, stream, n, user_id: userId, cache_salt: salt } = request;
  return {
    model,
    stream: stream ?? false,
    answersEach: n ?? 1,
    cacheScope: cacheScope({ ...(userId && { userId }), ...(salt && { salt }) }),
  };
}

function wantedUsage({ stream_options: options }: ChatRequest | TextRequest) {
  return {
    usage: options?.include_usage ?? false,
    runningUsage: options?.continuous_usage_stats ?? false,
  };
}

/** Takes away the fields that the edge decides or has dealt with. */
function forWorker<Request extends Partial<ChatRequest> | Partial<TextRequest>>(request: Request) {
  const {
    stream: _stream,
    stream_options: _options,
    cache_salt: _salt,
    user_id: _userId,
    store: _store,
    service_tier: _tier,
    ...body
  } = request;
  return body;
}

/** Lists each prompt as text; token ids are written out. */
function promptsOf(prompt: TextRequest['prompt']): string[] {
  if (typeof prompt === 'string') return [prompt];
  const isOneOfTokens = typeof prompt[0] === 'number';
  if (isOneOfTokens) return [prompt.join(' ')];
  return prompt.map((each) => (typeof each === 'string' ? each : String(each)));
}

function tokensOf(prompt: TextRequest['prompt']): number | null {
  if (typeof prompt === 'string' || typeof prompt[0] === 'string') return null;
  return prompt.flat().length;
}
