/**
 * One route of the operator's API as data: what it takes, what it answers and what does it. The same
 * value is mounted, checked and documented, so that the three cannot differ.
 */
import { z } from 'zod';
import { parseRequest } from '../middleware/parse-request.ts';
import { readJson } from '../bodies/read-body.ts';
import type { AppContext } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';

/** The operator's bodies are short. */
const limits = { owner: '/admin', bytesMax: 64 * 1024 };

export interface Endpoint {
  readonly method: 'get' | 'post' | 'patch' | 'delete';
  /** As OpenAPI writes it: `/tenants/{tenant}`. */
  readonly path: string;
  readonly summary: string;
  readonly params: z.ZodObject | null;
  readonly query: z.ZodObject | null;
  readonly body: z.ZodObject | null;
  readonly status: 200 | 201;
  /** Of the answer: a JSON schema, or the media types of a streamed one. */
  readonly answer: z.ZodType | readonly string[];
  run(services: Services, c: AppContext): Promise<Response>;
}

interface Definition<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject> {
  readonly method: Endpoint['method'];
  readonly path: string;
  readonly summary: string;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
}

interface Input<P, Q, B> {
  readonly services: Services;
  readonly params: P;
  readonly query: Q;
  readonly body: B;
}

type NoFields = z.ZodObject<Record<never, never>>;
const noFields: NoFields = z.strictObject({});

/** A route that answers with JSON. A body, a query or a parameter that is not declared is refused. */
export function jsonEndpoint<
  Answer extends z.ZodType,
  P extends z.ZodObject = NoFields,
  Q extends z.ZodObject = NoFields,
  B extends z.ZodObject = NoFields,
>(
  definition: Definition<P, Q, B> & { readonly answer: Answer; readonly status?: 200 | 201 },
  handle: (input: Input<z.infer<P>, z.infer<Q>, z.infer<B>>) => Promise<z.infer<Answer>>,
): Endpoint {
  const status = definition.status ?? 200;
  return {
    ...documented(definition),
    status,
    answer: definition.answer,
    async run(services, c) {
      return c.json(await handle(await readInput(definition, services, c)), status);
    },
  };
}

/** A route that answers with a stream in one of several formats. */
export function streamEndpoint<P extends z.ZodObject = NoFields, Q extends z.ZodObject = NoFields>(
  definition: Definition<P, Q, NoFields> & { readonly mediaTypes: readonly string[] },
  handle: (input: Input<z.infer<P>, z.infer<Q>, unknown>) => Promise<Response>,
): Endpoint {
  return {
    ...documented(definition),
    status: 200,
    answer: definition.mediaTypes,
    async run(services, c) {
      return handle(await readInput(definition, services, c));
    },
  };
}

function documented<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject>(
  definition: Definition<P, Q, B>,
) {
  const { method, path, summary, params = null, query = null, body = null } = definition;
  return { method, path, summary, params, query, body };
}

async function readInput<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject>(
  definition: Definition<P, Q, B>,
  services: Services,
  c: AppContext,
): Promise<Input<z.infer<P>, z.infer<Q>, z.infer<B>>> {
  const hasBody = definition.method !== 'get' && definition.body !== undefined;
  return {
    services,
    params: parseRequest(definition.params ?? noFields, c.req.param()) as z.infer<P>,
    query: parseRequest(definition.query ?? noFields, c.req.query()) as z.infer<Q>,
    // Each is the output of the schema of that name, or {} where none is declared.
    body: (hasBody
      ? parseRequest(definition.body ?? noFields, await readBodyOf(c, services))
      : {}) as z.infer<B>,
  };
}

async function readBodyOf(c: AppContext, services: Services): Promise<unknown> {
  const { json, release } = await readJson(c, services, limits);
  release();
  return json;
}
