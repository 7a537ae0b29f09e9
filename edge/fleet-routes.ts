/** `POST /internal/workers/heartbeat`: how workers announce themselves, with the worker token. */
import { Hono } from 'hono';
import type { AppEnv } from './middleware/app-env.ts';
import { ApiError } from './errors.ts';
import { readJson } from './bodies/read-body.ts';
import type { Services } from './services.ts';
import { bearerToken } from './middleware/bearer-token.ts';

/** Some kilobytes per model; a worker serves a few. */
const limits = { owner: '/internal/workers', bytesMax: 256 * 1024 };

/** The routes are to be mounted at /internal/workers. */
export function workerRoutes(services: Services): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.use(bearerToken(services.settings.workerToken));
  app.post('/heartbeat', async (c) => {
    const { json, release } = await readJson(c, services, limits);
    release();
    const answer = await services.fleet.heartbeat(json);
    if (!answer.accepted) {
      services.log('warn', 'heartbeat-refused', { reason: answer.reason });
      throw new ApiError('conflict', `The heartbeat is refused: ${answer.reason}.`);
    }
    return c.json({ accepted: true });
  });
  return app;
}
