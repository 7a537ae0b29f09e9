/** Follows every request, and says what is known of it by HTTP. */
import type { MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';
import { RequestRecord } from '../observe/request-record.ts';
import type { Services } from '../services.ts';
import type { AppEnv } from './app-env.ts';

export function observeRequests(
  services: Pick<Services, 'clock' | 'observe' | 'tracing'>,
): MiddlewareHandler<AppEnv> {
  const { clock, observe, tracing } = services;
  return async (c, next) => {
    const startedAtMs = clock.nowMs();
    const trace = tracing?.begin({ headers: c.req.raw.headers, startedAtMs }) ?? null;
    const record = new RequestRecord(observe, startedAtMs, trace);
    c.set('record', record);
    await next();
    if (c.get('isForwarded')) return;
    record.answered({
      requestId: c.get('requestId'),
      method: c.req.method,
      route: routeOf(routePath(c, -1)),
      status: c.res.status,
    });
  };
}

/** The path as the reference writes it: `/v1/models/{id}`. */
function routeOf(pattern: string): string {
  if (pattern.endsWith('*')) return 'unknown';
  return pattern.replaceAll(/:(\w+)(\{[^}]*\})?/g, '{$1}');
}
