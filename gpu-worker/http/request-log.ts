/**
 * One log line and one count per request, when its answer has ended: for a stream that is after the
 * route has returned. Prompts, outputs, tokens of the API and keys are never logged.
 */
import type { Context, MiddlewareHandler } from 'hono';
import { spanOf } from './request-span.ts';
import type { RequestContext, RunRecord } from './request-context.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';

/**
 * Status in log and metrics, after nginx's, of a request whose client left before its answer ended.
 */
const statusClientLeft = 499;

/** Makes each request's context, and ends it unless its route answers with a stream. */
export function requestLog(services: WorkerServices): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const context = createContext(services, c);
    c.set('context', context);
    await next();
    if (!context.isStreaming) context.end(c.res.status);
  };
}

function createContext(services: WorkerServices, c: Context<AppEnv>): RequestContext {
  const { clock, metrics, tracing } = services;
  const startedAtMs = clock.wallMs();
  const trace = tracing?.begin({ headers: c.req.raw.headers, startedAtMs }) ?? null;
  const stop = new AbortController();
  const clientLeft = c.req.raw.signal;
  const stopIt = (): void => stop.abort();
  if (clientLeft.aborted) stop.abort();
  else clientLeft.addEventListener('abort', stopIt, { once: true });
  let hasEnded = false;
  return {
    id: c.get('requestId'),
    startedMs: clock.steadyMs(),
    trace,
    stop,
    route: 'unknown',
    user: null,
    run: null,
    isGivenUp: false,
    isStreaming: false,
    end(answeredStatus) {
      if (hasEnded) return;
      hasEnded = true;
      // Node keeps a signal for ever that somebody listens to.
      clientLeft.removeEventListener('abort', stopIt);
      const outcome = this.isGivenUp ? 'aborted' : (this.run?.outcome ?? 'done');
      const status = outcome === 'aborted' ? statusClientLeft : answeredStatus;
      const durationMs = clock.steadyMs() - this.startedMs;
      metrics.requestEnded({ route: this.route, status, seconds: durationMs / 1000 });
      const answer = { method: c.req.method, status, outcome, durationMs };
      logRequest(services, this, answer);
      trace?.end({ startedAtMs, ...spanOf(this, answer) });
    },
  };
}

interface Answer {
  readonly method: string;
  readonly status: number;
  readonly outcome: RunRecord['outcome'];
  readonly durationMs: number;
}

function logRequest(
  { logger }: WorkerServices,
  { id, route, run, user }: RequestContext,
  answer: Answer,
): void {
  const { method, status, outcome, durationMs } = answer;
  const firstTokenMs = run?.firstTokenMs ?? null;
  const line = {
    requestId: id,
    method,
    route,
    status,
    outcome,
    durationMs: Math.round(durationMs),
    firstTokenMs: firstTokenMs === null ? null : Math.round(firstTokenMs),
    ...(run && { usage: run.usage }),
    ...(user !== null && { user }),
  };
  if (route === '/health' || route === '/metrics') logger.debug(line, 'request');
  else if (status >= 500) logger.error(line, 'request');
  else logger.info(line, 'request');
}
