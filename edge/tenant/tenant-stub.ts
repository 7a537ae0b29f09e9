/** A tenant whose database is somewhere else: each call is handed to whoever can reach it. */
import type { Tenant } from '../services.ts';

/** Finds the tenant, makes the one call, and lets go of it again. */
export type Reach = <Result>(use: (tenant: Tenant) => Promise<Result>) => Promise<Result>;

export function tenantDoor(reach: Reach): Tenant {
  return {
    admit: (input) => reach((tenant) => tenant.admit(input)),
    preadmit: (input) => reach((tenant) => tenant.preadmit(input)),
    placed: (input) => reach((tenant) => tenant.placed(input)),
    settle: (input) => reach((tenant) => tenant.settle(input)),
    prefixHits: (chain) => reach((tenant) => tenant.prefixHits(chain)),
    authorize: (key, scope) => reach((tenant) => tenant.authorize(key, scope)),
    admitFree: (key, scope) => reach((tenant) => tenant.admitFree(key, scope)),
    balance: () => reach((tenant) => tenant.balance()),
    usage: (page) => reach((tenant) => tenant.usage(page)),
    entries: (page) => reach((tenant) => tenant.entries(page)),
    openHolds: (olderThanMs) => reach((tenant) => tenant.openHolds(olderThanMs)),
    audit: () => reach((tenant) => tenant.audit()),
    createKey: (input) => reach((tenant) => tenant.createKey(input)),
    updateKey: (keyId, change) => reach((tenant) => tenant.updateKey(keyId, change)),
    keys: () => reach((tenant) => tenant.keys()),
    limits: () => reach((tenant) => tenant.limits()),
    setLimits: (limits) => reach((tenant) => tenant.setLimits(limits)),
    credit: (input) => reach((tenant) => tenant.credit(input)),
    uncredited: (sources) => reach((tenant) => tenant.uncredited(sources)),
    correct: (input) => reach((tenant) => tenant.correct(input)),
  };
}
