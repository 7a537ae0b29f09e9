/** The routes for API keys, and those that are open to everybody. */
import { accountEndpoints } from '../account/account-endpoints.ts';
import { dialectOf, dialects } from '../dialects/dialects.ts';
import { ApiError } from '../errors.ts';
import type { App, AppContext } from '../middleware/app-env.ts';
import { crossOrigin } from '../middleware/cross-origin.ts';
import { createReference, errorsByStatus } from '../reference/reference.ts';
import type { ReferenceText } from '../reference/reference.ts';
import type { Services } from '../services.ts';
import { balance } from './balance.ts';
import { dialectEndpoints } from './dialect-endpoints.ts';
import type { Endpoint } from './endpoint.ts';
import { ownKey } from './own-key.ts';
import { quote } from './quote.ts';
import { receipts } from './receipts.ts';
import { storedResponses } from './stored-responses.ts';
import { usage } from './usage.ts';

export const publicEndpoints: readonly Endpoint[] = [
  ...dialects.flatMap(dialectEndpoints),
  ...storedResponses,
  quote,
  balance,
  usage,
  ownKey,
  ...accountEndpoints.map(({ forKeys }) => forKeys),
  ...receipts,
];

/** All paths that callers may ask for. */
export const publicPaths: readonly string[] = [
  ...publicEndpoints.flatMap(({ path, aliases }) => [path, ...aliases]),
  '/health',
  '/docs',
  '/openapi.json',
];

const introduction = `Send the key as \`Authorization: Bearer <key>\` or as \`x-api-key: \
<key>\`. Every answer has an \`x-request-id\`; one that is not streamed has \
\`x-sift-cost-nano-usd\`. A request with an \`Idempotency-Key\` outlives its connection: the same \
request again gets the answer that is being made or was stored, and is never billed twice. Events \
of its stream have ids; \`Last-Event-ID\` asks for those after one. Amounts are integers in \
nano-USD: 1,000,000,000 are one US dollar.`;

const referenceText: ReferenceText = {
  title: 'sift',
  introduction,
  token: 'key',
  pathPrefix: '',
  success: 'The answer.',
  schemas: Object.fromEntries(dialects.map(({ errors: { name, schema } }) => [name, schema])),
  errors: (path) => errorsByStatus(dialectOf(path).errors.name),
  headers: { 'cache-control': 'public, max-age=300' },
};

export function mountPublicApi(app: App, services: Services): void {
  const reference = createReference(publicEndpoints, referenceText);
  for (const [path, endpoints] of byPath(publicEndpoints)) {
    const routes = endpoints.map(({ method, run }) => ({
      method,
      answer: (c: AppContext) => run(services, c),
    }));
    mountAt(app, path, routes);
  }
  const open = {
    // Programs that watch over the process ask this route; it says nothing of the workers.
    '/health': async (c: AppContext) => {
      const warnings = await services.warnings();
      return c.json({ status: 'ok', ...(warnings.length > 0 && { warnings }) });
    },
    '/openapi.json': (c: AppContext) => {
      // Caches give it to web pages as well, whoever asked for it first.
      c.header('access-control-allow-origin', '*');
      return reference.json(c);
    },
    '/docs': reference.page,
  };
  for (const [path, answer] of Object.entries(open))
    mountAt(app, path, [{ method: 'get', answer }]);
}

/** Web pages may call the route; other methods are refused by the name of the right one. */
function mountAt(
  app: App,
  path: string,
  routes: readonly {
    readonly method: Endpoint['method'];
    readonly answer: (c: AppContext) => Promise<Response>;
  }[],
): void {
  // A parameter is the rest of the path: ids of models hold slashes, which clients encode or not.
  const pattern = path.replaceAll(/\{(\w+)\}/g, ':$1{.+}');
  const methods = routes.map(({ method }) => method.toUpperCase());
  const isPlain = methods.every((method) => method === 'GET' || method === 'POST');
  app.use(pattern, crossOrigin(isPlain ? ['GET', 'POST'] : methods));
  for (const { method, answer } of routes) app.on(method.toUpperCase(), pattern, answer);
  app.all(pattern, (c) => {
    throw new ApiError(
      'method_not_allowed',
      `${c.req.path} takes ${methods.join(' and ')} requests.`,
      { headers: { allow: methods.join(', ') } },
    );
  });
}

/** Paths with their endpoints, in the order in which they are first named. */
function byPath(endpoints: readonly Endpoint[]): ReadonlyMap<string, readonly Endpoint[]> {
  const found = new Map<string, readonly Endpoint[]>();
  for (const endpoint of endpoints) {
    for (const path of [endpoint.path, ...endpoint.aliases]) {
      found.set(path, [...(found.get(path) ?? []), endpoint]);
    }
  }
  return found;
}
