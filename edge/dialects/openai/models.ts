/** The models that can be asked for, as OpenAI's clients read them. */
import type { z } from '@hono/zod-openapi';
import type { ModelRecord } from '../../directory/directory-contract.ts';
import type { ModelRoutes } from '../dialect.ts';
import { modelListSchema, modelSchema } from './response-schemas.ts';

export const models: ModelRoutes = {
  list: {
    path: '/v1/models',
    aliases: ['/models'],
    summary: 'Models',
    description: 'All models that the key can ask for.',
    querySchema: null,
    answerSchema: modelListSchema,
    toAnswer: (all): z.infer<typeof modelListSchema> => ({ object: 'list', data: all.map(toWire) }),
  },
  one: {
    summary: 'One model',
    description: 'One model by its id.',
    answerSchema: modelSchema,
    toAnswer: toWire,
  },
};

function toWire(model: ModelRecord): z.infer<typeof modelSchema> {
  return {
    id: model.id,
    object: 'model',
    created: Math.floor(model.createdAtMs / 1000),
    owned_by: model.ownedBy,
    context_length: model.contextLength,
  };
}
