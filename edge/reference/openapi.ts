/**
 * The reference of the public API as an OpenAPI 3.1 document, generated from the schemas that the
 * routes parse with, so that the two cannot differ.
 */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi';
import { errorTable } from '../errors.ts';
import { modelPageSchema } from '../dialects/anthropic/anthropic-models.ts';
import {
  countTokensRequestSchema,
  messagesRequestSchema,
} from '../dialects/anthropic/anthropic-schemas.ts';
import { chatRequestSchema, textRequestSchema } from '../dialects/openai/request-schemas.ts';
import {
  anthropicErrorSchema,
  anthropicMessageSchema,
  anthropicModelListSchema,
  anthropicModelSchema,
  balanceSchema,
  chatCompletionSchema,
  completionSchema,
  errorSchema,
  modelListSchema,
  modelSchema,
  quoteSchema,
  tokenCountSchema,
  usageQuerySchema,
  usageReportSchema,
} from '../dialects/response-schemas.ts';

/** The worker's prompt is checked by hand, which no generator can read; this says the same. */
const shownTextRequest = textRequestSchema.extend({
  prompt: z
    .union([
      z.string(),
      z.array(z.string()).min(1),
      z.array(z.int().min(0)).min(1),
      z.array(z.array(z.int().min(0)).min(1)).min(1),
    ])
    .describe('Text or token ids, one prompt or several.'),
});

const errorShapes = { Error: errorSchema, AnthropicError: anthropicErrorSchema };

interface Route {
  readonly method: 'get' | 'post';
  readonly path: string;
  readonly alias?: string;
  readonly summary: string;
  readonly description: string;
  readonly body?: z.ZodType;
  readonly query?: z.ZodObject;
  readonly params?: z.ZodObject;
  readonly answer: z.ZodType;
  readonly streams?: boolean;
  readonly error?: keyof typeof errorShapes;
}

const routes: readonly Route[] = [
  {
    method: 'post',
    path: '/v1/chat/completions',
    alias: '/chat/completions',
    summary: 'Chat completion',
    description:
      "OpenAI's chat completions with DeepSeek's additions. Usage has both dialects' fields and " +
      'cost_nano_usd. user_id keeps the end users of an account apart in caches and in scheduling. ' +
      'metadata, prompt_cache_key and the names of messages are accepted and have no effect. ' +
      'response_format, a tool_choice of required or of one function, and strict functions are kept ' +
      'by masking tokens: an answer that ends is JSON of the schema, and one that was cut has the ' +
      'finish_reason length. A keyword of a schema that cannot be kept is refused by name; annotations ' +
      'and unknown formats have no effect. A seed beyond 2^53 is folded into fewer bits. Reasoning, ' +
      'if any, comes before and is free, also before a call that is forced. reasoning_effort turns ' +
      'thinking on (none: off) unless thinking says; the models know one depth of it.',
    body: chatRequestSchema,
    answer: chatCompletionSchema,
    streams: true,
  },
  {
    method: 'post',
    path: '/v1/completions',
    alias: '/beta/completions',
    summary: 'Completion',
    description: 'Text in, text out; with a suffix it fills in the middle.',
    body: shownTextRequest,
    answer: completionSchema,
    streams: true,
  },
  {
    method: 'post',
    path: '/anthropic/v1/messages',
    summary: "Message, in Anthropic's protocol",
    description:
      'Prefixes are cached automatically, for all users of the account. What is accepted and has no ' +
      'effect: cache_control, context_management, metadata, speed, mcp_servers, container, ' +
      'diagnostics, fallbacks, fallback_credit_token, betas, user_profile_id, budget_tokens, ' +
      'block_binding and task_budget; of tools eager_input_streaming, defer_loading, input_examples ' +
      'and allowed_callers. A thread is refused with the code that makes clients go on without. ' +
      'tool_choice, strict tools and output_config.format are kept by masking tokens, as chat ' +
      'completions say; output_config.effort turns thinking on unless thinking says.',
    body: messagesRequestSchema,
    answer: anthropicMessageSchema,
    streams: true,
    error: 'AnthropicError',
  },
  {
    method: 'post',
    path: '/anthropic/v1/messages/count_tokens',
    summary: "Tokens of a prompt, in Anthropic's protocol",
    description:
      'Counted by a worker, exactly as a message of the same fields would be. Free; counts as one ' +
      'request of the limits. Where no worker can count, the answer is an upper bound and says so ' +
      'in x-sift-token-count.',
    body: countTokensRequestSchema,
    answer: tokenCountSchema,
    error: 'AnthropicError',
  },
  {
    method: 'get',
    path: '/anthropic/v1/models',
    summary: "Models, in Anthropic's protocol",
    description: 'All models that can be asked for, the newest first, in pages.',
    query: modelPageSchema,
    answer: anthropicModelListSchema,
    error: 'AnthropicError',
  },
  {
    method: 'get',
    path: '/anthropic/v1/models/{id}',
    summary: "One model, in Anthropic's protocol",
    description: 'One model by its id.',
    params: z.object({ id: z.string() }),
    answer: anthropicModelSchema,
    error: 'AnthropicError',
  },
  {
    method: 'post',
    path: '/v1/quote',
    summary: 'Price of a request',
    description:
      'Takes the body of a chat completion or of a completion and runs nothing: what the request ' +
      'may cost at most, and how much of its prompt is probably cached.',
    body: z.union([chatRequestSchema, shownTextRequest]),
    answer: quoteSchema,
  },
  {
    method: 'get',
    path: '/v1/models',
    alias: '/models',
    summary: 'Models',
    description: 'All models that can be asked for.',
    answer: modelListSchema,
  },
  {
    method: 'get',
    path: '/v1/models/{id}',
    alias: '/models/{id}',
    summary: 'One model',
    description: 'One model by its id.',
    params: z.object({ id: z.string() }),
    answer: modelSchema,
  },
  {
    method: 'get',
    path: '/user/balance',
    summary: 'Balance',
    description: "DeepSeek's balance: exact amounts, as text. Needs the scope read.",
    answer: balanceSchema,
  },
  {
    method: 'get',
    path: '/v1/usage',
    summary: 'Usage per day, model and key',
    description: 'Of the whole account, days in UTC. Needs the scope read.',
    query: usageQuerySchema,
    answer: usageReportSchema,
  },
];

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
    for (const path of [route.path, route.alias]) {
      if (path !== undefined) registrar.openAPIRegistry.registerPath(toOpenApi(route, path));
    }
  }
  for (const [name, schema] of Object.entries(errorShapes)) {
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
      ...errorResponses(route.error ?? 'Error'),
    },
  });
}

/** One response per status, which says what each of its codes means. */
function errorResponses(shape: keyof typeof errorShapes) {
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
