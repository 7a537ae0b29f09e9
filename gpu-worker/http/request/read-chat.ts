/** Reads a chat completion's request out of its parsed body. */
import { argumentTypes } from '../../chat-formats/argument-types.ts';
import type { CallForm } from '../../chat-formats/chat-format.ts';
import { chatCompletionRequestSchema } from '../../protocol/requests.ts';
import type { ChatCompletionRequest } from '../../protocol/requests.ts';
import { renderChat } from './chat-prompt.ts';
import type { ChatPrompt } from './chat-prompt.ts';
import { ApiError } from '../api-error.ts';
import {
  chatGrammar,
  checkCombinations,
  outputTokensMax,
  refuseLongLogprobs,
  refuseManyLogprobs,
  soldModel,
  toEngineRequest,
  usageAsked,
} from './engine-request.ts';
import { requireModel } from '../models.ts';
import { parseRequest } from './parse-request.ts';
import type { ReadChat, TextModel } from '../text/text-model.ts';

/** @throws ApiError 400, 404 */
export function readChat(own: TextModel, json: unknown, id: string): ReadChat {
  const body = parseRequest(chatCompletionRequestSchema, json);
  const model = soldModel(own, body);
  requireModel(model, body.model);
  checkCombinations(body);
  checkChatCombinations(body);
  const prompt = renderChat(model, body);
  const request = toEngineRequest(model, {
    body,
    id,
    promptTokens: prompt.tokens,
    outputTokensMax: outputTokensMax(model, {
      asked: body.max_completion_tokens ?? body.max_tokens ?? null,
      promptTokens: prompt.tokens.length,
      promptParam: 'messages',
    }),
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : null,
    promptLogprobs: body.prompt_logprobs ?? null,
    reasoningEndToken: prompt.reasoningEndToken,
    grammar: chatGrammar(model, body, prompt.tools),
  });
  refuseManyLogprobs([request], 'prompt_logprobs');
  const stream = body.stream ?? false;
  refuseLongLogprobs([request], { stream, param: 'top_logprobs' });
  return {
    requests: [request],
    user: body.user ?? null,
    stream,
    usage: usageAsked(body),
    thinking: prompt.reasoningEndToken !== null,
    callForm: callForm(model, prompt),
  };
}

function callForm({ chatFormat }: TextModel, { tools }: ChatPrompt): CallForm | null {
  const { calls } = chatFormat;
  if (tools.length === 0 || calls === null) return null;
  return {
    syntax: calls.name,
    tools: tools.map(({ function: { name, parameters } }) => ({
      name,
      types: calls.needsTypes ? argumentTypes(parameters) : null,
    })),
  };
}

function checkChatCombinations(body: ChatCompletionRequest): void {
  if (typeof body.top_logprobs === 'number' && !body.logprobs) {
    throw new ApiError('invalid_value', "'top_logprobs' needs 'logprobs' to be true.", {
      param: 'top_logprobs',
    });
  }
  const { max_tokens: older, max_completion_tokens: newer } = body;
  if (typeof older === 'number' && typeof newer === 'number' && older !== newer) {
    throw new ApiError('invalid_value', "'max_completion_tokens' contradicts 'max_tokens'.", {
      param: 'max_completion_tokens',
    });
  }
}
