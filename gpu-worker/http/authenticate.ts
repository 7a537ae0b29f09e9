/** The edge is the worker's only client, and knows its token; the worker knows no users. */
import type { MiddlewareHandler } from 'hono';
import { bearerCheck } from '../protocol/bearer-token.ts';
import { ApiError } from './api-error.ts';
import type { AppEnv } from './worker-services.ts';

/** Lets everyone in if `token` is null. */
export function authenticate(token: string | null): MiddlewareHandler<AppEnv> {
  const isRight = token === null ? () => true : bearerCheck(token);
  return async (c, next) => {
    if (isRight(c.req.header('authorization'))) return next();
    throw new ApiError('invalid_api_key', 'The worker token is missing or wrong.', {
      headers: { 'www-authenticate': 'Bearer' },
    });
  };
}
