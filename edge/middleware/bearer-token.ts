/** One shared secret in front of a set of routes: the operator's, or the workers'. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { ApiError } from '../errors.ts';
import type { AppEnv } from './app-env.ts';

/** Lets those pass who bring `authorization: Bearer <token>`. */
export function bearerToken(token: string): MiddlewareHandler<AppEnv> {
  const expected = digest(token);
  return async (c, next) => {
    const [, given = ''] = /^Bearer +(\S+) *$/i.exec(c.req.header('authorization') ?? '') ?? [];
    // Digests have one length and say nothing about where two tokens begin to differ.
    if (!timingSafeEqual(digest(given), expected)) {
      throw new ApiError('invalid_api_key', 'The token is missing or wrong.', {
        headers: { 'www-authenticate': 'Bearer' },
      });
    }
    await next();
  };
}

function digest(text: string): Uint8Array {
  return createHash('sha256').update(text).digest();
}
