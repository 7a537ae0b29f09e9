/** `/admin/openapi.json` and `/admin/docs`: the operator's routes, from the values that answer them. */
import { OpenAPIHono } from '@hono/zod-openapi';
import { z } from 'zod';
import { errorTable } from '../errors.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { renderReference } from '../reference/openapi-page.ts';
import type { Endpoint } from './endpoint.ts';

const introduction = `Send the operator's token, EDGE_ADMIN_TOKEN, as \`Authorization: Bearer <token>\`. \
Amounts are integers in nano-USD: 1,000,000,000 are one US dollar. Prices are nano-USD per 1,000,000 \
tokens. Times are Unix milliseconds.`;

export interface AdminReference {
  readonly json: (c: AppContext) => Promise<Response>;
  readonly page: (c: AppContext) => Promise<Response>;
}

/** Built when it is first asked for: the routes themselves need none of it. */
export function createAdminReference(endpoints: readonly Endpoint[]): AdminReference {
  return {
    json: async (c) => c.json(documentOf(endpoints)),
    page: async (c) =>
      c.body(renderReference(documentOf(endpoints)), 200, {
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
        'x-content-type-options': 'nosniff',
      }),
  };
}

function documentOf(endpoints: readonly Endpoint[]) {
  const registrar = new OpenAPIHono();
  for (const endpoint of endpoints) {
    registrar.openAPIRegistry.registerPath(operationOf(endpoint));
  }
  registrar.openAPIRegistry.registerComponent('securitySchemes', 'adminToken', {
    type: 'http',
    scheme: 'bearer',
  });
  return registrar.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'sift, for its operator', version: '1', description: introduction },
    security: [{ adminToken: [] }],
  });
}

function operationOf({ method, path, summary, params, query, body, status, answer }: Endpoint) {
  const content = isMediaTypes(answer)
    ? Object.fromEntries(answer.map((type) => [type, { schema: { type: 'string' as const } }]))
    : { 'application/json': { schema: jsonSchema(answer, 'output') } };
  return {
    method,
    path: `/admin${path}`,
    operationId: `${method} ${path}`.replaceAll(/[^a-z]+/g, '_').replace(/_$/, ''),
    summary,
    description: `${summary}.`,
    request: {
      ...(params && { params }),
      ...(query && { query }),
      ...(body && {
        body: {
          required: true,
          content: { 'application/json': { schema: jsonSchema(body, 'input') } },
        },
      }),
    },
    responses: {
      [status]: { description: 'Done.', content },
      default: { description: `An error: ${Object.keys(errorTable).join(', ')}.` },
    },
  };
}

function isMediaTypes(answer: Endpoint['answer']): answer is readonly string[] {
  return Array.isArray(answer);
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...written } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return written;
}
