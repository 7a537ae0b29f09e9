/**
 * The directory as every request reads it: model, price and tenant out of memory. A runtime whose
 * writes all pass through here sees them at once; others see them when `ttlMs` is over, so there a
 * suspension or a new price acts that much later.
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

export function cacheDirectory(
  directory: Directory,
  options: {
    readonly clock: { nowMs(): number };
    readonly ttlMs: number;
    /** Needed where the clock may be set back; without it prices go by the clock alone. */
    readonly knownTime?: KnownTime;
  },
): Directory {
  const models = createCache<ModelRecord[]>(options, 1);
  const aliases = createCache<ModelAlias[]>(options, 1);
  const prices = createCache<PriceRecord[]>(options, 1);
  const tenants = createCache<TenantRecord | null>(options, tenantsMax);

  return {
    ...directory,
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
    async putModel(model) {
      await directory.putModel(model);
      models.forget('');
    },
    aliases: () => aliases.read('', () => directory.aliases()),
    async putAlias(alias) {
      await directory.putAlias(alias);
      aliases.forget('');
    },
    async removeAlias(name) {
      const removed = await directory.removeAlias(name);
      aliases.forget('');
      return removed;
    },
    async addPrice(price) {
      await directory.addPrice(price);
      prices.forget('');
    },
    async createTenant(tenant) {
      const created = await directory.createTenant(tenant);
      tenants.forget(tenant.id);
      return created;
    },
    async setTenantStatus(id, status) {
      const changed = await directory.setTenantStatus(id, status);
      tenants.forget(id);
      return changed;
    },
    async setTenantWeight(id, weight) {
      const changed = await directory.setTenantWeight(id, weight);
      tenants.forget(id);
      return changed;
    },
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
