/**
 * Every request gets an id of ours, which is on its answer, in the log, at the worker and in the
 * ledger. A client's own x-request-id is not taken: ids must be unique where money hangs on them.
 */
import type { MiddlewareHandler } from 'hono';
import { requestId } from 'hono/request-id';
import { dialectOf } from '../dialects/dialects.ts';
import type { Services } from '../services.ts';
import type { AppContext, AppEnv } from './app-env.ts';

const idBytes = 16;

/** Without the name of a header Hono's middleware neither takes a client's id nor states ours. */
export function requestIds({ random }: Pick<Services, 'random'>): MiddlewareHandler<AppEnv> {
  return requestId({ headerName: '', generator: () => newRequestId({ random }) });
}

export function newRequestId({ random }: Pick<Services, 'random'>): string {
  return Buffer.from(random.bytes(idBytes)).toString('hex');
}

export const stateRequestId: MiddlewareHandler<AppEnv> = async (c, next) => {
  await next();
  if (c.get('answerHasId')) return;
  for (const [name, value] of Object.entries(requestIdHeaders(c))) c.header(name, value);
};

/** The request's id, under each name by which the dialect's clients read it. */
export function requestIdHeaders(c: AppContext): Readonly<Record<string, string>> {
  const { requestIdHeaders: names } = dialectOf(c.req.path);
  return Object.fromEntries(names.map((name) => [name, c.get('requestId')]));
}
