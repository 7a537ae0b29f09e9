/**
 * The directory as every request reads it: model, price and tenant out of memory. A runtime whose
 * writes all pass through here sees them at once, and so do its other threads once a write is
 * answered; others see them when `ttlMs` is over, so there a suspension or a new price acts that
 * much later.
 */
import { priceInForce } from './directory.ts';
import type { KnownTime } from './known-time.ts';
import type {
  Directory,
  ModelAlias,
  ModelRecord,
  PriceRecord,
  TenantRecord,
} from './directory-contract.ts';

const tenantsMax = 10_000;

/** The part of the directory that a write has changed. */
export type DirectoryChange =
  | { readonly kind: 'models' | 'aliases' | 'prices' }
  | { readonly kind: 'tenant'; readonly id: string };

export interface CachedDirectory extends Directory {
  /** Another thread has changed it. */
  forget(change: DirectoryChange): void;
}

export function cacheDirectory(
  directory: Directory,
  options: {
    readonly clock: { nowMs(): number };
    readonly ttlMs: number;
    /** Needed where the clock may be set back; without it prices go by the clock alone. */
    readonly knownTime?: KnownTime;
    /** Tells the other threads, before the write is answered. */
    readonly tellOthers?: (change: DirectoryChange) => Promise<void>;
  },
): CachedDirectory {
  const models = createCache<ModelRecord[]>(options, 1);
  const aliases = createCache<ModelAlias[]>(options, 1);
  const prices = createCache<PriceRecord[]>(options, 1);
  const tenants = createCache<TenantRecord | null>(options, tenantsMax);
  const forget = (change: DirectoryChange): void => {
    if (change.kind === 'tenant') tenants.forget(change.id);
    else ({ models, aliases, prices })[change.kind].forget('');
  };
  const write = async <Result>(
    change: DirectoryChange,
    work: () => Promise<Result>,
  ): Promise<Result> => {
    const result = await work();
    forget(change);
    await options.tellOthers?.(change);
    return result;
  };

  return {
    ...directory,
    forget,
    models: () => models.read('', () => directory.models()),
    async priceAt(model, atMs) {
      const rows = await prices.read('', () => directory.prices(null));
      // The directory lists prices from the earliest on; the latest is in force.
      const ofModel = rows.filter((row) => row.model === model).toReversed();
      const inForce = (ms: number) =>
        priceInForce(
          ofModel.filter(({ fromMs }) => fromMs <= ms),
          ms,
        );
      const { knownTime } = options;
      if (knownTime === undefined) return inForce(atMs);
      // A clock that is years behind knows of no price; the last one known is better than none.
      return inForce(knownTime.of(atMs)) ?? inForce(knownTime.latestMs() ?? atMs);
    },
    tenant: (id) => tenants.read(id, () => directory.tenant(id)),
    putModel: (model) => write({ kind: 'models' }, () => directory.putModel(model)),
    aliases: () => aliases.read('', () => directory.aliases()),
    putAlias: (alias) => write({ kind: 'aliases' }, () => directory.putAlias(alias)),
    removeAlias: (name) => write({ kind: 'aliases' }, () => directory.removeAlias(name)),
    addPrice: (price) => write({ kind: 'prices' }, () => directory.addPrice(price)),
    createTenant: (tenant) =>
      write({ kind: 'tenant', id: tenant.id }, () => directory.createTenant(tenant)),
    setTenantStatus: (id, status) =>
      write({ kind: 'tenant', id }, () => directory.setTenantStatus(id, status)),
    setTenantWeight: (id, weight) =>
      write({ kind: 'tenant', id }, () => directory.setTenantWeight(id, weight)),
  };
}

interface Cache<Value> {
  read(key: string, load: () => Promise<Value>): Promise<Value>;
  forget(key: string): void;
}

/**
 * Keeps values, never promises: in workerd a promise belongs to the request that made it. So two
 * requests that miss at once both load.
 */
function createCache<Value>(
  { clock, ttlMs }: { readonly clock: { nowMs(): number }; readonly ttlMs: number },
  sizeMax: number,
): Cache<Value> {
  const cached = new Map<string, { readonly value: Value; readonly readAtMs: number }>();
  let writes = 0;
  return {
    async read(key, load) {
      const known = cached.get(key);
      // An age below 0 means that the clock was set back, and the age is unknown.
      const ageMs = known === undefined ? -1 : clock.nowMs() - known.readAtMs;
      const isFresh = ttlMs === Infinity || (ageMs >= 0 && ageMs < ttlMs);
      if (known !== undefined && isFresh) return known.value;
      const writesBefore = writes;
      const value = await load();
      // A write that happened meanwhile may be missing from what was loaded.
      if (writes !== writesBefore) return value;
      const [oldest] = cached.keys();
      if (cached.size >= sizeMax && oldest !== undefined) cached.delete(oldest);
      cached.set(key, { value, readAtMs: clock.nowMs() });
      return value;
    },
    forget(key) {
      writes++;
      cached.delete(key);
    },
  };
}
