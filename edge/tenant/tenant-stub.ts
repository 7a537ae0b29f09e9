/** A tenant whose database is somewhere else: each call is handed to whoever can withTenant it. */
import type { Tenant } from './tenant-contract.ts';

/** Finds the tenant, makes the one call, and lets go of it again. */
export type WithTenant = <Result>(use: (tenant: Tenant) => Promise<Result>) => Promise<Result>;

export function tenantStub(withTenant: WithTenant): Tenant {
  return {
    admit: (input) => withTenant((tenant) => tenant.admit(input)),
    preadmit: (input) => withTenant((tenant) => tenant.preadmit(input)),
    placed: (input) => withTenant((tenant) => tenant.placed(input)),
    settle: (input) => withTenant((tenant) => tenant.settle(input)),
    prefixHits: (chain) => withTenant((tenant) => tenant.prefixHits(chain)),
    authorize: (key, scope) => withTenant((tenant) => tenant.authorize(key, scope)),
    admitFree: (key, scope) => withTenant((tenant) => tenant.admitFree(key, scope)),
    balance: () => withTenant((tenant) => tenant.balance()),
    usage: (page) => withTenant((tenant) => tenant.usage(page)),
    entries: (page) => withTenant((tenant) => tenant.entries(page)),
    openHolds: (olderThanMs) => withTenant((tenant) => tenant.openHolds(olderThanMs)),
    audit: () => withTenant((tenant) => tenant.audit()),
    createKey: (input) => withTenant((tenant) => tenant.createKey(input)),
    updateKey: (keyId, change) => withTenant((tenant) => tenant.updateKey(keyId, change)),
    keys: () => withTenant((tenant) => tenant.keys()),
    limits: () => withTenant((tenant) => tenant.limits()),
    setLimits: (limits) => withTenant((tenant) => tenant.setLimits(limits)),
    credit: (input) => withTenant((tenant) => tenant.credit(input)),
    uncredited: (sources) => withTenant((tenant) => tenant.uncredited(sources)),
    correct: (input) => withTenant((tenant) => tenant.correct(input)),
  };
}
