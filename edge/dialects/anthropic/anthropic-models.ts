/** GET /anthropic/v1/models and /anthropic/v1/models/{id}, in Anthropic's shape: newest first, in pages. */
import { z } from '@hono/zod-openapi';
import type { ModelRecord } from '../../directory/directory-contract.ts';
import type { Services } from '../../services.ts';
import { ApiError } from '../../errors.ts';
import type { AppContext } from '../../middleware/app-env.ts';
import { authorize } from '../../inference/authenticate.ts';
import { parseRequest } from '../../middleware/parse-request.ts';
import { modelNotFoundError } from '../../inference/refusal.ts';

const pageDefault = 20;
const pageMax = 1_000;

const lifecycles = ['active', 'deprecated', 'retired'] as const;

export const modelPageSchema = z.looseObject({
  limit: z.coerce.number().int().min(1).max(pageMax).default(pageDefault),
  after_id: z.string().optional(),
  before_id: z.string().optional(),
});

export const listAnthropicModels = (services: Services) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  const { limit, after_id, before_id } = parseRequest(modelPageSchema, c.req.query(), 'anthropic');
  const models = isAsked(c, 'active') ? newestFirst(await services.directory.models()) : [];
  const start = after_id === undefined ? 0 : placeOf(models, after_id, 'after_id') + 1;
  const end = before_id === undefined ? models.length : placeOf(models, before_id, 'before_id');
  const between = models.slice(start, end);
  // Before an id the page ends there; otherwise it begins where the last one ended.
  const page = before_id === undefined ? between.slice(0, limit) : between.slice(-limit);
  return c.json({
    data: page.map(toWire),
    has_more: page.length < between.length,
    first_id: page[0]?.id ?? null,
    last_id: page.at(-1)?.id ?? null,
  });
};

export const getAnthropicModel = (services: Services) => async (c: AppContext) => {
  await authorize(c, services, 'inference');
  // The rest of the path: ids may hold slashes, which clients encode or not.
  const id = c.req.param('id') ?? '';
  const models = await services.directory.models();
  const model = models.find((each) => each.id === id);
  if (!model) throw modelNotFoundError(id, models);
  return c.json(toWire(model));
};

/** Every model here is active; a list of others alone is empty. @throws ApiError 422 */
function isAsked(c: AppContext, lifecycle: (typeof lifecycles)[number]): boolean {
  const asked = [...(c.req.queries('lifecycle') ?? []), ...(c.req.queries('lifecycle[]') ?? [])];
  const schema = z.looseObject({ lifecycle: z.array(z.enum(lifecycles)) });
  const { lifecycle: parsed } = parseRequest(schema, { lifecycle: asked }, 'anthropic');
  return parsed.length === 0 || parsed.includes(lifecycle);
}

function newestFirst(models: readonly ModelRecord[]): ModelRecord[] {
  return models.toSorted((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1));
}

/** @throws ApiError 422 */
function placeOf(models: readonly ModelRecord[], id: string, param: string): number {
  const place = models.findIndex((each) => each.id === id);
  if (place !== -1) return place;
  throw new ApiError('invalid_value', `Invalid '${param}': there is no model '${id}'.`, { param });
}

function toWire(model: ModelRecord) {
  return {
    type: 'model' as const,
    id: model.id,
    display_name: model.id,
    created_at: new Date(model.createdAtMs).toISOString(),
    max_input_tokens: model.contextLength,
    max_tokens: model.contextLength,
    // They are the workers' to know: a model's chat format decides on thinking and tools.
    capabilities: null,
    lifecycle: 'active' as const,
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}
