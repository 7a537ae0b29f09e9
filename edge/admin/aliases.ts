/** Routes for aliases: other names of models, each with the models that a request may run on. */
import { z } from 'zod';
import type { ModelAlias } from '../directory/directory-contract.ts';
import { ApiError } from '../errors.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { namesOf } from '../inference/model-names.ts';
import { nearestAdvice } from '../nearest.ts';
import type { Services } from '../services.ts';
import { jsonEndpoint } from './operator-endpoint.ts';

/** A name stands in a header of the answer. */
const nameSchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,256}$/, 'expected up to 256 printable ASCII characters without spaces');
const chainMax = 8;
const aliasesMax = 1_000;

export const aliasSchema = z.object({
  name: z.string(),
  models: z.array(z.string()).describe('a request runs on the first that can take it'),
  created_at_ms: z.int(),
});
const examples = [{ name: 'gpt-4o-mini', models: ['sift-tiny'] }];

export function wireAlias({ name, models, createdAtMs }: ModelAlias): z.infer<typeof aliasSchema> {
  return { name, models: [...models], created_at_ms: createdAtMs };
}

/** @throws ApiError 409 for a new model under a name that stands for others. */
export async function refuseAliasName({ directory }: Services, id: string): Promise<void> {
  const alias = (await directory.aliases()).find(({ name }) => name === id);
  if (alias === undefined || alias.models[0] === id) return;
  throw new ApiError('conflict', `${id} is an alias of ${alias.models.join(', ')}.`, {
    param: 'id',
  });
}

export const aliasEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'post',
      path: '/aliases',
      summary: 'Give models another name, or change which they are',
      body: z
        .strictObject({
          name: nameSchema,
          models: z
            .array(z.string().min(1).max(256))
            .min(1)
            .max(chainMax)
            .refine((ids) => new Set(ids).size === ids.length, 'expected each model once'),
        })
        .meta({ examples }),
      answer: aliasSchema.meta({
        examples: examples.map((each) => ({ ...each, created_at_ms: 1_800_000_000_000 })),
      }),
    },
    async ({ services, body }) => {
      await checkChain(services, body);
      const { directory, clock } = services;
      const known = await directory.aliases();
      const before = known.find(({ name }) => name === body.name);
      if (before === undefined && known.length >= aliasesMax) {
        throw new ApiError('conflict', `There are ${aliasesMax} aliases already.`);
      }
      const alias = { ...body, createdAtMs: before?.createdAtMs ?? clock.nowMs() };
      await directory.putAlias(alias);
      return wireAlias(alias);
    },
  ),
  jsonEndpoint(
    {
      method: 'delete',
      path: '/aliases/{name}',
      summary: 'Forget an alias',
      params: z.strictObject({ name: nameSchema }),
      answer: z
        .object({ name: z.string(), deleted: z.literal(true) })
        .meta({ examples: [{ name: 'gpt-4o-mini', deleted: true }] }),
    },
    async ({ services, params: { name } }) => {
      const names = (await services.directory.aliases()).map((alias) => alias.name);
      if (await services.directory.removeAlias(name)) return { name, deleted: true as const };
      throw new ApiError('not_found', `There is no alias ${name}.${nearestAdvice(name, names)}`);
    },
  ),
];

/** @throws ApiError 404 for a model that is not listed, 422 for one that would be hidden. */
async function checkChain(
  services: Services,
  { name, models }: Pick<ModelAlias, 'name' | 'models'>,
): Promise<void> {
  const listed = await refuseUnlisted(services, models);
  if (!listed.includes(name) || models[0] === name) return;
  throw new ApiError(
    'invalid_value',
    `${name} is a model; name it first, and after it those that stand in for it.`,
    { param: 'models[0]' },
  );
}

/**
 * Returns the ids of all models.
 * @throws ApiError 404 for the first of the parameter `models` that is none.
 */
export async function refuseUnlisted(
  { directory }: Services,
  models: readonly string[],
): Promise<readonly string[]> {
  const listed = namesOf(await directory.models(), []);
  const index = models.findIndex((id) => !listed.includes(id));
  const unknown = models[index];
  if (unknown !== undefined) throw noSuchModel(unknown, listed, `models[${index}]`);
  return listed;
}

/** Somebody who sets terms named a model that is not listed. */
export function noSuchModel(asked: string, listed: readonly string[], param: string): ApiError {
  const message = `There is no model ${asked}.${nearestAdvice(asked, listed)}`;
  return new ApiError('not_found', message, { param });
}
