/**
 * The operator's API: every route asks for the admin token before it looks at anything else. Only
 * its reference is open, like that of the public API.
 */
import { Hono } from 'hono';
import { accountEndpoints } from '../account/account-endpoints.ts';
import { ApiError, errorTable } from '../errors.ts';
import type { AppEnv } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';
import { TenantUnavailable } from '../tenant/tenant-unavailable.ts';
import { bearerToken } from '../middleware/bearer-token.ts';
import { aliasEndpoints } from './aliases.ts';
import { catalogueEndpoints } from './catalogue.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { moneyEndpoints } from './money.ts';
import { createReference } from '../reference/reference.ts';
import type { ReferenceText } from '../reference/reference.ts';
import { reportEndpoints } from './reports.ts';
import { tenantEndpoints } from './tenants.ts';
import { workerEndpoints } from './workers.ts';

export const adminEndpoints: readonly Endpoint[] = [
  ...tenantEndpoints,
  ...moneyEndpoints,
  ...catalogueEndpoints,
  ...aliasEndpoints,
  ...workerEndpoints,
  ...reportEndpoints,
  ...accountEndpoints.map(({ forOperator }) => forOperator),
];

const referenceText: ReferenceText = {
  title: 'sift, for its operator',
  introduction: `Send the operator's token, EDGE_ADMIN_TOKEN, as \`Authorization: Bearer \
<token>\`. Amounts are integers in nano-USD: 1,000,000,000 are one US dollar. Prices are nano-USD \
per 1,000,000 tokens. Times are Unix milliseconds.`,
  token: 'adminToken',
  pathPrefix: '/admin',
  success: 'Done.',
  schemas: {},
  errors: () => ({
    default: { description: `An error: ${Object.keys(errorTable).join(', ')}.` },
  }),
  headers: {},
};

/** The routes are to be mounted at /admin. */
export function adminRoutes(services: Services): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const reference = createReference(adminEndpoints, referenceText);
  app.get('/openapi.json', reference.json);
  app.get('/docs', reference.page);
  app.use(bearerToken(services.settings.adminToken));
  for (const endpoint of adminEndpoints) {
    const path = endpoint.path.replaceAll(/\{(\w+)\}/g, ':$1');
    app.on(endpoint.method.toUpperCase(), path, (c) => endpoint.run(services, c).catch(advise));
  }
  return app;
}

/** The operator is told which tenant it is, and what to do. */
function advise(error: unknown): never {
  if (!(error instanceof TenantUnavailable)) throw error;
  throw new ApiError(error.code, error.advice, { headers: error.headers, cause: error.cause });
}
