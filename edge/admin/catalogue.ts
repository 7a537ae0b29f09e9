/** Routes for what is sold: models and their prices. */
import { z } from 'zod';
import { contend } from '../directory/directory.ts';
import { ApiError } from '../errors.ts';
import type { PriceRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import { unsoldModels } from '../directory/unsold-models.ts';
import { namesOf } from '../inference/model-names.ts';
import { aliasSchema, noSuchModel, refuseAliasName, wireAlias } from './aliases.ts';
import {
  currentPriceExample,
  modelExample,
  newModelExample,
  newPriceExample,
  priceExample,
  unsoldExample,
} from './examples.ts';
import { plainText } from './plain-text.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import {
  currentPriceSchema,
  modelSchema,
  priceSchema,
  unsoldSchema,
  wireCurrentPrice,
  wireModel,
  wirePrice,
} from './wire.ts';

const modelId = plainText(256).min(1);
const word = plainText(128).min(1);
/** The highest price is 1,000 USD per million tokens. */
const priceMax = 1_000_000_000_000;
const amount = z.int().min(0).max(priceMax).describe('nano-USD per 1,000,000 tokens');

const listedSchema = modelSchema.extend({
  price: currentPriceSchema.nullable().describe('in force now; without one nobody can use it'),
  workers: z.int().describe('those that are ready and serve it'),
});

async function listModels(services: Services) {
  const { directory, clock, fleet } = services;
  const [models, workers] = await Promise.all([directory.models(), fleet.status()]);
  const ready = workers.filter(({ state }) => state === 'ready');
  const listed = models.map(async (model): Promise<z.infer<typeof listedSchema>> => {
    const price = await directory.priceAt(model.id, clock.nowMs());
    return {
      ...wireModel(model, await services.servedContexts(model.id)),
      price: price && wireCurrentPrice(price),
      workers: ready.filter((worker) => worker.models.includes(model.id)).length,
    };
  });
  const served = workers.flatMap((worker) => worker.served);
  const aliases = (await directory.aliases()).map(wireAlias);
  return {
    models: await Promise.all(listed),
    ...(aliases.length > 0 && { aliases }),
    unsold: await unsoldModels(served, services),
  };
}

export const catalogueEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path: '/models',
      summary: 'All models, and those that workers serve and nobody can use',
      answer: z
        .object({
          models: z.array(listedSchema),
          aliases: z.array(aliasSchema).optional().describe('left out where there are none'),
          unsold: z.array(unsoldSchema),
        })
        .meta({
          examples: [
            {
              models: [{ ...modelExample, price: currentPriceExample, workers: 1 }],
              unsold: [unsoldExample],
            },
          ],
        }),
    },
    async ({ services }) => listModels(services),
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/models',
      summary: 'Add a model, or change one; a new revision or tokenizer makes its prefixes new',
      body: z
        .strictObject({
          id: modelId,
          context_length: z.int().min(1).max(100_000_000),
          revision: word,
          tokenizer: word,
          owned_by: word.optional(),
        })
        .meta({ examples: [newModelExample] }),
      answer: modelSchema.meta({ examples: [modelExample] }),
    },
    async ({ services, body }) => {
      const before = (await services.directory.models()).find(({ id }) => id === body.id);
      await refuseAliasName(services, body.id);
      const model = {
        id: body.id,
        contextLength: body.context_length,
        revision: body.revision,
        tokenizer: body.tokenizer,
        ownedBy: body.owned_by ?? before?.ownedBy ?? 'operator',
        createdAtMs: before?.createdAtMs ?? services.clock.nowMs(),
      };
      await services.directory.putModel(model);
      return wireModel(model, await services.servedContexts(model.id));
    },
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/prices',
      summary: 'All prices, or those of one model, past and future ones too',
      query: z.strictObject({ model: modelId.optional() }),
      answer: z
        .object({ prices: z.array(priceSchema) })
        .meta({ examples: [{ prices: [priceExample] }] }),
    },
    async ({ services, query }) => ({
      prices: (await services.directory.prices(query.model ?? null)).map(wirePrice),
    }),
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/prices',
      summary: 'Add a price from a time on, for all day or for a daily window (UTC)',
      body: z
        .strictObject({
          id: z
            .string()
            .regex(/^[A-Za-z0-9._-]{1,64}$/)
            .optional(),
          model: modelId,
          input_cached: amount,
          input: amount,
          output: amount,
          from_ms: z.int().min(0).optional().describe('Unix milliseconds; now if left out'),
          window: z
            .strictObject({
              start_minute: z.int().min(0).max(1_439),
              end_minute: z.int().min(0).max(1_440),
            })
            .refine(
              (each) => each.start_minute !== each.end_minute,
              'expected a window of some length',
            )
            .optional()
            .describe('minutes of the UTC day; may pass midnight'),
        })
        .meta({ examples: [newPriceExample] }),
      answer: priceSchema.meta({ examples: [priceExample] }),
      status: 201,
    },
    async ({ services, body }) => {
      const { directory, clock, random } = services;
      const models = await directory.models();
      if (!models.some((model) => model.id === body.model)) {
        throw noSuchModel(body.model, namesOf(models, []), 'model');
      }
      const nowMs = clock.nowMs();
      // A price that began in the past would not be the one that its requests were held at.
      if (body.from_ms !== undefined && body.from_ms < nowMs - pastMsMax) {
        throw new ApiError('invalid_value', 'A price cannot begin in the past.', {
          param: 'from_ms',
        });
      }
      const price: PriceRecord = {
        id: body.id ?? `price-${Buffer.from(random.bytes(8)).toString('hex')}`,
        model: body.model,
        inputCached: body.input_cached,
        inputUncached: body.input,
        output: body.output,
        fromMs: body.from_ms ?? nowMs,
        window: body.window
          ? { startMinute: body.window.start_minute, endMinute: body.window.end_minute }
          : null,
      };
      const known = await directory.prices(null);
      if (known.some(({ id }) => id === price.id)) {
        throw new ApiError('conflict', `There is a price ${price.id} already.`, { param: 'id' });
      }
      // The later of two prices that overlap is in force; of two that begin together neither
      // would be.
      const rival = known.find(
        (each) =>
          each.model === price.model &&
          each.fromMs === price.fromMs &&
          contend(each.window, price.window),
      );
      if (rival !== undefined) {
        throw new ApiError('conflict', `${rival.id} begins at that moment; name a later one.`, {
          param: 'from_ms',
        });
      }
      await directory.addPrice(price);
      return wirePrice(price);
    },
  ),
];

/** A price may begin this long ago: clocks differ, and the operator's request takes its time. */
const pastMsMax = 60_000;
