/**
 * One shared secret in front of a set of routes: the operator's, or the workers'. Hono's bearerAuth
 * answers with bodies of its own past the error table, and 400 where this says 401.
 */
import type { MiddlewareHandler } from 'hono';
import { bearerCheck } from '../../gpu-worker/protocol/bearer-token.ts';
import { ApiError } from '../errors.ts';
import type { AppEnv } from './app-env.ts';

/** Lets those pass who bring `authorization: Bearer <token>`. */
export function bearerToken(token: string): MiddlewareHandler<AppEnv> {
  const isRight = bearerCheck(token);
  return async (c, next) => {
    if (!isRight(c.req.header('authorization'))) {
      throw new ApiError('invalid_api_key', 'The token is missing or wrong.', {
        headers: { 'www-authenticate': 'Bearer' },
      });
    }
    await next();
  };
}
