/** `POST /v1/chat/completions`: a conversation, answered; streamed or at once. */
import type { Context } from 'hono';
import type { EngineRequest } from '../engine/request.ts';
import { chatCompletionRequestSchema, type ChatCompletionRequest, type Tool } from '../protocol.ts';
import { renderChat } from './chat-prompt.ts';
import { chatChunks, gatherChat } from './chat-response.ts';
import { ApiError } from './errors.ts';
import { chatGrammar, checkCombinations, outputTokensMax, toEngineRequest } from './generation.ts';
import type { ServedModel } from './lifecycle.ts';
import { requireModel } from './models.ts';
import { parseRequest } from './parse-request.ts';
import { readJson } from './read-json.ts';
import { responseHead, streamedUsage } from './response-head.ts';
import { runRequest } from './run.ts';
import type { AppEnv, Services } from './services.ts';
import { streamEvents } from './sse.ts';
import { createToolCallParsers, type ToolCallParser } from './tool-calls.ts';

/** @throws ApiError */
export async function answerChatCompletion(
  c: Context<AppEnv>,
  services: Services,
): Promise<Response> {
  const access = c.get('access');
  const model = services.lifecycle.modelForRequest();
  const body = parseRequest(chatCompletionRequestSchema, await readJson(c));
  access.user = body.user ?? null;
  requireModel(model, body.model);
  checkCombinations(body);
  checkChatCombinations(body);

  const prompt = renderChat(model, body);
  const request = toEngineRequest(model, {
    body,
    id: access.id,
    promptTokens: prompt.tokens,
    outputTokensMax: outputTokensMax(model, {
      asked: body.max_completion_tokens ?? body.max_tokens ?? null,
      promptTokens: prompt.tokens.length,
      promptParam: 'messages',
      body,
    }),
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : null,
    promptLogprobs: body.prompt_logprobs ?? null,
    reasoningEndToken: prompt.reasoningEndToken,
    grammar: chatGrammar(model, body, prompt.tools),
  });

  const requests = [request];
  const events = runRequest(services, { model, access, requests, promptParam: 'messages' });
  const options = {
    head: responseHead(services, model, { access, idPrefix: 'chatcmpl' }),
    choices: request.choices,
    toolParsers: toolParsers(model, { tools: prompt.tools, request }),
  };
  if (body.stream) {
    const chunks = chatChunks(events, { ...options, usage: streamedUsage(body) });
    return streamEvents(c, services, chunks);
  }
  const completion = await gatherChat(events, {
    ...options,
    thinking: prompt.reasoningEndToken !== null,
    logprobs: request.logprobs !== null,
    promptLogprobs: request.promptLogprobs,
  });
  return c.json(completion);
}

/** One per choice if the model was offered tools. */
function toolParsers(
  { chatTemplate }: ServedModel,
  { tools, request }: { tools: readonly Tool[]; request: EngineRequest },
): ToolCallParser[] | null {
  if (tools.length === 0) return null;
  const toolNames = tools.map((tool) => tool.function.name);
  const form = { toolNames, isFenced: chatTemplate.fencesToolArguments };
  return createToolCallParsers(request.id, { choices: request.choices, form });
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
