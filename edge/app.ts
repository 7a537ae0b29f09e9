/**
 * The public API as one Hono app, the same in both runtimes. A runtime builds the services and
 * mounts what else it answers (the operator's API, heartbeats, webhooks) beside it, under the same
 * errors.
 */
import { Hono } from 'hono';
import type { App, AppEnv } from './middleware/app-env.ts';
import { requestIds, stateRequestId } from './middleware/request-id.ts';
import { answerError, answerUnknownUrl } from './middleware/answer-error.ts';
import { observeRequests } from './middleware/observe-requests.ts';
import { oneHost } from './middleware/one-host.ts';
import { mountPublicApi, publicPaths } from './http/public-api.ts';
import type { Services } from './services.ts';

/** Adds routes to the app; called before the app answers unknown URLs. */
export type Mount = (app: App, services: Services) => void;

export function createApp(services: Services, mounts: readonly Mount[] = []): App {
  const app = new Hono<AppEnv>({ strict: false });
  app.use(requestIds(services));
  app.use(observeRequests(services));
  app.use(stateRequestId);
  app.use(oneHost);
  app.onError(answerError(services));
  app.notFound(answerUnknownUrl(publicPaths));
  mountPublicApi(app, services);
  for (const mount of mounts) mount(app, services);
  return app;
}
