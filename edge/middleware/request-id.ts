/**
 * Every request gets an id of ours, which is on its answer, in the log, at the worker and in the
 * ledger. A client's own x-request-id is not taken: ids must be unique where money hangs on them.
 */
import type { MiddlewareHandler } from 'hono';
import type { Services } from '../services.ts';
import type { AppContext, AppEnv } from './app-env.ts';

const idBytes = 16;

export function requestIds(services: Services): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const id = Buffer.from(services.random.bytes(idBytes)).toString('hex');
    c.set('requestId', id);
    await next();
    if (c.get('answerHasId')) return;
    for (const [name, value] of Object.entries(requestIdHeaders(c))) c.header(name, value);
  };
}

/** Anthropic's clients read theirs under a name of its own. */
export function requestIdHeaders(c: AppContext): Readonly<Record<string, string>> {
  const id = c.get('requestId');
  return {
    'x-request-id': id,
    ...(c.req.path.startsWith('/anthropic/') && { 'request-id': id }),
  };
}
