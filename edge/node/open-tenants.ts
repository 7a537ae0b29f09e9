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

export interface OpenTenantsOptions {
  /** Throws when the database cannot be opened; what is locked is tried again. */
  readonly open: (id: string) => OpenTenant;
  readonly openMax: number;
}

export function createOpenTenants(options: OpenTenantsOptions): OpenTenants {
  return new OpenFiles(options);
}

type Work<Result> = (tenant: Tenant) => Promise<Result>;

class OpenFiles implements OpenTenants {
  readonly #options: OpenTenantsOptions;
  /** A Map remembers the order of insertion, and an entry that is used is inserted anew. */
  readonly #entries = new Map<string, Entry>();
  readonly #opening = new Map<string, Promise<Entry>>();
  readonly #used = new Set<string>();
  #callsUnderWay = 0;
  #closed = false;
  #whenIdle: (() => void) | null = null;

  constructor(options: OpenTenantsOptions) {
    this.#options = options;
  }

  tenant(id: string): Tenant {
    return tenantStub((work) => {
      this.#used.add(id);
      return this.#call(id, work);
    });
  }

  tenantForUpkeep(id: string): Tenant {
    return tenantStub((work) => this.#call(id, work));
  }

  openCount(): number {
    return this.#entries.size;
  }

  takeUsedIds(): string[] {
    const ids = [...this.#used];
    this.#used.clear();
    return ids;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
    this.#closeUnused(this.#entries.size);
  }

  async #call<Result>(id: string, work: Work<Result>): Promise<Result> {
    if (this.#closed) throw new Error('the edge is stopping');
    this.#callsUnderWay++;
    try {
      return await this.#use(id, work);
    } catch (error) {
      const found = unavailable(error);
      throw found === null ? error : new TenantUnavailable(id, found);
    } finally {
      this.#callsUnderWay--;
      if (this.#whenIdle !== null && this.#callsUnderWay === 0) this.#whenIdle();
    }
  }

  async #use<Result>(id: string, work: Work<Result>): Promise<Result> {
    // A database may be closed again, for others, before all who waited for it have had their turn.
    let entry = this.#findCurrent(id);
    while (entry === undefined) {
      await this.#open(id);
      entry = this.#findCurrent(id);
    }
    this.#entries.delete(id);
    this.#entries.set(id, entry);
    entry.calls++;
    try {
      return await work(entry.opened.tenant);
    } finally {
      this.#release(id, entry);
    }
  }

  /**
   * Opens a tenant; all who ask for one that is not open yet wait for the one call that opens it.
   */
  #open(id: string): Promise<Entry> {
    const begun =
      this.#opening.get(id) ??
      whenUnlocked(async () => {
        const entry = { opened: this.#options.open(id), calls: 0, checkedAtMs: performance.now() };
        this.#entries.set(id, entry);
        return entry;
      }).finally(() => this.#opening.delete(id));
    this.#opening.set(id, begun);
    return begun;
  }

  /**
   * Finds an open tenant whose file is still there. Writes to a file that has no name any more
   * would be lost without a word.
   */
  #findCurrent(id: string): Entry | undefined {
    const entry = this.#entries.get(id);
    if (entry === undefined || performance.now() - entry.checkedAtMs < checkEveryMs) return entry;
    entry.checkedAtMs = performance.now();
    if (entry.opened.isCurrent()) return entry;
    this.#entries.delete(id);
    if (entry.calls === 0) entry.opened.close();
    return undefined;
  }

  #release(id: string, entry: Entry): void {
    entry.calls--;
    if (this.#entries.get(id) !== entry && entry.calls === 0) entry.opened.close();
    const tooMany = this.#entries.size - this.#options.openMax;
    if (tooMany > 0) this.#closeUnused(tooMany);
  }

  #closeUnused(count: number): void {
    let left = count;
    for (const [id, entry] of this.#entries) {
      if (left === 0) return;
      if (entry.calls > 0) continue;
      this.#entries.delete(id);
      entry.opened.close();
      left--;
    }
  }
}
