/** The operations on a tenant's keys and budgets, each in a transaction. */
import type { KeyOfTenant, Keys } from '../admit/keys.ts';
import type { Limits } from '../admit/limits.ts';
import type { BudgetTermsOfTenant } from '../ledger/budget-terms.ts';
import type { KeyRecord } from './key-contract.ts';
import type { Tenant } from './tenant-contract.ts';

interface Stages {
  readonly keys: Keys;
  readonly limits: Limits;
  readonly terms: BudgetTermsOfTenant;
}

type Run = <Result>(work: () => Result) => Promise<Result>;

export function keyOperations(
  stages: Stages,
  { run, runUnsynced, now }: { readonly run: Run; readonly runUnsynced: Run; now(): number },
): Pick<
  Tenant,
  'createKey' | 'updateKey' | 'key' | 'keys' | 'budgets' | 'budget' | 'setBudget' | 'removeBudget'
> {
  const { keys, limits, terms } = stages;
  return {
    createKey: (input) =>
      run(() => {
        const created = keys.create({ ...input, nowMs: now() });
        terms.setOfKey(created.keyId, input.budget ?? null, now());
        return withBudget(stages, created, now());
      }),
    updateKey: (keyId, change) =>
      run(() => {
        if (keys.get(keyId) === null) return null;
        keys.change(keyId, change);
        if (change.limits !== undefined) limits.setKeyLimits(keyId, change.limits);
        if (change.budget !== undefined) terms.setOfKey(keyId, change.budget, now());
        return keyRecord(stages, keyId, now());
      }),
    key: (keyId) => runUnsynced(() => keyRecord(stages, keyId, now())),
    keys: () =>
      runUnsynced(() => {
        const budgets = terms.ofKeys(now());
        return keys.list().map((key) => ({ ...key, budget: budgets.get(key.keyId) ?? null }));
      }),
    budgets: () => runUnsynced(() => terms.named(now())),
    budget: (name) => runUnsynced(() => terms.find(name, now())),
    setBudget: (name, to) => run(() => terms.setNamed(name, to, now())),
    removeBudget: (name) => run(() => terms.removeNamed(name)),
  };
}

function keyRecord(stages: Stages, keyId: string, nowMs: number): KeyRecord | null {
  const key = stages.keys.get(keyId);
  return key === null ? null : withBudget(stages, key, nowMs);
}

function withBudget({ terms }: Stages, key: KeyOfTenant, nowMs: number): KeyRecord {
  return { ...key, budget: terms.ofKey(key.keyId, nowMs) };
}
