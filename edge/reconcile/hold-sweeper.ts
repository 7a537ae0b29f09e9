/**
 * Finds the tenants that may have holds that nobody resolves: all of them when the process starts,
 * since it may have died in mid-request, then those that were used since or still had an open hold
 * last time.
 */
import type { Services } from '../services.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { reconcileHolds } from './reconcile-holds.ts';

export interface HoldSweeper {
  /** Looks at each of them once. A tenant that fails is logged and looked at again. */
  sweep(): Promise<void>;
}

export function createHoldSweeper(options: {
  readonly services: Services;
  /** true for the tenants whose holds this sweeper looks at. */
  readonly owns: (id: string) => boolean;
  /** The stub of a tenant, whose use does not count in `usedIds`. */
  readonly tenant: (id: string) => Tenant;
  /** Holds older than this are resolved. */
  readonly holdMs: number;
  /** Tenants used since it was last asked. */
  readonly usedIds: () => readonly string[];
}): HoldSweeper {
  const { services, holdMs, owns } = options;
  let watched: Set<string> | null = null;

  const keep = async (id: string): Promise<boolean> => {
    const tenant = options.tenant(id);
    const { clock, fetch, log, settings } = services;
    const { workerToken } = settings;
    await reconcileHolds({ tenant, clock, fetch, workerToken, log }, holdMs);
    return (await tenant.openHolds(0)).length > 0;
  };

  return {
    async sweep() {
      watched ??= new Set((await services.directory.tenants()).map(({ id }) => id).filter(owns));
      for (const id of options.usedIds()) watched.add(id);
      for (const id of watched) {
        try {
          if (!(await keep(id))) watched.delete(id);
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          services.log('warn', 'hold-sweep-failed', { tenant: id, reason });
        }
      }
    },
  };
}
