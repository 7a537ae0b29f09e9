/** The routes of responses that were stored: the response, its own input, and its deletion. */
import { z } from 'zod';
import { responseExamples } from '../dialects/responses/examples.ts';
import { responseSchema } from '../dialects/responses/response-schemas.ts';
import { ApiError } from '../errors.ts';
import { refusalError } from '../inference/refusal.ts';
import type { AppContext } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';
import type { VerifiedKey } from '../tenant/key-contract.ts';
import type { StoredResponse } from '../tenant/stored-response-contract.ts';
import type { Endpoint } from './endpoint.ts';
import { keyEndpoint } from './key-endpoint.ts';

const params = z.object({ id: z.string() });
const path = '/v1/responses/{id}';
const aliases = ['/responses/{id}'];
const kept = 'Responses that are stored (store: true) are kept for 30 days after their last use.';

const itemSchema = z.looseObject({ id: z.string(), type: z.string() });

const inputItems = keyEndpoint(
  {
    method: 'get',
    path: `${path}/input_items`,
    aliases: aliases.map((alias) => `${alias}/input_items`),
    summary: 'Input of a stored response',
    description: `The items of its own request; those before it are of the responses before. ${kept}`,
    scope: 'inference',
    params,
    query: z.strictObject({
      limit: z.coerce.number().int().min(1).max(100).default(20),
      order: z.enum(['asc', 'desc']).default('desc'),
      after: z.string().optional().describe('the id of the last item of the page before'),
    }),
    answer: z
      .object({
        object: z.literal('list'),
        data: z.array(itemSchema),
        first_id: z.string().nullable(),
        last_id: z.string().nullable(),
        has_more: z.boolean(),
      })
      .meta({
        examples: [
          {
            object: 'list',
            data: [{ type: 'message', role: 'user', content: 'Who are you?', id: 'in_5f0c_0' }],
            first_id: 'in_5f0c_0',
            last_id: 'in_5f0c_0',
            has_more: false,
          },
        ],
      }),
  },
  async ({ c, services, key, query }) => {
    const id = idOf(c);
    const { input } = await find(services, key, id);
    const all = withIds(id, input);
    const ordered = query.order === 'asc' ? all : all.toReversed();
    const begin =
      query.after === undefined ? 0 : ordered.findIndex((i) => i.id === query.after) + 1;
    if (query.after !== undefined && begin === 0) {
      throw new ApiError('not_found', `The response has no input item '${query.after}'.`, {
        param: 'after',
      });
    }
    const data = ordered.slice(begin, begin + query.limit);
    return {
      object: 'list' as const,
      data,
      first_id: data[0]?.id ?? null,
      last_id: data.at(-1)?.id ?? null,
      has_more: begin + data.length < ordered.length,
    };
  },
);

const one = keyEndpoint(
  {
    method: 'get',
    path,
    aliases,
    summary: 'A stored response',
    description: kept,
    scope: 'inference',
    params,
    query: z.strictObject({}),
    answer: responseSchema.meta({ examples: responseExamples }),
  },
  async ({ c, services, key }) => {
    const { response } = await find(services, key, idOf(c));
    // It was written as the JSON of a response.
    return JSON.parse(response) as z.infer<typeof responseSchema>;
  },
);

const remove = keyEndpoint(
  {
    method: 'delete',
    path,
    aliases,
    summary: 'Delete a stored response',
    description: 'It is gone with its input. What goes on from it can be continued no longer.',
    scope: 'inference',
    params,
    answer: z
      .object({
        id: z.string(),
        object: z.literal('response'),
        deleted: z.literal(true),
      })
      .meta({ examples: [{ id: 'resp_5f0c', object: 'response', deleted: true }] }),
  },
  async ({ c, services, key }) => {
    const id = idOf(c);
    const done = await services.tenant(key.tenant).deleteStoredResponse(key, id);
    if (done.kind === 'refused') throw refusalError(done.refusal);
    if (done.kind === 'missing') throw notStored(id);
    return { id, object: 'response' as const, deleted: true as const };
  },
);

/** A parameter is the rest of the path, so that the longer path stands first. */
export const storedResponses: readonly Endpoint[] = [inputItems, one, remove];

function idOf(c: AppContext): string {
  return c.req.param('id') ?? '';
}

async function find(services: Services, key: VerifiedKey, id: string): Promise<StoredResponse> {
  const found = await services.tenant(key.tenant).storedResponse(key, id);
  if (found.kind === 'refused') throw refusalError(found.refusal);
  if (found.kind === 'missing') throw notStored(id);
  return found.stored;
}

function notStored(id: string): ApiError {
  return new ApiError('not_found', `The response '${id}' is not stored. ${kept}`, { param: 'id' });
}

/** Items that came without an id get one by their place. */
function withIds(responseId: string, input: string): z.infer<typeof itemSchema>[] {
  // It was written as the JSON of a list of items.
  const items = JSON.parse(input) as { readonly type: string; readonly id?: string | null }[];
  const requestId = responseId.replace(/^resp_/, '');
  return items.map((item, index) => ({ ...item, id: item.id ?? `in_${requestId}_${index}` }));
}
