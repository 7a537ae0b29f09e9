/**
 * Routes about one account, for two callers: its own keys, under /v1, and the operator, under
 * /admin/tenants/{tenant}. Each is written once, so that both have the same words and do the same.
 */
import { z } from 'zod';
import { readJson } from '../bodies/read-body.ts';
import { knownTenant, tenantParams } from '../directory/known-tenant.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { authorize } from '../inference/authenticate.ts';
import type { AppContext } from '../middleware/app-env.ts';
import { parseRequest } from '../middleware/parse-request.ts';
import type { Services } from '../services.ts';
import type { Actor, Scope } from '../tenant/key-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';

/** The bodies of these routes are short. */
const bodyBytesMax = 64 * 1024;

type NoFields = z.ZodObject<Record<never, never>>;
const noFields: NoFields = z.strictObject({});

interface Definition<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject> {
  readonly method: Endpoint['method'];
  /** It follows /v1, and /admin/tenants/{tenant}. */
  readonly path: string;
  readonly summary: string;
  readonly description: string;
  /** The scope that a key needs. */
  readonly scope: Scope;
  readonly params?: P;
  readonly query?: Q;
  readonly headers?: z.ZodObject;
  readonly body?: B;
}

export interface AccountInput<P, Q, B> {
  readonly services: Services;
  readonly c: AppContext;
  readonly tenantId: string;
  readonly tenant: Tenant;
  readonly actor: Actor;
  readonly params: P;
  readonly query: Q;
  readonly body: B;
}

export interface AccountEndpoint {
  readonly forKeys: Endpoint;
  readonly forOperator: Endpoint;
}

interface Content {
  readonly status?: 200 | 201;
  readonly content: Endpoint['content'];
}

/** A route that answers with JSON. A body, a query or a parameter undeclared is refused. */
export function accountEndpoint<
  Answer extends z.ZodType,
  P extends z.ZodObject = NoFields,
  Q extends z.ZodObject = NoFields,
  B extends z.ZodObject = NoFields,
>(
  definition: Definition<P, Q, B> & { readonly answer: Answer; readonly status?: 200 | 201 },
  handle: (input: AccountInput<z.infer<P>, z.infer<Q>, z.infer<B>>) => Promise<z.infer<Answer>>,
): AccountEndpoint {
  const { status = 200, answer } = definition;
  const content = { 'application/json': answer };
  return accountContent({ ...definition, status, content }, async (input) =>
    input.c.json(await handle(input), status),
  );
}

/** A route that answers in one of several formats. */
export function accountContent<
  P extends z.ZodObject = NoFields,
  Q extends z.ZodObject = NoFields,
  B extends z.ZodObject = NoFields,
>(
  definition: Definition<P, Q, B> & Content,
  handle: (input: AccountInput<z.infer<P>, z.infer<Q>, z.infer<B>>) => Promise<Response>,
): AccountEndpoint {
  const { method, path, scope, params, query, headers, body, content } = definition;
  const plain = {
    method,
    aliases: [],
    summary: definition.summary,
    query: query ?? null,
    headers: headers ?? null,
    body: body ?? null,
    status: definition.status ?? 200,
    content,
  };
  return {
    forKeys: {
      ...plain,
      path: `/v1${path}`,
      description: `${definition.description} Needs the scope ${scope}.`,
      params: params ?? null,
      async run(services, c) {
        const key = await authorize(c, services, scope);
        const tenant = services.tenant(key.tenant);
        const caller = { tenantId: key.tenant, tenant, actor: { kind: 'key', key } } as const;
        const input = await readInput(definition, { services, c, owner: key.tenant });
        return handle({ services, c, ...caller, ...input });
      },
    },
    forOperator: {
      ...plain,
      path: `/tenants/{tenant}${path}`,
      description: definition.description,
      params: tenantParams.extend((params ?? noFields).shape),
      async run(services, c) {
        const { tenant: tenantId } = parseRequest(tenantParams, { tenant: c.req.param('tenant') });
        const { tenant } = await knownTenant(services, tenantId);
        const caller = { tenantId, tenant, actor: { kind: 'operator' } } as const;
        const input = await readInput(definition, { services, c, owner: '/admin' });
        return handle({ services, c, ...caller, ...input });
      },
    },
  };
}

async function readInput<P extends z.ZodObject, Q extends z.ZodObject, B extends z.ZodObject>(
  definition: Definition<P, Q, B>,
  request: { readonly services: Services; readonly c: AppContext; readonly owner: string },
): Promise<Pick<AccountInput<z.infer<P>, z.infer<Q>, z.infer<B>>, 'params' | 'query' | 'body'>> {
  const { services, c, owner } = request;
  const { tenant: _, ...named } = c.req.param();
  return {
    // Each is the output of the schema of that name, or {} where none is declared.
    params: parseRequest(definition.params ?? noFields, named) as z.infer<P>,
    query: parseRequest(definition.query ?? noFields, c.req.query()) as z.infer<Q>,
    body: (definition.body === undefined
      ? {}
      : parseRequest(definition.body, await readBodyOf(c, services, owner))) as z.infer<B>,
  };
}

async function readBodyOf(c: AppContext, services: Services, owner: string): Promise<unknown> {
  const { json, release } = await readJson(c, services, { owner, bytesMax: bodyBytesMax });
  release();
  return json;
}
