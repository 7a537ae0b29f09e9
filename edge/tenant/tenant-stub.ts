/** A tenant whose database is somewhere else: each call is handed to whoever can reach it. */
import { forward } from '../forward.ts';
import type { WithTarget } from '../forward.ts';
import { tenantMethods } from './tenant-contract.ts';
import type { Tenant } from './tenant-contract.ts';

export function tenantStub(withTenant: WithTarget<Tenant>): Tenant {
  return forward(tenantMethods, withTenant);
}
