/**
 * The worker's HTTP application. It needs `WorkerServices`: a lifecycle (`createLifecycle`, told
 * `serve` once the model is loaded), a usage journal (`openUsageJournal`, a directory of its own),
 * metrics (`createMetrics`), a pino logger, a clock (`systemClock`) and settings
 * (`defaultHttpSettings` with the worker token). `listen` in server.ts then puts it on a port; both
 * may stand before the model is loaded, and /health says how far the start is.
 */
import { Hono } from 'hono';
import type { Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { requestLog } from './request-log.ts';
import { authenticate } from './authenticate.ts';
import { answerChatCompletion } from './chat-completions.ts';
import { answerCompletion } from './completions.ts';
import { ApiError, toApiError } from './api-error.ts';
import { answerHealth } from './health.ts';
import { listModels, retrieveModel } from './models.ts';
import { checkRequestId, requestId } from './request-id.ts';
import { answerRequestUsage, cancelRequest } from './request-usage.ts';
import type { AppEnv, WorkerServices } from './worker-services.ts';
import { answerTokenize } from './tokenize.ts';

type Answer = (c: Context<AppEnv>, services: WorkerServices) => Response | Promise<Response>;

interface Route {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly access: 'open' | 'token';
  readonly answer: Answer;
}

const routes: readonly Route[] = [
  { method: 'GET', path: '/health', access: 'open', answer: answerHealth },
  { method: 'GET', path: '/metrics', access: 'token', answer: answerMetrics },
  { method: 'GET', path: '/v1/models', access: 'token', answer: listModels },
  // A model's id may hold slashes.
  { method: 'GET', path: '/v1/models/:id{.+}', access: 'token', answer: retrieveModel },
  { method: 'GET', path: '/v1/requests/:id/usage', access: 'token', answer: answerRequestUsage },
  { method: 'POST', path: '/v1/requests/:id/cancel', access: 'token', answer: cancelRequest },
  { method: 'POST', path: '/v1/completions', access: 'token', answer: answerCompletion },
  { method: 'POST', path: '/v1/chat/completions', access: 'token', answer: answerChatCompletion },
  { method: 'POST', path: '/tokenize', access: 'token', answer: answerTokenize },
];

export function createApp(services: WorkerServices): Hono<AppEnv> {
  const { settings } = services;
  const app = new Hono<AppEnv>();
  const withToken = authenticate(settings.token);
  const limited = bodyLimit({
    maxSize: settings.bodyBytesMax,
    onError() {
      const message = `The request body is larger than ${settings.bodyBytesMax} bytes.`;
      throw new ApiError('request_too_large', message);
    },
  });

  app.use(requestId, requestLog(services), checkRequestId);
  for (const { method, path, access, answer } of routes) {
    app.use(path, async (c, next) => {
      c.get('context').route = path;
      await next();
    });
    if (access === 'token') app.use(path, withToken);
    app.on(method, path, limited, (c) => answer(c, services));
    app.all(path, (c) => {
      throw new ApiError('method_not_allowed', `${c.req.method} is not allowed here.`, {
        headers: { allow: method },
      });
    });
  }
  app.notFound((c) => {
    const error = new ApiError('unknown_url', `Unknown URL: ${c.req.method} ${c.req.path}.`);
    return c.json(error.body(), error.status);
  });
  app.onError((thrown, c) => {
    const error = toApiError(thrown);
    const context = c.get('context');
    // A run that failed stops its own request; that is no client that left.
    const hasFailed = context.run?.outcome === 'failed';
    context.isGivenUp = context.stop.signal.aborted && !hasFailed;
    if (!context.isGivenUp && error !== thrown) {
      services.logger.error({ requestId: context.id, err: thrown });
    }
    return c.json(error.body(), error.status, error.headers);
  });
  return app;
}

async function answerMetrics(c: Context<AppEnv>, services: WorkerServices): Promise<Response> {
  return c.body(await services.metrics.text(), 200, {
    'content-type': 'text/plain; version=0.0.4; charset=utf-8',
  });
}
