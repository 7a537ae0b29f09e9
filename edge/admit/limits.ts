/**
 * Requests and tokens per minute and requests at a time, per key and over the tenant; the tighter
 * one decides. Tokens are reserved at admission by an estimate (prompt bytes / 4 without what the
 * prefix index knows, plus the output limit) and corrected at settlement. The estimate, not the
 * upper bound of the hold: bytes are about four times the tokens and would cut a limit to a
 * quarter, while too low an estimate only becomes a debt that the next minutes pay.
 */
import { strict as assert } from 'node:assert';
import { eq, inArray, or, sql } from 'drizzle-orm';
import { quota } from '../../db/schema/tenant.ts';
import type { SyncDb } from '../../db/types.ts';
import type { RateLimits } from '../tenant/admission-contract.ts';
import type { KeyLimits } from '../tenant/key-contract.ts';
import { partsPerUnit } from './bucket.ts';
import type { LimitStatuses } from './limit-status.ts';
import {
  assertLimits,
  rateLimits,
  limitStatus,
  taken,
  tenantCeilings,
  withCeilings,
} from './limit-status.ts';

/** The owner of the tenant's own row; key ids are never empty. */
const tenantOwner = '';

/** Prepares its statements; call everything inside a transaction. */
export class Limits {
  readonly #db: SyncDb;
  readonly #statements: ReturnType<typeof prepareLimitsStatements>;

  constructor(db: SyncDb) {
    this.#db = db;
    this.#statements = prepareLimitsStatements(db);
  }

  /**
   * The limits of key and tenant as of now; writes only when the clock has gone back, to refill
   * from there.
   */
  look(keyId: string, nowMs: number): LimitStatuses {
    const rows = this.#statements.readBoth.all({ keyId });
    const key = rows.find((row) => row.owner === keyId);
    const tenant = rows.find((row) => row.owner === tenantOwner);
    assert(key !== undefined && tenant !== undefined, 'every key and the tenant have a quota row');
    if (rows.some(({ usedAtMs }) => usedAtMs !== null && usedAtMs > nowMs)) {
      this.#statements.turnBack.run({ tenantOwner, keyId, nowMs });
    }
    return {
      nowMs,
      key: limitStatus('key', key, nowMs),
      tenant: limitStatus('tenant', withCeilings(tenant), nowMs),
    };
  }

  /** Counts one more request in flight and takes its estimated tokens. */
  takeFor(statuses: LimitStatuses, tokens: number): RateLimits {
    const after = {
      key: taken(statuses.key, tokens),
      tenant: taken(statuses.tenant, tokens),
    };
    this.#statements.write.run({
      tenantOwner,
      keyId: after.key.owner,
      keyRequests: after.key.requests?.level ?? null,
      keyTokens: after.key.tokens?.level ?? null,
      tenantRequests: after.tenant.requests?.level ?? null,
      tenantTokens: after.tenant.tokens?.level ?? null,
      nowMs: statuses.nowMs,
    });
    return rateLimits(after);
  }

  /** Takes a request that is over as soon as it is admitted. */
  takeRequest(statuses: LimitStatuses): RateLimits {
    const state = this.takeFor(statuses, 0);
    this.giveBack({ keyId: statuses.key.owner, reserved: 0, used: 0 });
    return state;
  }

  /**
   * Ends a request in flight; tokens reserved beyond its usage go back, and missing ones are taken.
   */
  giveBack(request: { keyId: string; reserved: number; used: number }): void {
    const difference = (request.reserved - request.used) * partsPerUnit;
    assert(Number.isSafeInteger(difference), 'token counts are safe integers');
    this.#statements.release.run({ keyId: request.keyId, tenantOwner, difference });
  }

  #setLimits(owner: string, limits: KeyLimits): void {
    assertLimits(limits);
    const row = this.#db.select().from(quota).where(eq(quota.owner, owner)).get();
    assert(row !== undefined, 'limits are set on an owner that exists');
    this.#db
      .update(quota)
      .set({
        ...limits,
        // A limit that goes takes its bucket with it; one that comes starts with a full bucket.
        requestsLevel: limits.requestsPerMinute === null ? null : row.requestsLevel,
        tokensLevel: limits.tokensPerMinute === null ? null : row.tokensLevel,
      })
      .where(eq(quota.owner, owner))
      .run();
  }

  /** The tenant's own limits; their row is there from the first migration on. */
  tenantLimits(): KeyLimits {
    const row = this.#db.select().from(quota).where(eq(quota.owner, tenantOwner)).get();
    assert(row !== undefined, 'the tenant has a quota row');
    const { requestsPerMinute, tokensPerMinute, concurrentRequests } = row;
    return { requestsPerMinute, tokensPerMinute, concurrentRequests };
  }

  setKeyLimits(keyId: string, limits: KeyLimits): void {
    this.#setLimits(keyId, limits);
  }

  setTenantLimits(limits: KeyLimits): void {
    this.#setLimits(tenantOwner, limits);
  }
}

function prepareLimitsStatements(db: SyncDb) {
  const readBoth = db
    .select()
    .from(quota)
    .where(or(eq(quota.owner, tenantOwner), eq(quota.owner, sql.placeholder('keyId'))))
    .prepare();
  const levelOf = (ofTenant: string, ofKey: string) =>
    sql`iif(${quota.owner} = ${tenantOwner}, ${sql.placeholder(ofTenant)}, ${sql.placeholder(ofKey)})`;
  const write = db
    .update(quota)
    .set({
      requestsLevel: levelOf('tenantRequests', 'keyRequests'),
      tokensLevel: levelOf('tenantTokens', 'keyTokens'),
      usedAtMs: sql`${sql.placeholder('nowMs')}`,
      inFlight: sql`${quota.inFlight} + 1`,
    })
    .where(inArray(quota.owner, [sql.placeholder('tenantOwner'), sql.placeholder('keyId')]))
    .prepare();
  const turnBack = db
    .update(quota)
    .set({ usedAtMs: sql`min(${quota.usedAtMs}, ${sql.placeholder('nowMs')})` })
    .where(inArray(quota.owner, [sql.placeholder('tenantOwner'), sql.placeholder('keyId')]))
    .prepare();
  // A level of null is a full bucket or none, and stays so: min() with NULL is NULL.
  const release = db
    .update(quota)
    .set({
      inFlight: sql`${quota.inFlight} - 1`,
      tokensLevel: sql`min(${quota.tokensLevel} + ${sql.placeholder('difference')},
        coalesce(${quota.tokensPerMinute}, ${tenantCeilings.tokensPerMinute}) * ${partsPerUnit})`,
    })
    .where(inArray(quota.owner, [sql.placeholder('tenantOwner'), sql.placeholder('keyId')]))
    .prepare();
  return { readBoth, write, turnBack, release };
}
