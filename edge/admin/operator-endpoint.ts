/** Routes of the operator's API: what they are given is parsed, and nothing undeclared is taken. */
import { z } from 'zod';
import { parseRequest } from '../middleware/parse-request.ts';
import { readJson } from '../bodies/read-body.ts';
import type { AppContext } from '../middleware/app-env.ts';
import type { Endpoint } from '../http/endpoint.ts';
import type { Services } from '../services.ts';

/** The operator's bodies are short. */
const limits = { owner: '/admin', bytesMax: 64 * 1024 };

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

/**
 * A route that answers with JSON. A body, a query or a parameter that is not declared is refused.
 */
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
    content: { 'application/json': definition.answer },
    async run(services, c) {
      return c.json(await handle(await readInput(definition, services, c)), status);
    },
  };
}

/** A route that answers with a stream in one of several formats. */
export function streamEndpoint<P extends z.ZodObject = NoFields, Q extends z.ZodObject = NoFields>(
  definition: Definition<P, Q, NoFields> & {
    /** An example of the answer under each of its media types. */
    readonly examples: Readonly<Record<string, string>>;
  },
  handle: (input: Input<z.infer<P>, z.infer<Q>, unknown>) => Promise<Response>,
): Endpoint {
  return {
    ...documented(definition),
    status: 200,
    content: Object.fromEntries(
      Object.entries(definition.examples).map(([type, example]) => [
        type,
        z.string().meta({ examples: [example] }),
      ]),
    ),
    async run(services, c) {
      return handle(await readInput(definition, services, c));
    },
  };
}

function documented<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject>(
  definition: Definition<P, Q, B>,
) {
  const { method, path, summary, params = null, query = null, body = null } = definition;
  return {
    method,
    path,
    aliases: [],
    summary,
    description: `${summary}.`,
    params,
    query,
    headers: null,
    body,
  };
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
