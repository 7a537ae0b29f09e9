/** Which route is answered by what. */
import { dialects } from '../dialects/dialects.ts';
import { ApiError } from '../errors.ts';
import { answerTokenCount } from '../inference/count-tokens.ts';
import { answerInference } from '../inference/inference.ts';
import type { App, AppContext } from '../middleware/app-env.ts';
import { crossOrigin } from '../middleware/cross-origin.ts';
import { createReference } from '../reference/reference.ts';
import type { Services } from '../services.ts';
import { balance } from './balance.ts';
import { getModel, listModels } from './models.ts';
import { quote } from './quote.ts';
import { usage } from './usage.ts';

type Handlers = Record<string, (c: AppContext) => Promise<Response>>;

export function mountPublicApi(app: App, services: Services): void {
  const reference = createReference();
  const posts: Handlers = { '/v1/quote': quote(services) };
  const gets: Handlers = {
    '/user/balance': balance(services),
    '/v1/usage': usage(services),
    // For whatever watches over the process; it says nothing of the workers.
    '/health': async (c) => {
      const warnings = services.warnings();
      return c.json({ status: 'ok', ...(warnings.length > 0 && { warnings }) });
    },
    '/openapi.json': reference.json,
    '/docs': reference.page,
  };
  for (const { inferences, tokenCounts, models } of dialects) {
    for (const route of inferences) {
      for (const path of [route.path, ...route.aliases]) {
        posts[path] = (c) => answerInference(c, services, route);
      }
    }
    for (const route of tokenCounts) {
      posts[route.path] = (c) => answerTokenCount(c, services, route);
    }
    for (const path of [models.list.path, ...models.list.aliases]) {
      gets[path] = listModels(services, models);
      gets[`${path}/:id{.+}`] = getModel(services, models);
    }
  }
  for (const path of [...Object.keys(posts), ...Object.keys(gets)]) app.use(path, crossOrigin);
  for (const [path, handler] of Object.entries(posts)) {
    app.post(path, handler);
    app.all(path, refuseMethod('POST'));
  }
  for (const [path, handler] of Object.entries(gets)) {
    app.get(path, handler);
    app.all(path, refuseMethod('GET'));
  }
}

function refuseMethod(allow: 'GET' | 'POST') {
  return (c: AppContext): never => {
    throw new ApiError('method_not_allowed', `${c.req.path} takes ${allow} requests.`, {
      headers: { allow },
    });
  };
}
