/** A request that names two hosts may mean one to a proxy and another here. */
import type { MiddlewareHandler } from 'hono';
import { ApiError } from '../errors.ts';
import type { AppEnv } from './app-env.ts';

/** Two headers of one name read as one with a comma, which no host has. */
export const oneHost: MiddlewareHandler<AppEnv> = async (c, next) => {
  if (c.req.raw.headers.get('host')?.includes(',')) {
    const headers = { connection: 'close' };
    throw new ApiError('two_hosts', 'The request has two Host headers.', { headers });
  }
  await next();
};
