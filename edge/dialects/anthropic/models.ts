/** The models that can be asked for, as Anthropic's clients read them: newest first, in pages. */
import { z } from '@hono/zod-openapi';
import type { ModelRecord } from '../../directory/directory-contract.ts';
import { ApiError } from '../../errors.ts';
import { parseRequest } from '../../middleware/parse-request.ts';
import type { ModelRoutes } from '../dialect.ts';
import { modelListSchema, modelSchema } from './response-schemas.ts';
import { unsupported } from './unsupported.ts';

const pageDefault = 20;
const pageMax = 1_000;

const lifecycles = ['active', 'deprecated', 'retired'] as const;

const modelPageSchema = z.looseObject({
  limit: z.coerce.number().int().min(1).max(pageMax).default(pageDefault),
  after_id: z.string().optional(),
  before_id: z.string().optional(),
});

type Query = Readonly<Record<string, readonly string[]>>;

export const models: ModelRoutes = {
  list: {
    path: '/anthropic/v1/models',
    aliases: [],
    summary: "Models, in Anthropic's protocol",
    description: 'All models that the key can ask for, the newest first, in pages.',
    querySchema: modelPageSchema,
    answerSchema: modelListSchema,
    toAnswer: toPage,
  },
  one: {
    summary: "One model, in Anthropic's protocol",
    description: 'One model by its id.',
    answerSchema: modelSchema,
    toAnswer: toWire,
  },
};

/** @throws ApiError naming the parameter at fault. */
function toPage(all: readonly ModelRecord[], query: Query): z.infer<typeof modelListSchema> {
  const first = Object.fromEntries(Object.entries(query).map(([name, [value]]) => [name, value]));
  const { limit, after_id, before_id } = parseRequest(modelPageSchema, first, unsupported);
  const sorted = isAsked(query, 'active') ? newestFirst(all) : [];
  const start = after_id === undefined ? 0 : indexOf(sorted, after_id, 'after_id') + 1;
  const end = before_id === undefined ? sorted.length : indexOf(sorted, before_id, 'before_id');
  const between = sorted.slice(start, end);
  // Before an id the page ends there; otherwise it begins where the last one ended.
  const page = before_id === undefined ? between.slice(0, limit) : between.slice(-limit);
  return {
    data: page.map(toWire),
    has_more: page.length < between.length,
    first_id: page[0]?.id ?? null,
    last_id: page.at(-1)?.id ?? null,
  };
}

/**
 * Tells if active models are asked for: every model here is one.
 * @throws ApiError 422
 */
function isAsked(query: Query, lifecycle: (typeof lifecycles)[number]): boolean {
  const asked = [...(query['lifecycle'] ?? []), ...(query['lifecycle[]'] ?? [])];
  const schema = z.looseObject({ lifecycle: z.array(z.enum(lifecycles)) });
  const { lifecycle: parsed } = parseRequest(schema, { lifecycle: asked }, unsupported);
  return parsed.length === 0 || parsed.includes(lifecycle);
}

function newestFirst(all: readonly ModelRecord[]): ModelRecord[] {
  return all.toSorted((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1));
}

/**
 * Finds the place of an id in the list.
 * @throws ApiError 422
 */
function indexOf(all: readonly ModelRecord[], id: string, param: string): number {
  const index = all.findIndex((each) => each.id === id);
  if (index !== -1) return index;
  throw new ApiError('invalid_value', `Invalid '${param}': there is no model '${id}'.`, { param });
}

function toWire(model: ModelRecord): z.infer<typeof modelSchema> {
  return {
    type: 'model',
    id: model.id,
    display_name: model.id,
    created_at: new Date(model.createdAtMs).toISOString(),
    max_input_tokens: model.contextLength,
    max_tokens: model.contextLength,
    // Only the workers know these: a model's chat format decides on thinking and tools.
    capabilities: null,
    lifecycle: 'active',
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}
