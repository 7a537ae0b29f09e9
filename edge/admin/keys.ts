/** The keys of a tenant. */
import { z } from 'zod';
import { createApiKey } from '../auth/api-key.ts';
import { ApiError } from '../errors.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { keySchema, keyTermsFields, keyTermsOf, scopeSchema, wireKey } from './key-wire.ts';
import type { Scope } from '../tenant/key-contract.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import { knownTenant, tenantIdSchema, tenantParams } from '../directory/known-tenant.ts';
import { unlimited } from './tenants.ts';
import { limitsOf, limitsSchema } from './wire.ts';

const keyParams = z.strictObject({ tenant: tenantIdSchema, key: z.string().max(64) });
const label = z.string().max(200);

function noKeyError({ tenant, key }: z.infer<typeof keyParams>): ApiError {
  return new ApiError('not_found', `The tenant ${tenant} has no key ${key}.`);
}

export const keyEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants/{tenant}/keys',
      summary: "A tenant's keys, without their secrets",
      params: tenantParams,
      answer: z.object({ keys: z.array(keySchema) }),
    },
    async ({ services, params }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      return { keys: (await tenant.keys()).map(wireKey) };
    },
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/tenants/{tenant}/keys',
      summary: 'Create a key; the answer alone holds it in full',
      params: tenantParams,
      body: z.strictObject({
        label: label.optional(),
        scopes: z.array(scopeSchema).min(1).max(3).optional(),
        ...keyTermsFields,
        limits: limitsSchema.optional(),
      }),
      answer: keySchema.extend({ key: z.string().describe('shown this once, stored nowhere') }),
      status: 201,
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const { key, keyId, secretHash } = createApiKey({
        tenant: params.tenant,
        signingSecrets: services.settings.keySigningSecrets,
        random: services.random,
      });
      const record = await tenant.createKey({
        keyId,
        secretHash,
        label: body.label ?? '',
        scopes: [...new Set<Scope>(body.scopes ?? ['inference', 'read'])],
        ...keyTermsOf(body),
        limits: body.limits ? limitsOf(body.limits) : unlimited,
      });
      return { ...wireKey(record), key };
    },
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants/{tenant}/keys/{key}',
      summary: 'One key and its limits, without its secret',
      params: keyParams,
      answer: keySchema,
    },
    async ({ services, params }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const record = await tenant.key(params.key);
      if (record === null) throw noKeyError(params);
      return wireKey(record);
    },
  ),
  jsonEndpoint(
    {
      method: 'patch',
      path: '/tenants/{tenant}/keys/{key}',
      summary:
        'Revoke a key for good, or change what it may: its label, priority, weight, limits, ' +
        'expiry, models or budget; acts at the next request',
      params: keyParams,
      body: z.strictObject({
        status: z.literal('revoked').optional(),
        label: label.optional(),
        ...keyTermsFields,
        limits: limitsSchema.optional(),
      }),
      answer: keySchema,
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const record = await tenant.updateKey(params.key, {
        ...(body.status && { status: body.status }),
        ...(body.label !== undefined && { label: body.label }),
        ...keyTermsOf(body),
        ...(body.limits && { limits: limitsOf(body.limits) }),
      });
      if (record === null) throw noKeyError(params);
      return wireKey(record);
    },
  ),
];
