/**
 * The tenant's API keys: what they may do and whether they still may. The mac was checked before.
 */
import { strict as assert } from 'node:assert';
import { asc, count, eq, sql } from 'drizzle-orm';
import { apiKey, quota } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { Refusal } from '../tenant/admission-contract.ts';
import type { KeyLimits, KeyRecord, Priority, Scope, VerifiedKey } from '../tenant/key-contract.ts';
import { assertLimits } from './limit-status.ts';

const scopes: readonly Scope[] = ['inference', 'read', 'admin'];
export const keysMax = 10_000;

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
  refusal(key: VerifiedKey, scope: Scope): Refusal | null {
    return this.check(key, scope).refusal;
  }

  /** Returns the same, and the priority of a key that may. */
  check(
    key: VerifiedKey,
    scope: Scope,
  ): { refusal: Refusal } | { refusal: null; priority: Priority } {
    const row = this.#statements.find.get({ keyId: key.keyId });
    if (row === undefined || row.status !== 'active' || row.secretHash !== key.secretHash) {
      return { refusal: { kind: 'bad-key' } };
    }
    const { priority } = row;
    const isInScope = row.scopes.includes(scope);
    return isInScope ? { refusal: null, priority } : { refusal: { kind: 'no-scope', scope } };
  }

  /** Throws when the id is taken: ids are random. */
  create(input: {
    readonly keyId: string;
    readonly secretHash: string;
    readonly label: string;
    readonly scopes: readonly Scope[];
    readonly priority?: Priority;
    readonly limits: KeyLimits;
    readonly nowMs: number;
  }): KeyRecord {
    const { keyId, secretHash, label, limits } = input;
    assert(keyId !== '', 'a key has an id');
    assert(/^[0-9a-f]{64}$/.test(secretHash), 'the hash of a secret is SHA-256 in hex');
    assertLimits(limits);
    const counted = this.#db.select({ keys: count() }).from(apiKey).get();
    assert(counted !== undefined, 'a count is a row');
    assert(counted.keys < keysMax, `a tenant has at most ${keysMax} keys`);
    this.#db
      .insert(apiKey)
      .values({
        keyId,
        secretHash,
        label,
        status: 'active',
        scopes: scopes.filter((scope) => input.scopes.includes(scope)),
        ...(input.priority && { priority: input.priority }),
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
  change(
    keyId: string,
    to: { readonly status?: 'revoked'; readonly label?: string; readonly priority?: Priority },
  ): void {
    const { status, label, priority } = to;
    if (status === undefined && label === undefined && priority === undefined) return;
    this.#db.update(apiKey).set({ status, label, priority }).where(eq(apiKey.keyId, keyId)).run();
  }

  list(): KeyRecord[] {
    return this.#records().orderBy(asc(apiKey.createdAtMs), asc(apiKey.keyId)).all().map(toRecord);
  }

  get(keyId: string): KeyRecord | null {
    const row = this.#records().where(eq(apiKey.keyId, keyId)).get();
    return row === undefined ? null : toRecord(row);
  }

  #required(keyId: string): KeyRecord {
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
    })
    .from(apiKey)
    .where(eq(apiKey.keyId, sql.placeholder('keyId')))
    .prepare();
  return { find };
}

function toRecord(row: {
  readonly api_key: typeof apiKey.$inferSelect;
  readonly quota: typeof quota.$inferSelect;
}): KeyRecord {
  const { api_key: key, quota: limits } = row;
  return {
    keyId: key.keyId,
    label: key.label,
    status: key.status,
    scopes: scopes.filter((scope) => key.scopes.includes(scope)),
    priority: key.priority,
    limits: {
      requestsPerMinute: limits.requestsPerMinute,
      tokensPerMinute: limits.tokensPerMinute,
      concurrentRequests: limits.concurrentRequests,
    },
    createdAtMs: key.createdAtMs,
    lastUsedAtMs: limits.usedAtMs,
  };
}
