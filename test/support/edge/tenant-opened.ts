/** A tenant over real SQLite in memory, with a clock that the test moves. */
import { onTestFinished } from 'vitest';
import { openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import type { SyncDb } from '../../../db/types.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import type { TenantOptions } from '../../../edge/tenant/tenant.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { testClock } from './tenant-samples.ts';

export interface OpenedTenant {
  readonly db: SyncDb;
  readonly tenant: Tenant;
  readonly clock: ReturnType<typeof testClock>;
}

export function openTestTenant(options: Partial<TenantOptions> = {}): OpenedTenant {
  const { db, close } = openTenantDb(':memory:');
  onTestFinished(close);
  const clock = testClock();
  return { db, clock, tenant: createTenant(db, { clock, ...options }) };
}
