/**
 * The reference of a set of routes, for programs (OpenAPI 3.1) and for people (one page), written
 * from the values that answer them.
 */
import { OpenAPIHono } from '@hono/zod-openapi';
import { z } from 'zod';
import { errorTable } from '../errors.ts';
import type { Endpoint } from '../http/endpoint.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { renderReference } from './openapi-page.ts';

export interface ReferenceText {
  readonly title: string;
  readonly introduction: string;
  /** The name of the bearer token that all routes ask for. */
  readonly token: string;
  /** Stands before the paths of all endpoints. */
  readonly pathPrefix: string;
  /** Says what an answer is that is no error. */
  readonly success: string;
  /** Schemas that the responses of `errors` refer to. */
  readonly schemas: Readonly<Record<string, z.ZodType>>;
  errors(path: string): ErrorResponses;
  /** Headers of both, such as how long they may be cached. */
  readonly headers: Readonly<Record<string, string>>;
}

type ErrorResponses = Readonly<Record<string, ErrorResponse>>;
interface ErrorResponse {
  readonly description: string;
  readonly content?: {
    readonly 'application/json': { readonly schema: { readonly $ref: string } };
  };
}

export interface Reference {
  readonly json: (c: AppContext) => Promise<Response>;
  readonly page: (c: AppContext) => Promise<Response>;
}

/** Both are built when they are first asked for, and kept: they only change with the program. */
export function createReference(endpoints: readonly Endpoint[], text: ReferenceText): Reference {
  let built: { readonly json: string; readonly html: string } | null = null;
  const build = () => {
    if (built === null) {
      const document = createDocument(endpoints, text);
      built = { json: JSON.stringify(document), html: renderReference(document) };
    }
    return built;
  };
  return {
    json: async (c) =>
      c.body(build().json, 200, { 'content-type': 'application/json', ...text.headers }),
    page: async (c) =>
      c.body(build().html, 200, {
        'content-type': 'text/html; charset=utf-8',
        ...text.headers,
        // The page is text and its own style: no script, no font, no picture from anywhere.
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
        'x-content-type-options': 'nosniff',
      }),
  };
}

function createDocument(endpoints: readonly Endpoint[], text: ReferenceText) {
  const { title, introduction, token } = text;
  const registrar = new OpenAPIHono();
  const registry = registrar.openAPIRegistry;
  for (const endpoint of endpoints) {
    for (const path of [endpoint.path, ...endpoint.aliases]) {
      registry.registerPath(operationOf(endpoint, text.pathPrefix + path, text));
    }
  }
  for (const [name, schema] of Object.entries(text.schemas)) {
    registry.registerComponent('schemas', name, jsonSchema(schema));
  }
  registry.registerComponent('securitySchemes', token, { type: 'http', scheme: 'bearer' });
  return registrar.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title, version: '1', description: introduction },
    security: [{ [token]: [] }],
  });
}

function operationOf(endpoint: Endpoint, path: string, text: ReferenceText) {
  const { method, summary, description, params, query, headers, body, status } = endpoint;
  const ownPath = path.slice(text.pathPrefix.length);
  const content = Object.entries(endpoint.content).map(([type, schema]) => [
    type,
    mediaType(schema),
  ]);
  return {
    method,
    path,
    operationId: `${method} ${ownPath}`.replaceAll(/[^a-z]+/g, '_').replace(/_$/, ''),
    summary,
    description,
    request: {
      ...(params && { params }),
      ...(query && { query }),
      ...(headers && { headers }),
      ...(body && {
        body: {
          required: true,
          content: { 'application/json': mediaType(body) },
        },
      }),
    },
    responses: {
      [status]: { description: text.success, content: Object.fromEntries(content) },
      ...text.errors(path),
    },
  };
}

/** One response per status, which says what each of its codes means. */
export function errorsByStatus(schemaName: string): ErrorResponses {
  const schema = { $ref: `#/components/schemas/${schemaName}` };
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

/** The first example of the schema stands beside it too, where programs look for one. */
function mediaType(schema: z.ZodType) {
  const written = jsonSchema(schema);
  const [example] = written.examples ?? [];
  return { schema: written, ...(example !== undefined && { example }) };
}

/**
 * OpenAPI 3.1 speaks JSON Schema, which zod writes by itself. The output side: lists are counted
 * before their elements are looked at, and only the second step says what the elements are.
 */
function jsonSchema(schema: z.ZodType): { examples?: unknown[] } {
  const { $schema: _, ...written } = z.toJSONSchema(schema, {
    io: 'output',
    unrepresentable: 'any',
  });
  return written;
}
