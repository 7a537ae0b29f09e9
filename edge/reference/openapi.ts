/**
 * The reference of the public API as an OpenAPI 3.1 document, generated from the schemas that the
 * routes parse with, so that the two cannot differ.
 */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi';
import { errorTable } from '../errors.ts';
import type { ModelRoutes, RouteText } from '../dialects/dialect.ts';
import { dialectOf, dialects } from '../dialects/dialects.ts';
import { quoteRequestSchema } from '../dialects/openai/quote-request.ts';
import {
  balanceSchema,
  quoteSchema,
  usageQuerySchema,
  usageReportSchema,
} from '../http/account-schemas.ts';

interface Route extends RouteText {
  readonly method: 'get' | 'post';
  readonly body?: z.ZodType;
  readonly query?: z.ZodObject;
  readonly params?: z.ZodObject;
  readonly answer: z.ZodType;
  readonly streams?: boolean;
}

const routes: readonly Route[] = [
  ...dialects.flatMap(({ inferences, tokenCounts, models }): Route[] => [
    ...inferences.map((route) => ({ ...posted(route), streams: true })),
    ...tokenCounts.map(posted),
    ...modelRoutes(models),
  ]),
  {
    method: 'post',
    path: '/v1/quote',
    aliases: [],
    summary: 'Price of a request',
    description:
      'Takes the body of a chat completion or of a completion and runs nothing: what the request ' +
      'may cost at most, and how much of its prompt is probably cached.',
    body: quoteRequestSchema,
    answer: quoteSchema,
  },
  {
    method: 'get',
    path: '/user/balance',
    aliases: [],
    summary: 'Balance',
    description: "DeepSeek's balance: exact amounts, as text. Needs the scope read.",
    answer: balanceSchema,
  },
  {
    method: 'get',
    path: '/v1/usage',
    aliases: [],
    summary: 'Usage per day, model and key',
    description: 'Of the whole account, days in UTC. Needs the scope read.',
    query: usageQuerySchema,
    answer: usageReportSchema,
  },
];

function posted(
  route: RouteText & { readonly requestSchema: z.ZodType; readonly answerSchema: z.ZodType },
): Route {
  return { ...route, method: 'post', body: route.requestSchema, answer: route.answerSchema };
}

function modelRoutes({ list, one }: ModelRoutes): Route[] {
  const { path, aliases, querySchema, answerSchema } = list;
  return [
    { ...list, method: 'get', ...(querySchema && { query: querySchema }), answer: answerSchema },
    {
      ...one,
      method: 'get',
      path: `${path}/{id}`,
      aliases: aliases.map((alias) => `${alias}/{id}`),
      params: z.object({ id: z.string() }),
      answer: one.answerSchema,
    },
  ];
}

const introduction = `Send the key as \`Authorization: Bearer <key>\` or as \`x-api-key: <key>\`. Every \
answer has an \`x-request-id\`; one that is not streamed has \`x-sift-cost-nano-usd\`. A request with an \
\`Idempotency-Key\` outlives its connection: the same request again gets the answer that is being made \
or was stored, and is never billed twice. Events of its stream have ids; \`Last-Event-ID\` asks for \
those after one. \
Amounts are integers in nano-USD: 1,000,000,000 are one US dollar.`;

/** Built on first use: it is the same for as long as the process runs. */
export function createOpenApiDocument() {
  const registrar = new OpenAPIHono();
  for (const route of routes) {
    for (const path of [route.path, ...route.aliases]) {
      registrar.openAPIRegistry.registerPath(toOpenApi(route, path));
    }
  }
  for (const { name, schema } of dialects.map(({ errors }) => errors)) {
    registrar.openAPIRegistry.registerComponent('schemas', name, jsonSchema(schema));
  }
  registrar.openAPIRegistry.registerComponent('securitySchemes', 'key', {
    type: 'http',
    scheme: 'bearer',
  });
  return registrar.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'sift', version: '1', description: introduction },
    security: [{ key: [] }],
  });
}

function toOpenApi(route: Route, path: string) {
  return createRoute({
    method: route.method,
    path,
    operationId: `${route.method} ${path}`.replaceAll(/[^a-z]+/g, '_').replace(/_$/, ''),
    summary: route.summary,
    description: route.description,
    request: {
      ...(route.params && { params: route.params }),
      ...(route.query && { query: route.query }),
      ...(route.streams && {
        headers: z.object({
          'idempotency-key': z.string().max(255).optional(),
          'last-event-id': z
            .string()
            .regex(/^\d{1,9}$/)
            .optional(),
        }),
      }),
      ...(route.body && {
        body: {
          required: true,
          content: { 'application/json': { schema: jsonSchema(route.body) } },
        },
      }),
    },
    responses: {
      200: {
        description: 'The answer.',
        content: {
          'application/json': { schema: jsonSchema(route.answer) },
          ...(route.streams && {
            'text/event-stream': { schema: z.string().describe('With `stream`: its events.') },
          }),
        },
      },
      ...errorResponses(dialectOf(path).errors.name),
    },
  });
}

/** One response per status, which says what each of its codes means. */
function errorResponses(shape: string) {
  const schema = { $ref: `#/components/schemas/${shape}` };
  const byStatus = new Map<number, string[]>();
  for (const [code, { status, means }] of Object.entries(errorTable)) {
    if (code === 'client_left') continue;
    byStatus.set(status, [...(byStatus.get(status) ?? []), `\`${code}\`: ${means}`]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, means]) => [
      status,
      { description: means.join(' '), content: { 'application/json': { schema } } },
    ]),
  );
}

/**
 * OpenAPI 3.1 speaks JSON Schema, which zod writes by itself. The output side: lists are counted
 * before their elements are looked at, and only the second step says what the elements are.
 */
function jsonSchema(schema: z.ZodType): object {
  const { $schema: _, ...written } = z.toJSONSchema(schema, {
    io: 'output',
    unrepresentable: 'any',
  });
  return written;
}
