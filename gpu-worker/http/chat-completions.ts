/** `POST /v1/chat/completions`: a conversation, answered; streamed or at once. */
import type { Context } from 'hono';
import type { CallParser } from '../chat-formats/call-parser.ts';
import { createCallParsers } from '../chat-formats/call-syntaxes.ts';
import { chatChunks, gatherChat } from './response/chat-response.ts';
import { readBody } from './request/read-body.ts';
import { responseHead, streamedUsage } from './response/response-head.ts';
import { runRequest } from './run.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';
import { streamEvents } from './response/sse.ts';
import type { ReadChat } from './text/text-model.ts';
import { answerWhole } from './response/whole-answer.ts';

/** @throws ApiError */
export async function answerChatCompletion(
  c: Context<AppEnv>,
  services: WorkerServices,
): Promise<Response> {
  const context = c.get('context');
  const model = services.lifecycle.modelForRequest();
  const read = await readBody(c, model, 'chat');

  const { requests } = read;
  const [request] = requests;
  const events = runRequest(services, { model, context, requests, promptParam: 'messages' });
  const options = {
    head: responseHead(services, model, { requestId: context.id, idPrefix: 'chatcmpl' }),
    choices: request.choices,
    toolParsers: toolParsers(read),
  };
  if (read.stream) {
    const chunks = chatChunks(events, { ...options, usage: streamedUsage(read.usage) });
    return streamEvents(c, services, chunks);
  }
  const completion = await gatherChat(events, {
    ...options,
    thinking: read.thinking,
    logprobs: request.logprobs !== null,
    promptLogprobs: request.promptLogprobs,
  });
  return answerWhole(c, completion);
}

/** One per choice if the model was offered tools. */
function toolParsers({ callForm, requests: [request] }: ReadChat): CallParser[] | null {
  if (callForm === null) return null;
  return createCallParsers(request.id, { choices: request.choices, form: callForm });
}
