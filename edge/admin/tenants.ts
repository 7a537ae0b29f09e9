/** Tenants, their status and their limits. */
import { z } from 'zod';
import { createTenant } from '../tenant/create-tenant.ts';
import { knownTenant, tenantIdSchema, tenantParams } from '../directory/known-tenant.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';
import { balanceExample, tenantExample } from './examples.ts';
import { plainText } from './plain-text.ts';
import { jsonEndpoint } from './operator-endpoint.ts';
import type { Endpoint } from '../http/endpoint.ts';
import { unavailableOf } from './unavailable.ts';
import {
  balanceSchema,
  limitsOf,
  limitsSchema,
  tenantSchema,
  wireLimits,
  wireTenant,
} from './wire.ts';

const name = plainText(200).min(1);
const weightMax = 1_000;
const unlimited = {
  requestsPerMinute: null,
  tokensPerMinute: null,
  concurrentRequests: null,
};

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

export const tenantEndpoints: readonly Endpoint[] = [
  jsonEndpoint(
    {
      method: 'get',
      path: '/tenants',
      summary: 'All tenants',
      answer: z
        .object({ tenants: z.array(listedSchema) })
        .meta({ examples: [{ tenants: [{ ...tenantExample, unavailable: null }] }] }),
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
      body: z
        .strictObject({ id: tenantIdSchema, name: name.optional() })
        .meta({ examples: [{ id: tenantExample.id, name: tenantExample.name }] }),
      answer: tenantSchema.meta({
        examples: [{ ...tenantExample, limits: wireLimits(unlimited) }],
      }),
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
      answer: tenantSchema
        .extend({ balance: balanceSchema })
        .meta({ examples: [{ ...tenantExample, balance: balanceExample }] }),
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
      body: z
        .strictObject({
          status: z.enum(['active', 'suspended']).optional(),
          weight: z.int().min(1).max(weightMax).optional(),
          limits: limitsSchema.optional(),
        })
        .meta({ examples: [{ limits: tenantExample.limits }] }),
      answer: tenantSchema.meta({ examples: [tenantExample] }),
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
];
