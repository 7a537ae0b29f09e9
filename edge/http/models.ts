/** GET /v1/models and /v1/models/{id}, in OpenAI's shape. */
import type { ModelRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { authorize } from '../inference/authenticate.ts';
import { modelNotFoundError } from '../inference/refusal.ts';

export const listModels = (services: Services) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  const models = await services.directory.models();
  return c.json({ object: 'list', data: models.map(toWire) });
};

export const getModel = (services: Services) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  // The rest of the path: ids may hold slashes, which clients encode or not.
  const id = c.req.param('id') ?? '';
  const models = await services.directory.models();
  const model = models.find((each) => each.id === id);
  if (!model) throw modelNotFoundError(id, models);
  return c.json(toWire(model));
};

function toWire(model: ModelRecord) {
  return {
    id: model.id,
    object: 'model',
    created: Math.floor(model.createdAtMs / 1000),
    owned_by: model.ownedBy,
    context_length: model.contextLength,
  };
}
