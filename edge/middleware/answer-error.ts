/** The one place where an error becomes an answer, in the dialect of its path. */
import type { ErrorHandler, NotFoundHandler } from 'hono';
import { dialectOf } from '../dialects/dialects.ts';
import { ApiError, toApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import { TenantUnavailable } from '../tenant/tenant-unavailable.ts';
import type { AppContext, AppEnv } from './app-env.ts';

export function answerError(services: Services): ErrorHandler<AppEnv> {
  return (thrown, c) => {
    const error = toApiError(thrown);
    if (error.status >= 500) {
      services.log('warn', 'request-failed', {
        requestId: c.get('requestId'),
        path: c.req.path,
        code: error.code,
        ...(error instanceof TenantUnavailable && { tenant: error.tenant, advice: error.advice }),
        reason: describe(error.cause ?? error),
      });
    }
    return errorResponse(c, error);
  };
}

export const answerUnknownUrl: NotFoundHandler<AppEnv> = (c) =>
  errorResponse(c, new ApiError('unknown_url', `There is no ${c.req.method} ${c.req.path}.`));

export function errorResponse(c: AppContext, error: ApiError): Response {
  const body = dialectOf(c.req.path).errors.body(error, c.get('requestId'));
  return new Response(JSON.stringify(body), {
    status: error.status,
    headers: { 'content-type': 'application/json', ...error.headers },
  });
}

/** Says in the log what went wrong, never what a request held. */
export function describe(reason: unknown): string {
  return reason instanceof Error ? `${reason.name}: ${reason.message}` : String(reason);
}
