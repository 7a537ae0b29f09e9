/**
 * Answers what a request of the last 24 hours used, `GET /v1/requests/{request id}/usage`, and
 * stops one that nobody waits for any more, `POST /v1/requests/{request id}/cancel`.
 */
import { strict as assert } from 'node:assert';
import type { Context } from 'hono';
import { requestIdSchema } from '../protocol/fields.ts';
import { ApiError } from './api-error.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';

export async function answerRequestUsage(
  c: Context<AppEnv>,
  services: WorkerServices,
): Promise<Response> {
  const id = c.req.param('id');
  assert(id !== undefined, 'the path has an id');
  const record = await services.journal.lookup(id);
  if (record) return c.json(record);
  throw new ApiError('request_not_found', 'No request of the last 24 hours has this id.');
}

/**
 * Stops a request: after this it computes nothing new, even if it arrives later than the call, so
 * that its caller can settle it. It still `running` means: it ends within a step.
 */
export async function cancelRequest(
  c: Context<AppEnv>,
  services: WorkerServices,
): Promise<Response> {
  const id = requestIdSchema.safeParse(c.req.param('id'));
  if (id.success) return c.json(await services.journal.cancel(id.data));
  throw new ApiError('request_not_found', 'No request has an id of this form.');
}
