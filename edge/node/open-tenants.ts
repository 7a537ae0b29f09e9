/**
 * The tenants whose databases are open in this process. A file costs descriptors and cache, so only
 * so many stay open; the one that was longest unused, and that nobody is using, is closed first.
 */
import { unavailable, whenUnlocked } from '../../db/unavailable.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { tenantStub } from '../tenant/tenant-stub.ts';
import { TenantUnavailable } from '../tenant/tenant-unavailable.ts';

export interface OpenTenant {
  readonly tenant: Tenant;
  /** false: its file is not the one that was opened any more. */
  isCurrent(): boolean;
  close(): void;
}

export interface OpenTenants {
  /** Opens nothing yet: the first call does. The tenant stays valid when its database is closed. */
  tenant(id: string): Tenant;
  openCount(): number;
  /** Gives the tenant to the process's own upkeep, which does not count as use. */
  tenantForUpkeep(id: string): Tenant;
  /** Tenants used since this was last asked. */
  takeUsedIds(): string[];
  /** Waits for the calls that are under way, then closes everything. Later calls fail. */
  close(): Promise<void>;
}

interface Entry {
  readonly opened: OpenTenant;
  calls: number;
  checkedAtMs: number;
}

/** A file that was removed or replaced is noticed after this long; to look costs microseconds. */
const checkEveryMs = 250;

export function createOpenTenants(options: {
  /** Throws when the database cannot be opened; what is locked is tried again. */
  readonly open: (id: string) => OpenTenant;
  readonly openMax: number;
}): OpenTenants {
  // A Map remembers the order of insertion, and an entry that is used is inserted anew.
  const entries = new Map<string, Entry>();
  const opening = new Map<string, Promise<Entry>>();
  const used = new Set<string>();
  let callsUnderWay = 0;
  let closed = false;
  let whenIdle: (() => void) | null = null;

  /**
   * Opens a tenant; all who ask for one that is not open yet wait for the one call that opens it.
   */
  const open = (id: string): Promise<Entry> => {
    const begun =
      opening.get(id) ??
      whenUnlocked(async () => {
        const entry = { opened: options.open(id), calls: 0, checkedAtMs: performance.now() };
        entries.set(id, entry);
        return entry;
      }).finally(() => opening.delete(id));
    opening.set(id, begun);
    return begun;
  };

  /**
   * Finds an open tenant whose file is still there. Writes to a file that has no name any more
   * would be lost without a word.
   */
  const findCurrent = (id: string): Entry | undefined => {
    const entry = entries.get(id);
    if (entry === undefined || performance.now() - entry.checkedAtMs < checkEveryMs) return entry;
    entry.checkedAtMs = performance.now();
    if (entry.opened.isCurrent()) return entry;
    entries.delete(id);
    if (entry.calls === 0) entry.opened.close();
    return undefined;
  };

  const release = (id: string, entry: Entry): void => {
    entry.calls--;
    if (entries.get(id) !== entry && entry.calls === 0) entry.opened.close();
    if (entries.size > options.openMax) closeUnused(entries.size - options.openMax);
  };

  const closeUnused = (count: number): void => {
    let left = count;
    for (const [id, entry] of entries) {
      if (left === 0) return;
      if (entry.calls > 0) continue;
      entries.delete(id);
      entry.opened.close();
      left--;
    }
  };

  const use = async <Result>(id: string, work: (tenant: Tenant) => Promise<Result>) => {
    // A database may be closed again, for others, before all who waited for it have had their turn.
    let entry = findCurrent(id);
    while (entry === undefined) {
      await open(id);
      entry = findCurrent(id);
    }
    entries.delete(id);
    entries.set(id, entry);
    entry.calls++;
    try {
      return await work(entry.opened.tenant);
    } finally {
      release(id, entry);
    }
  };

  const call = async <Result>(id: string, work: (tenant: Tenant) => Promise<Result>) => {
    if (closed) throw new Error('the edge is stopping');
    callsUnderWay++;
    try {
      return await use(id, work);
    } catch (error) {
      const found = unavailable(error);
      throw found === null ? error : new TenantUnavailable(id, found);
    } finally {
      callsUnderWay--;
      if (whenIdle !== null && callsUnderWay === 0) whenIdle();
    }
  };

  return {
    tenant: (id) =>
      tenantStub((work) => {
        used.add(id);
        return call(id, work);
      }),
    tenantForUpkeep: (id) => tenantStub((work) => call(id, work)),
    openCount: () => entries.size,
    takeUsedIds() {
      const ids = [...used];
      used.clear();
      return ids;
    },
    async close() {
      closed = true;
      if (callsUnderWay > 0) await new Promise<void>((resolve) => (whenIdle = resolve));
      closeUnused(entries.size);
    },
  };
}
