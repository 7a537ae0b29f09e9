/**
 * Reads the requests of `/anthropic/v1/messages` and turns them into the worker's chat requests.
 */
import type { ResponseFormat } from '../../../gpu-worker/protocol/response-format.ts';
import { ApiError } from '../../errors.ts';
import { toEffort, toTools } from './conversation-changes.ts';
import { toMessages } from './conversation.ts';
import { countTokensRequestSchema, messagesRequestSchema } from './request-schemas.ts';
import type { MessagesRequest } from './request-schemas.ts';
import { cacheScope } from '../inference-request.ts';
import type { InferenceRequest } from '../inference-request.ts';
import type { AnswerOptions } from './answer.ts';
import { unsupported } from './unsupported.ts';
import { chatParts, choiceWithoutTools } from '../openai/requests.ts';
import { parseRequest } from '../../middleware/parse-request.ts';

/**
 * Reads a request of messages.
 * @throws ApiError naming the parameter at fault.
 */
export function parseMessagesRequest(json: unknown): InferenceRequest<AnswerOptions> {
  refuseThread(json);
  return toInference(parseRequest(messagesRequestSchema, json, unsupported));
}

/** A message's prompt alone. @throws ApiError naming the parameter at fault. */
export function parseCountRequest(json: unknown): InferenceRequest<AnswerOptions> {
  return toInference({
    ...parseRequest(countTokensRequestSchema, json, unsupported),
    max_tokens: 1,
  });
}

/**
 * A request of a thread may hold the new messages alone, so this goes before all other faults. By
 * the error's code Anthropic's clients know to send the whole conversation instead.
 * @throws ApiError 400
 */
function refuseThread(json: unknown): void {
  if (typeof json !== 'object' || json === null || !('thread' in json) || !json.thread) return;
  throw new ApiError(
    'unsupported_parameter',
    "'thread' is not supported: conversations are not stored; send all messages.",
    { param: 'thread', details: { error_code: 'thread_unsupported_request' } },
  );
}

function toInference(request: MessagesRequest): InferenceRequest<AnswerOptions> {
  const messages = toMessages(request);
  const tools = toTools(request);
  const choice = request.tool_choice?.type;
  if (tools === null && (choice === 'any' || choice === 'tool')) throw choiceWithoutTools();
  const effort = toEffort(request);
  const format = toResponseFormat(request);
  return {
    model: request.model,
    stream: request.stream ?? false,
    workerPath: '/v1/chat/completions',
    workerBody: {
      model: request.model,
      messages,
      ...(tools && { tools, ...toolChoice(request) }),
      ...(request.stop_sequences && { stop: request.stop_sequences }),
      ...(request.temperature != null && { temperature: request.temperature }),
      ...(request.top_p != null && { top_p: request.top_p }),
      ...(request.top_k != null && { top_k: request.top_k }),
      ...thinkingFields(request.thinking, effort),
      ...(format && { response_format: format }),
    },
    // Coding agents send another metadata.user_id in each session, and the same long prefix.
    cacheScope: cacheScope({}),
    outputTokensStated: request.max_tokens,
    prompts: 1,
    answersEach: 1,
    promptParts: chatParts({ messages, tools, response_format: format }),
    promptTokens: null,
    suffix: null,
    answer: { hidesThinking: hidesThinking(request.thinking) },
  };
}

/** An effort is a hint: it asks for thinking where the model has a mode of it. */
function thinkingFields(thinking: MessagesRequest['thinking'], effort: string | null): object {
  const asked = thinking?.type ?? (effort === null ? null : 'adaptive');
  return {
    ...(asked && { thinking: { type: asked === 'between_tools' ? 'disabled' : asked } }),
    ...(effort && { reasoning_effort: effort }),
  };
}

function hidesThinking(thinking: MessagesRequest['thinking']): boolean {
  return thinking != null && 'display' in thinking && thinking.display === 'omitted';
}

/**
 * Turns the output format into the worker's.
 * @throws ApiError 422
 */
function toResponseFormat(request: MessagesRequest): ResponseFormat | null {
  const { output_config: config, output_format: older } = request;
  if (config?.format && older) {
    throw new ApiError(
      'invalid_value',
      "'output_format' and 'output_config.format' are two names of one format; give one.",
      { param: 'output_format' },
    );
  }
  const format = config?.format ?? older;
  if (!format) return null;
  const { schema } = format;
  return { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
}

function toolChoice({ tool_choice: choice }: MessagesRequest): object {
  const isSingle = choice && choice.type !== 'none' && choice.disable_parallel_tool_use;
  return { ...chosenTool(choice), ...(isSingle && { parallel_tool_calls: false }) };
}

function chosenTool(choice: MessagesRequest['tool_choice']): object {
  switch (choice?.type) {
    case undefined:
      return {};
    case 'auto':
    case 'none':
      return { tool_choice: choice.type };
    case 'any':
      return { tool_choice: 'required' };
    case 'tool':
      return { tool_choice: { type: 'function', function: { name: choice.name } } };
  }
}
