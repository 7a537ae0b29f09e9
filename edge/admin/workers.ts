/** The fleet as the operator sees it. */
import { z } from 'zod';
import { ApiError } from '../errors.ts';
import { unsoldModels } from '../directory/unsold-models.ts';
import { refusedWorkerExample, workerExample } from './examples.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { refusedWorkerSchema, wireRefusedWorker, wireWorker, workerSchema } from './wire.ts';

const slotsMax = 999_999;
const workerParams = z.strictObject({ worker: z.string().max(128) });
const bearerSchema = z.string().regex(/^[\x21-\x7e]{1,4096}$/, 'expected ASCII without spaces');

const engine = { id: 'vllm-1', url: 'http://vllm.example:8000' };

export const workerEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path: '/workers',
      summary:
        'All workers: their state, what is in flight and which of their models nobody can use; ' +
        'and whose heartbeats were refused',
      answer: z
        .object({ workers: z.array(workerSchema), refused: z.array(refusedWorkerSchema) })
        .meta({ examples: [{ workers: [workerExample], refused: [refusedWorkerExample] }] }),
    },
    async ({ services }) => {
      const workers = await services.fleet.status();
      const unsold = await unsoldModels(
        workers.flatMap(({ served }) => served),
        services,
      );
      const refused = await services.fleet.refusals();
      return {
        workers: workers.map((worker) => wireWorker(worker, unsold)),
        refused: refused.map(wireRefusedWorker),
      };
    },
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/workers/{worker}/drain',
      summary: 'Send a worker nothing new, or send it requests again',
      params: workerParams,
      body: z.strictObject({ draining: z.boolean() }).meta({ examples: [{ draining: true }] }),
      answer: z
        .object({ worker: z.string(), draining: z.boolean() })
        .meta({ examples: [{ worker: workerExample.id, draining: true }] }),
    },
    async ({ services, params, body }) => {
      const known = await services.fleet.drain(params.worker, body.draining);
      if (!known) throw new ApiError('not_found', `There is no worker ${params.worker}.`);
      return { worker: params.worker, draining: body.draining };
    },
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/workers',
      summary: 'Add an engine that does not announce itself (vLLM, SGLang), or change it',
      body: z
        .strictObject({
          id: z.string().regex(/^[A-Za-z0-9._-]{1,128}$/),
          url: z.url({ protocol: /^https?$/ }).max(2_000),
          token: bearerSchema
            .nullable()
            .optional()
            .describe(
              'shown to it as a bearer token; null shows none, left out shows WORKER_TOKEN',
            ),
          slots: z
            .int()
            .min(1)
            .max(slotsMax)
            .optional()
            .describe(
              'answers that it is given at a time; left out: as many as it takes, up to 128',
            ),
        })
        .meta({ examples: [{ ...engine, slots: 64 }] }),
      answer: z
        .object({
          id: z.string(),
          url: z.string(),
          own_token: z.boolean(),
          slots: z.int().nullable(),
        })
        .meta({ examples: [{ ...engine, own_token: false, slots: 64 }] }),
      status: 201,
    },
    async ({ services, body }) => {
      const { id, token, slots } = body;
      const url = body.url.replace(/\/+$/, '');
      const ownToken = token === undefined ? null : { bearer: token };
      const { accepted, reason } = await services.fleet.addStatic({
        id,
        url,
        ownToken,
        ...(slots !== undefined && { slots }),
      });
      if (!accepted) throw new ApiError('conflict', `It cannot be added: ${reason}.`);
      return { id, url, own_token: ownToken !== null, slots: slots ?? null };
    },
  ),
  jsonEndpoint(
    {
      method: 'delete',
      path: '/workers/{worker}',
      summary: 'Remove an engine that was added so; its answers under way go on',
      params: workerParams,
      answer: z
        .object({ worker: z.string(), removed: z.literal(true) })
        .meta({ examples: [{ worker: engine.id, removed: true }] }),
    },
    async ({ services, params }) => {
      const removed = await services.fleet.removeStatic(params.worker);
      if (!removed) {
        throw new ApiError('not_found', `No worker ${params.worker} was added here.`);
      }
      return { worker: params.worker, removed: true as const };
    },
  ),
];
