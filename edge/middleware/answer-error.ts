/** The one place where an error becomes an answer, in the dialect of its path. */
import type { ErrorHandler, NotFoundHandler } from 'hono';
import { dialectOf } from '../dialects/dialects.ts';
import { ApiError, toApiError } from '../errors.ts';
import { nearestAdvice } from '../nearest.ts';
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

/** A path that is longer than any of ours by far is not compared with them. */
const comparedCharactersMax = 100;

/** @param paths those that the answer may name as the nearest one. */
export function answerUnknownUrl(paths: readonly string[]): NotFoundHandler<AppEnv> {
  return (c) => {
    const { path, method } = c.req;
    const isOurs = path.length <= comparedCharactersMax && !path.startsWith('/admin/');
    const advice = isOurs ? nearestAdvice(path, paths) : '';
    return errorResponse(c, new ApiError('unknown_url', `There is no ${method} ${path}.${advice}`));
  };
}

function errorResponse(c: AppContext, error: ApiError): Response {
  c.get('record').note({ code: error.code });
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
