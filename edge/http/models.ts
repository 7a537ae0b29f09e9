/** The models that can be asked for, in each dialect. */
import type { ModelRoutes } from '../dialects/dialect.ts';
import { authorize } from '../inference/authenticate.ts';
import { modelNotFoundError } from '../inference/refusal.ts';
import type { AppContext } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';

export const listModels = (services: Services, routes: ModelRoutes) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  const models = await services.directory.models();
  return c.json(routes.list.toAnswer(models, c.req.queries()));
};

export const getModel = (services: Services, routes: ModelRoutes) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  // The rest of the path: ids may hold slashes, which clients encode or not.
  const id = c.req.param('id') ?? '';
  const models = await services.directory.models();
  const model = models.find((each) => each.id === id);
  if (!model) throw modelNotFoundError(id, models);
  return c.json(routes.one.toAnswer(model));
};
