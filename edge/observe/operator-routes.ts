/** Routes by which programs watch over an edge: its metrics, and whether it can serve. */
import { bearerToken } from '../middleware/bearer-token.ts';
import { ApiError } from '../errors.ts';
import type { App } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';
import { readinessOf } from './readiness.ts';

/** `/ready` is open, because load balancers show no token; `/metrics` is the operator's. */
export function mountOperatorRoutes(app: App, services: Services): void {
  const readiness = readinessOf(services);
  app.get('/ready', async (c) => {
    const found = await readiness();
    return c.json(found, found.status === 'ready' ? 200 : 503);
  });
  const { metrics } = services;
  app.get('/metrics', bearerToken(services.settings.adminToken), async (c) => {
    if (metrics === null) {
      const message =
        'This edge runs on many machines and counts on none of them; its requests are in the ' +
        'access log and, where they are sent, in traces (docs/operate.md).';
      throw new ApiError('unknown_url', message);
    }
    return c.text(await metrics(), 200, { 'content-type': metricsType });
  });
}

const metricsType = 'text/plain; version=0.0.4; charset=utf-8';
