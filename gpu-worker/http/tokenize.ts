/** `POST /tokenize`: the prompt tokens of a conversation, without computing anything of it. */
import type { Context } from 'hono';
import { readBody } from './request/read-body.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';

/** @throws ApiError as a chat completion of the same fields would. */
export async function answerTokenize(
  c: Context<AppEnv>,
  services: WorkerServices,
): Promise<Response> {
  const model = services.lifecycle.modelForRequest();
  const answer = await readBody(c, model, 'tokenize');
  return c.body(answer, 200, { 'content-type': 'application/json' });
}
