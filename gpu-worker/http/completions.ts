/** `POST /v1/completions`: prompts of text or token ids, continued; streamed or at once. */
import type { Context } from 'hono';
import { completionChunks, gatherCompletion } from './response/completion-response.ts';
import { readBody } from './request/read-body.ts';
import { responseHead, streamedUsage } from './response/response-head.ts';
import { runRequest } from './run.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';
import { streamEvents } from './response/sse.ts';
import { answerWhole } from './response/whole-answer.ts';

/** @throws ApiError */
export async function answerCompletion(
  c: Context<AppEnv>,
  services: WorkerServices,
): Promise<Response> {
  const context = c.get('context');
  const model = services.lifecycle.modelForRequest();
  const read = await readBody(c, model, 'completion');

  const { requests } = read;
  const events = runRequest(services, { model, context, requests, promptParam: 'prompt' });
  const head = responseHead(services, model, { requestId: context.id, idPrefix: 'cmpl' });
  const options = { ...read, head };
  if (!read.stream) return answerWhole(c, await gatherCompletion(events, options));
  return streamEvents(c, services, completionChunks(events, options, streamedUsage(read.usage)));
}
