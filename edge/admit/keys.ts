/**
 * The tenant's API keys: what they may do and whether they still may. The mac was checked before.
 */
import { strict as assert } from 'node:assert';
import { asc, count, eq, sql } from 'drizzle-orm';
import { apiKey, quota } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { Refusal } from '../tenant/admission-contract.ts';
import type { KeyChange, KeyRecord, NewKey, Scope, VerifiedKey } from '../tenant/key-contract.ts';
import { hasScope } from './key-rights.ts';
import { assertLimits } from './limit-status.ts';

const scopes: readonly Scope[] = ['inference', 'read', 'admin'];
export const keysMax = 10_000;
export const keyWeightMax = 1_000;
/** Models that a key may be allowed. */
export const keyModelsMax = 100;

type KeyRow = typeof apiKey.$inferSelect;

/** The columns that a request goes by, of the key that may make it. */
export type KeyInForce = Pick<KeyRow, 'priority' | 'weight' | 'hasBudget'>;

/** A key without its budget. */
export type KeyOfTenant = Omit<KeyRecord, 'budget'>;

/** A request as far as it is asked whether its key may make it. */
export interface KeyUse {
  readonly scope: Scope;
  /** The id of the model that it runs, whatever it was asked for as; absent: it runs none. */
  readonly model?: string;
  readonly nowMs: number;
}

/** Call everything inside a transaction. */
export class Keys {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareKeysStatements>;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#statements = prepareKeysStatements(db);
  }

  /**
   * Returns null when the key may. Unknown, wrong and revoked keys get one answer. Comparing the
   * hashes needs no constant time: who chooses the secret cannot choose a prefix of its SHA-256.
   */
  refusal(key: VerifiedKey, use: KeyUse): Refusal | null {
    return this.check(key, use).refusal;
  }

  /** Returns the same, and what a request goes by of a key that may. */
  check(
    key: VerifiedKey,
    { scope, model, nowMs }: KeyUse,
  ): { refusal: Refusal } | { refusal: null; inForce: KeyInForce } {
    const row = this.#statements.find.get({ keyId: key.keyId });
    if (row === undefined || row.status !== 'active' || row.secretHash !== key.secretHash) {
      return { refusal: { kind: 'bad-key' } };
    }
    const { expiresAtMs, models } = row;
    if (expiresAtMs !== null && expiresAtMs <= nowMs) {
      return { refusal: { kind: 'expired-key', expiredAtMs: expiresAtMs } };
    }
    if (!hasScope(row.scopes, scope)) return { refusal: { kind: 'no-scope', scope } };
    if (model !== undefined && models !== null && !models.includes(model)) {
      return { refusal: { kind: 'model-not-allowed', model, models } };
    }
    return { refusal: null, inForce: row };
  }

  /** Throws when the id is taken: ids are random. */
  create(input: NewKey & { readonly nowMs: number }): KeyOfTenant {
    const { keyId, secretHash, label, limits } = input;
    assert(keyId !== '', 'a key has an id');
    assert(/^[0-9a-f]{64}$/.test(secretHash), 'the hash of a secret is SHA-256 in hex');
    assertLimits(limits);
    assert(this.count() < keysMax, `a tenant has at most ${keysMax} keys`);
    this.#db
      .insert(apiKey)
      .values({
        keyId,
        secretHash,
        label,
        status: 'active',
        scopes: scopes.filter((scope) => input.scopes.includes(scope)),
        ...termsOf(input),
        createdAtMs: input.nowMs,
      })
      .run();
    this.#db
      .insert(quota)
      .values({ owner: keyId, ...limits, inFlight: 0 })
      .run();
    return this.#required(keyId);
  }

  /** A revoked key stays revoked; its row stays, because entries name it. */
  change(keyId: string, to: KeyChange): void {
    const { status, label } = to;
    const set = {
      ...(status !== undefined && { status }),
      ...(label !== undefined && { label }),
      ...termsOf(to),
    };
    if (Object.keys(set).length === 0) return;
    this.#db.update(apiKey).set(set).where(eq(apiKey.keyId, keyId)).run();
  }

  /** true if the key of that id has that secret. */
  hasSecret({ keyId, secretHash }: Pick<NewKey, 'keyId' | 'secretHash'>): boolean {
    return this.#statements.find.get({ keyId })?.secretHash === secretHash;
  }

  count(): number {
    const counted = this.#db.select({ keys: count() }).from(apiKey).get();
    assert(counted !== undefined, 'a count is a row');
    return counted.keys;
  }

  list(): KeyOfTenant[] {
    return this.#records().orderBy(asc(apiKey.createdAtMs), asc(apiKey.keyId)).all().map(toRecord);
  }

  get(keyId: string): KeyOfTenant | null {
    const row = this.#records().where(eq(apiKey.keyId, keyId)).get();
    return row === undefined ? null : toRecord(row);
  }

  #required(keyId: string): KeyOfTenant {
    const record = this.get(keyId);
    assert(record !== null, 'the key is there');
    return record;
  }

  #records() {
    return this.#db
      .select()
      .from(apiKey)
      .innerJoin(quota, eq(quota.owner, apiKey.keyId))
      .$dynamic();
  }
}

function prepareKeysStatements(db: SyncDb) {
  const find = db
    .select({
      secretHash: apiKey.secretHash,
      status: apiKey.status,
      scopes: apiKey.scopes,
      priority: apiKey.priority,
      weight: apiKey.weight,
      expiresAtMs: apiKey.expiresAtMs,
      models: apiKey.models,
      hasBudget: apiKey.hasBudget,
    })
    .from(apiKey)
    .where(eq(apiKey.keyId, sql.placeholder('keyId')))
    .prepare();
  return { find };
}

/** The columns of what is set of a key; a budget stands elsewhere. */
function termsOf({ priority, weight, expiresAtMs, models, budget }: KeyChange) {
  const isWeight = weight === undefined || (Number.isInteger(weight) && weight >= 1);
  assert(isWeight && (weight ?? 1) <= keyWeightMax, `a weight is from 1 to ${keyWeightMax}`);
  assert((models?.length ?? 0) <= keyModelsMax, `a key has at most ${keyModelsMax} models`);
  return {
    ...(priority !== undefined && { priority }),
    ...(weight !== undefined && { weight }),
    ...(expiresAtMs !== undefined && { expiresAtMs }),
    ...(models !== undefined && { models }),
    ...(budget !== undefined && { hasBudget: budget !== null }),
  };
}

function toRecord(row: {
  readonly api_key: KeyRow;
  readonly quota: typeof quota.$inferSelect;
}): KeyOfTenant {
  const { api_key: key, quota: limits } = row;
  return {
    keyId: key.keyId,
    label: key.label,
    status: key.status,
    scopes: scopes.filter((scope) => key.scopes.includes(scope)),
    priority: key.priority,
    weight: key.weight,
    expiresAtMs: key.expiresAtMs,
    models: key.models,
    limits: {
      requestsPerMinute: limits.requestsPerMinute,
      tokensPerMinute: limits.tokensPerMinute,
      concurrentRequests: limits.concurrentRequests,
    },
    createdAtMs: key.createdAtMs,
    lastUsedAtMs: limits.usedAtMs,
  };
}
