/** Tenants by the name that an operator types: one that does not exist is told the nearest. */
import { z } from 'zod';
import { tenantIdPattern } from '../auth/api-key.ts';
import { ApiError } from '../errors.ts';
import { nearestAdvice } from '../nearest.ts';
import type { Services } from '../services.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import type { TenantRecord } from './directory-contract.ts';

export const tenantIdSchema = z
  .string()
  .regex(tenantIdPattern, 'expected up to 63 characters of a-z, 0-9, - and _');
export const tenantParams = z.strictObject({ tenant: tenantIdSchema });

/** Gives the stub of a tenant that the directory knows: nothing is created for a mistyped name. */
export async function knownTenant(
  services: Services,
  id: string,
): Promise<{ record: TenantRecord; tenant: Tenant }> {
  const record = await services.directory.tenant(id);
  if (record === null) {
    const names = (await services.directory.tenants()).map((each) => each.id);
    throw new ApiError('not_found', `There is no tenant ${id}.${nearestAdvice(id, names)}`);
  }
  if (record.status === 'creating') {
    throw new ApiError('conflict', `The tenant ${id} is not created to the end; create it again.`);
  }
  return { record, tenant: services.tenant(id) };
}
