/**
 * The routes of a dialect: those that run the model, those that count, and those that list models.
 */
import { strict as assert } from 'node:assert';
import { z } from 'zod';
import type { Dialect, InferenceRoute, ModelRoutes, TokenCountRoute } from '../dialects/dialect.ts';
import { authorize } from '../inference/authenticate.ts';
import { answerTokenCount } from '../inference/count-tokens.ts';
import { budgetHeader, budgetModeHeader } from '../inference/budgets-asked.ts';
import { answerInference } from '../inference/inference.ts';
import { listedModel, listedModels } from '../inference/allowed-models.ts';
import type { Endpoint } from './endpoint.ts';
import { answerExamples, modelExample, promptTokensExample } from './inference-examples.ts';

export function dialectEndpoints({ inferences, tokenCounts, models }: Dialect): Endpoint[] {
  return [
    ...inferences.map(inferenceEndpoint),
    ...tokenCounts.map(tokenCountEndpoint),
    ...(models ? modelEndpoints(models) : []),
  ];
}

const plain = { params: null, query: null, headers: null, body: null, status: 200 } as const;

const inferenceHeaders = z.object({
  'idempotency-key': z
    .string()
    .max(255)
    .optional()
    .describe('The answer outlives its client; the same request again gets it, and is not billed.'),
  'last-event-id': z
    .string()
    .regex(/^\d{1,9}$/)
    .optional()
    .describe('With an Idempotency-Key and a stream: its events after the one with this id.'),
  [budgetHeader]: z
    .string()
    .optional()
    .describe('names of budgets that it counts in, such as `session-1, agent-7`'),
  [budgetModeHeader]: z
    .enum(['refuse', 'trim'])
    .optional()
    .describe('trim: the answer may be cut to what budgets and balance cover'),
});

function inferenceEndpoint(route: InferenceRoute): Endpoint {
  const { path, aliases, summary, description } = route;
  const { whole, events } = answerExamples(route);
  return {
    ...plain,
    method: 'post',
    path,
    aliases,
    summary,
    description,
    headers: inferenceHeaders,
    body: route.requestSchema.meta({ examples: route.requestExamples }),
    content: {
      'application/json': route.answerSchema.meta({ examples: [whole] }),
      'text/event-stream': z
        .string()
        .describe('With `stream`: its events.')
        .meta({ examples: [events] }),
    },
    run: (services, c) => answerInference(c, services, route),
  };
}

function tokenCountEndpoint(route: TokenCountRoute): Endpoint {
  const { path, aliases, summary, description } = route;
  return {
    ...plain,
    method: 'post',
    path,
    aliases,
    summary,
    description,
    body: route.requestSchema.meta({ examples: route.requestExamples }),
    content: {
      'application/json': route.answerSchema.meta({
        examples: [route.toAnswer(promptTokensExample)],
      }),
    },
    run: (services, c) => answerTokenCount(c, services, route),
  };
}

function modelEndpoints({ list, one }: ModelRoutes): Endpoint[] {
  const { path, aliases } = list;
  return [
    {
      ...plain,
      method: 'get',
      path,
      aliases,
      summary: list.summary,
      description: list.description,
      query: list.querySchema,
      content: {
        'application/json': list.answerSchema.meta({
          examples: [list.toAnswer([modelExample], {})],
        }),
      },
      async run(services, c) {
        const key = await authorize(c, services, 'inference');
        const models = await listedModels(services, key);
        return c.json(list.toAnswer(models, c.req.queries()));
      },
    },
    {
      ...plain,
      method: 'get',
      path: `${path}/{id}`,
      aliases: aliases.map((alias) => `${alias}/{id}`),
      summary: one.summary,
      description: one.description,
      params: z.object({ id: z.string() }),
      content: {
        'application/json': one.answerSchema.meta({ examples: [one.toAnswer(modelExample)] }),
      },
      async run(services, c) {
        const key = await authorize(c, services, 'inference');
        const id = c.req.param('id');
        assert(id !== undefined, 'the path has an id');
        return c.json(one.toAnswer(await listedModel(services, key, id)));
      },
    },
  ];
}
