/** Tenants and their keys. */
import { z } from 'zod';
import { createApiKey } from '../auth/api-key.ts';
import { createTenant } from '../tenant/create-tenant.ts';
import { knownTenant, tenantIdSchema, tenantParams } from '../directory/known-tenant.ts';
import { ApiError } from '../errors.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import type { Scope } from '../tenant/key-contract.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { unavailableOf } from './unavailable.ts';
import {
  balanceSchema,
  keySchema,
  limitsOf,
  limitsSchema,
  prioritySchema,
  scopeSchema,
  tenantSchema,
  wireKey,
  wireTenant,
} from './wire.ts';

const keyParams = z.strictObject({ tenant: tenantIdSchema, key: z.string().max(64) });
const name = z.string().min(1).max(200);
const label = z.string().max(200);
const weightMax = 1_000;
const unlimited = { requestsPerMinute: null, tokensPerMinute: null, concurrentRequests: null };

/** Tenants whose databases are read side by side for a list of them all. */
const readAtOnce = 16;

const listedSchema = tenantSchema.extend({
  unavailable: z.string().nullable().describe('why its database cannot be used, and what to do'),
  limits: tenantSchema.shape.limits
    .nullable()
    .describe("as of one tenant; null if the tenant's database cannot be read"),
});

/** A damaged database of one tenant does not hide the others. */
async function listed(
  services: Services,
  record: TenantRecord,
): Promise<z.infer<typeof listedSchema>> {
  try {
    const limits = await services.tenant(record.id).limits();
    return { ...wireTenant(record, limits), unavailable: null };
  } catch (error) {
    const { advice } = unavailableOf(services, record.id, error);
    return { ...wireTenant(record, unlimited), limits: null, unavailable: advice };
  }
}

function noKeyError({ tenant, key }: z.infer<typeof keyParams>): ApiError {
  return new ApiError('not_found', `The tenant ${tenant} has no key ${key}.`);
}

export const tenantEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants',
      summary: 'All tenants',
      answer: z.object({ tenants: z.array(listedSchema) }),
    },
    async ({ services }) => {
      const tenants: z.infer<typeof listedSchema>[] = [];
      const records = await services.directory.tenants();
      for (let at = 0; at < records.length; at += readAtOnce) {
        const some = records.slice(at, at + readAtOnce);
        tenants.push(...(await Promise.all(some.map((record) => listed(services, record)))));
      }
      return { tenants };
    },
  ),
  jsonEndpoint(
    {
      method: 'post',
      path: '/tenants',
      summary: 'Create a tenant',
      body: z.strictObject({ id: tenantIdSchema, name: name.optional() }),
      answer: tenantSchema,
      status: 201,
    },
    async ({ services, body }) => {
      const record = await createTenant(services, { id: body.id, name: body.name ?? body.id });
      return wireTenant(record, await services.tenant(body.id).limits());
    },
  ),
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants/{tenant}',
      summary: 'One tenant and its balance',
      params: tenantParams,
      answer: tenantSchema.extend({ balance: balanceSchema }),
    },
    async ({ services, params }) => {
      const { record, tenant } = await knownTenant(services, params.tenant);
      const [balance, limits] = await Promise.all([tenant.balance(), tenant.limits()]);
      return {
        ...wireTenant(record, limits),
        balance: {
          granted_nano_usd: balance.granted,
          topped_up_nano_usd: balance.toppedUp,
          held_nano_usd: balance.held,
        },
      };
    },
  ),
  jsonEndpoint(
    {
      method: 'patch',
      path: '/tenants/{tenant}',
      summary: 'Suspend or resume a tenant, or set its share and the limits over all of its keys',
      params: tenantParams,
      body: z.strictObject({
        status: z.enum(['active', 'suspended']).optional(),
        weight: z.int().min(1).max(weightMax).optional(),
        limits: limitsSchema.optional(),
      }),
      answer: tenantSchema,
    },
    async ({ services, params, body }) => {
      const { record, tenant } = await knownTenant(services, params.tenant);
      if (body.limits !== undefined) await tenant.setLimits(limitsOf(body.limits));
      const { status = record.status, weight = record.weight } = body;
      const { directory } = services;
      if (status !== record.status) await directory.setTenantStatus(record.id, status);
      if (weight !== record.weight) await directory.setTenantWeight(record.id, weight);
      return wireTenant({ ...record, status, weight }, await tenant.limits());
    },
  ),
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
        priority: prioritySchema.optional(),
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
        ...(body.priority && { priority: body.priority }),
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
      const record = (await tenant.keys()).find(({ keyId }) => keyId === params.key);
      if (record === undefined) throw noKeyError(params);
      return wireKey(record);
    },
  ),
  jsonEndpoint(
    {
      method: 'patch',
      path: '/tenants/{tenant}/keys/{key}',
      summary:
        'Revoke a key for good, or change its label, priority or limits; acts at the next request',
      params: keyParams,
      body: z.strictObject({
        status: z.literal('revoked').optional(),
        label: label.optional(),
        priority: prioritySchema.optional(),
        limits: limitsSchema.optional(),
      }),
      answer: keySchema,
    },
    async ({ services, params, body }) => {
      const { tenant } = await knownTenant(services, params.tenant);
      const record = await tenant.updateKey(params.key, {
        ...(body.status && { status: body.status }),
        ...(body.label !== undefined && { label: body.label }),
        ...(body.priority && { priority: body.priority }),
        ...(body.limits && { limits: limitsOf(body.limits) }),
      });
      if (record === null) throw noKeyError(params);
      return wireKey(record);
    },
  ),
];
