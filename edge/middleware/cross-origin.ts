/**
 * Lets web pages of any origin call the public API. A key is sent by who has it and never by the
 * browser on its own, so no page gets more than any other program with that key. Hono's cors would
 * answer every OPTIONS, and mark the answers to programs too.
 */
import type { MiddlewareHandler } from 'hono';
import type { AppEnv } from './app-env.ts';

const preflightSeconds = 86_400;

/** @param methods those that the path takes. */
export function crossOrigin(methods: readonly string[]): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    if (c.req.header('origin') === undefined) return next();
    const method = c.req.header('access-control-request-method');
    if (c.req.method === 'OPTIONS' && method !== undefined) {
      return new Response(null, {
        status: 204,
        headers: {
          'access-control-allow-origin': '*',
          'access-control-allow-methods': methods.join(', '),
          // A star would not stand for `authorization`.
          'access-control-allow-headers': c.req.header('access-control-request-headers') ?? '*',
          'access-control-max-age': String(preflightSeconds),
        },
      });
    }
    await next();
    c.header('access-control-allow-origin', '*');
    c.header('access-control-expose-headers', '*');
  };
}
