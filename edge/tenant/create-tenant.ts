/**
 * Creates a tenant: its row in the directory says that it is being created, then its database is
 * made, then the row says that it is there. From then on a database that is missing is a fault.
 * Whatever stops this in between, to do it again finishes it.
 */
import { ApiError } from '../errors.ts';
import type { TenantRecord } from '../directory/directory-contract.ts';
import type { Services } from '../services.ts';

/** @throws ApiError if there is such a tenant already. */
export async function createTenant(
  services: Services,
  named: { readonly id: string; readonly name: string },
): Promise<TenantRecord> {
  const { directory, clock } = services;
  const record = { ...named, status: 'creating', createdAtMs: clock.nowMs() } as const;
  if (!(await directory.createTenant(record))) {
    const before = await directory.tenant(named.id);
    if (before?.status !== 'creating') {
      throw new ApiError('conflict', `There is a tenant ${named.id} already.`);
    }
  }
  await finishCreation(services, named.id);
  return { ...record, status: 'active', weight: 1 };
}

/**
 * Finishes tenants whose creation a crash stopped. One that cannot be made now is left as it is.
 */
export async function finishCreations(services: Services): Promise<void> {
  for (const { id, status } of await services.directory.tenants()) {
    if (status !== 'creating') continue;
    try {
      await finishCreation(services, id);
    } catch (error) {
      services.log('warn', 'tenant-creation-failed', { tenant: id, reason: String(error) });
    }
  }
}

async function finishCreation(services: Services, id: string): Promise<void> {
  await services.createDatabase(id);
  await services.directory.setTenantStatus(id, 'active');
}
