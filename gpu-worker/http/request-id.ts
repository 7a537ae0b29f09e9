/**
 * The request's id: the client's x-request-id if it is well-formed, else a new one; always echoed.
 */
import { randomUUID } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { requestIdSchema } from '../protocol/fields.ts';
import { ApiError } from './api-error.ts';
import type { AppEnv } from './worker-services.ts';

const header = 'x-request-id';

/** Sets an id even for a request that `checkRequestId` then refuses. */
export const requestId: MiddlewareHandler<AppEnv> = async (c, next) => {
  const given = requestIdSchema.safeParse(c.req.header(header));
  const id = given.success ? given.data : randomUUID();
  c.set('requestId', id);
  await next();
  c.res.headers.set(header, id);
};

/** An id that the client would look for in vain is an error, not something to replace silently. */
export const checkRequestId: MiddlewareHandler<AppEnv> = async (c, next) => {
  const given = c.req.header(header);
  if (given !== undefined && given !== c.get('requestId')) {
    throw new ApiError(
      'invalid_value',
      'Invalid x-request-id: expected 1 to 128 of A-Z a-z 0-9 . _ : -',
      { param: header },
    );
  }
  await next();
};
