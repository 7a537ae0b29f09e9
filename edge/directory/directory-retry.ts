/**
 * The directory on Node, whose file another process may lock for a moment, to copy it say. Every
 * change of it is one statement, so what met a lock has done nothing and is tried again.
 */
import { whenUnlocked } from '../../db/unavailable.ts';
import type { Directory } from './directory-contract.ts';

export function waitForLocks(directory: Directory): Directory {
  return {
    checkWritable: () => whenUnlocked(() => directory.checkWritable()),
    models: () => whenUnlocked(() => directory.models()),
    putModel: (model) => whenUnlocked(() => directory.putModel(model)),
    aliases: () => whenUnlocked(() => directory.aliases()),
    putAlias: (alias) => whenUnlocked(() => directory.putAlias(alias)),
    removeAlias: (name) => whenUnlocked(() => directory.removeAlias(name)),
    priceAt: (model, atMs) => whenUnlocked(() => directory.priceAt(model, atMs)),
    prices: (model) => whenUnlocked(() => directory.prices(model)),
    addPrice: (price) => whenUnlocked(() => directory.addPrice(price)),
    tenant: (id) => whenUnlocked(() => directory.tenant(id)),
    tenants: () => whenUnlocked(() => directory.tenants()),
    createTenant: (tenant) => whenUnlocked(() => directory.createTenant(tenant)),
    setTenantStatus: (id, status) => whenUnlocked(() => directory.setTenantStatus(id, status)),
    setTenantWeight: (id, weight) => whenUnlocked(() => directory.setTenantWeight(id, weight)),
    noteEvent: (event) => whenUnlocked(() => directory.noteEvent(event)),
    knowsEvent: (id) => whenUnlocked(() => directory.knowsEvent(id)),
    beginPayment: (payment) => whenUnlocked(() => directory.beginPayment(payment)),
    endPayment: (source) => whenUnlocked(() => directory.endPayment(source)),
    creditedPayments: (page) => whenUnlocked(() => directory.creditedPayments(page)),
  };
}
