/**
 * The operations on a tenant's keys and budgets, each in a transaction. The operator may do all of
 * it; a key of scope admin gives nothing that it has not, and leaves the tenant an admin key.
 */
import { strict as assert } from 'node:assert';
import { isDeepStrictEqual } from 'node:util';
import { beyondRights } from '../admit/key-rights.ts';
import type { KeyDone, KeyRefusal } from './key-change-contract.ts';
import type { GivenTerms } from '../admit/key-rights.ts';
import { keysMax } from '../admit/keys.ts';
import type { KeyOfTenant, Keys } from '../admit/keys.ts';
import type { Limits } from '../admit/limits.ts';
import type { BudgetTermsOfTenant } from '../ledger/budget-terms.ts';
import type { AuditLog } from './audit-log.ts';
import type { Actor, KeyChange, KeyRecord, NewKey } from './key-contract.ts';
import type { Tenant } from './tenant-contract.ts';
import type { WebhookStages } from './webhook-operations.ts';

interface Stages {
  readonly keys: Keys;
  readonly limits: Limits;
  readonly terms: BudgetTermsOfTenant;
  readonly auditLog: AuditLog;
  readonly webhooks: WebhookStages;
}

type Run = <Result>(work: () => Result) => Promise<Result>;

export function keyOperations(
  stages: Stages,
  { run, runUnsynced, now }: { readonly run: Run; readonly runUnsynced: Run; now(): number },
): Pick<
  Tenant,
  'createKey' | 'updateKey' | 'key' | 'keys' | 'budgets' | 'budget' | 'setBudget' | 'removeBudget'
> {
  const { keys, terms, auditLog } = stages;
  const operator: Actor = { kind: 'operator' };
  return {
    createKey: (input, actor) => run(() => createKey(stages, input, { actor, nowMs: now() })),
    updateKey: (keyId, change, actor) =>
      run(() => updateKey(stages, { keyId, change }, { actor, nowMs: now() })),
    key: (keyId) => runUnsynced(() => keyRecord(stages, keyId, now())),
    keys: () =>
      runUnsynced(() => {
        const budgets = terms.ofKeys(now());
        return keys.list().map((key) => ({ ...key, budget: budgets.get(key.keyId) ?? null }));
      }),
    budgets: () => runUnsynced(() => terms.named(now())),
    budget: (name) => runUnsynced(() => terms.find(name, now())),
    setBudget: (name, to, actor = operator) =>
      run(() => {
        const set = terms.setNamed(name, to, now());
        const change = { actor, action: 'budget.put', object: name, nowMs: now() } as const;
        if (set.kind !== 'too-many') auditLog.note({ ...change, detail: { ...to } });
        return set;
      }),
    removeBudget: (name, actor = operator) =>
      run(() => {
        if (!terms.removeNamed(name)) return false;
        const change = { actor, action: 'budget.deleted', object: name, nowMs: now() } as const;
        auditLog.note({ ...change, detail: {} });
        return true;
      }),
  };
}

interface Act {
  readonly actor: Actor;
  readonly nowMs: number;
}

function createKey(stages: Stages, input: NewKey, { actor, nowMs }: Act): KeyDone {
  const { keys, terms, auditLog } = stages;
  const { keyId, secretHash: _, ...detail } = input;
  const { expiresAtMs = null, models = null, budget = null, scopes, limits } = input;
  const refusal = refusalOf(
    stages,
    { expiresAtMs, models, budget, scopes, limits },
    { actor, nowMs },
  );
  if (refusal !== null) return refused(refusal);
  const before = keyRecord(stages, keyId, nowMs);
  if (before !== null) {
    const isSame = keys.hasSecret(input) && isAskedFor(before, input);
    return isSame ? done(before) : refused({ kind: 'other-terms' });
  }
  if (keys.count() >= keysMax) return refused({ kind: 'too-many', keysMax });
  const created = keys.create({ ...input, nowMs });
  terms.setOfKey(keyId, budget, nowMs);
  auditLog.note({ actor, action: 'key.created', object: keyId, detail, nowMs });
  if (expiresAtMs !== null) stages.webhooks.onDue(nowMs);
  return done(withBudget(stages, created, nowMs));
}

function updateKey(
  stages: Stages,
  { keyId, change }: { readonly keyId: string; readonly change: KeyChange },
  { actor, nowMs }: Act,
): KeyDone | null {
  const { keys, limits, terms, auditLog } = stages;
  const before = keys.get(keyId);
  if (before === null) return null;
  const refusal = refusalOf(stages, change, { actor, nowMs });
  if (refusal !== null) return refused(refusal);
  const { expiresAtMs = null } = change;
  const isEnded = change.status === 'revoked' || (expiresAtMs !== null && expiresAtMs <= nowMs);
  if (actor.kind === 'key' && isEnded && isLastAdmin(keys.list(), before, nowMs)) {
    return refused({ kind: 'last-admin' });
  }
  keys.change(keyId, change);
  if (change.limits !== undefined) limits.setKeyLimits(keyId, change.limits);
  if (change.budget !== undefined) terms.setOfKey(keyId, change.budget, nowMs);
  auditLog.note({ actor, action: 'key.updated', object: keyId, detail: { ...change }, nowMs });
  if (expiresAtMs !== null) stages.webhooks.onDue(nowMs);
  const changed = keyRecord(stages, keyId, nowMs);
  assert(changed !== null, 'a key that was changed is there');
  return done(changed);
}

/** Says why who acts may not give those terms; the operator may. */
function refusalOf(stages: Stages, given: GivenTerms, { actor, nowMs }: Act): KeyRefusal | null {
  if (actor.kind === 'operator') return null;
  const refusal = stages.keys.refusal(actor.key, { scope: 'admin', nowMs });
  if (refusal !== null) return { kind: 'no-right', refusal };
  const giver = keyRecord(stages, actor.key.keyId, nowMs);
  assert(giver !== null, 'a key that may act is there');
  const beyond = beyondRights(giver, given);
  return beyond === null ? null : { kind: 'beyond', ...beyond };
}

function isLastAdmin(all: readonly KeyOfTenant[], key: KeyOfTenant, nowMs: number): boolean {
  const admins = all.filter(
    ({ status, scopes, expiresAtMs }) =>
      status === 'active' && scopes.includes('admin') && (expiresAtMs ?? Infinity) > nowMs,
  );
  return admins.length === 1 && admins[0]?.keyId === key.keyId;
}

/** true if the key is what the request asks for, apart from what was spent of its budget. */
function isAskedFor(key: KeyRecord, input: NewKey): boolean {
  const { budget = null } = input;
  const windows = key.budget?.windows.map(({ period, limitNanoUsd }) => ({ period, limitNanoUsd }));
  const termsOfKey = key.budget && { zone: key.budget.zone, windows };
  const asked = [
    input.label,
    new Set(input.scopes),
    input.priority ?? 'normal',
    input.weight ?? 1,
    input.limits,
    input.expiresAtMs ?? null,
    input.models ?? null,
    budget,
  ];
  const { label, scopes, priority, weight, limits, expiresAtMs, models } = key;
  const found = [label, new Set(scopes), priority, weight, limits, expiresAtMs, models, termsOfKey];
  return isDeepStrictEqual(asked, found);
}

function done(key: KeyRecord): KeyDone {
  return { kind: 'done', key };
}

function refused(why: KeyRefusal): KeyDone {
  return { kind: 'refused', why };
}

function keyRecord(stages: Stages, keyId: string, nowMs: number): KeyRecord | null {
  const key = stages.keys.get(keyId);
  return key === null ? null : withBudget(stages, key, nowMs);
}

function withBudget({ terms }: Stages, key: KeyOfTenant, nowMs: number): KeyRecord {
  return { ...key, budget: terms.ofKey(key.keyId, nowMs) };
}
