/** Routes that answer JSON to any caller with an API key, and cost nothing. */
import type { z } from 'zod';
import { authorize } from '../inference/authenticate.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { parseRequest } from '../middleware/parse-request.ts';
import type { Services } from '../services.ts';
import type { Scope, VerifiedKey } from '../tenant/key-contract.ts';
import type { Endpoint } from './endpoint.ts';

interface Definition<Answer extends z.ZodType, Query extends z.ZodObject> {
  readonly method: 'get' | 'post' | 'delete';
  readonly path: string;
  /** Other paths of the same route. */
  readonly aliases?: readonly string[];
  readonly summary: string;
  readonly description: string;
  /** The scope that the key must have. */
  readonly scope: Scope;
  readonly params?: z.ZodObject;
  readonly query?: Query;
  /** The route reads it by itself, within the budget of all bodies. */
  readonly body?: z.ZodType;
  readonly answer: Answer;
}

interface Input<Query> {
  readonly c: AppContext;
  readonly services: Services;
  readonly key: VerifiedKey;
  readonly query: Query;
}

export function keyEndpoint<
  Answer extends z.ZodType,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
>(
  definition: Definition<Answer, Query>,
  handle: (input: Input<z.infer<Query>>) => Promise<z.infer<Answer>>,
): Endpoint {
  const { method, path, summary, description, scope, query = null, body = null } = definition;
  return {
    method,
    path,
    aliases: definition.aliases ?? [],
    summary,
    description,
    params: definition.params ?? null,
    query,
    headers: null,
    body,
    status: 200,
    content: { 'application/json': definition.answer },
    async run(services, c) {
      const key = await authorize(c, services, scope);
      // It is the output of the schema, or {} where none is declared.
      const asked = (query ? parseRequest(query, c.req.query()) : {}) as z.infer<Query>;
      return c.json(await handle({ c, services, key, query: asked }));
    },
  };
}
