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

export type Limits = ReturnType<typeof createLimits>;

/** Prepares its statements; call everything inside a transaction. */
export function createLimits(db: SyncDb) {
  const readBoth = db
    .select()
    .from(quota)
    .where(or(eq(quota.owner, tenantOwner), eq(quota.owner, sql.placeholder('keyId'))))
    .prepare();
  const write = db
    .update(quota)
    .set({
      requestsLevel: sql`${sql.placeholder('requestsLevel')}`,
      tokensLevel: sql`${sql.placeholder('tokensLevel')}`,
      usedAtMs: sql`${sql.placeholder('nowMs')}`,
      inFlight: sql`${quota.inFlight} + 1`,
    })
    .where(eq(quota.owner, sql.placeholder('owner')))
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

  /** Where key and tenant stand now; writes only when the clock has gone back, to refill from there. */
  function look(keyId: string, nowMs: number): LimitStatuses {
    const rows = readBoth.all({ keyId });
    const key = rows.find((row) => row.owner === keyId);
    const tenant = rows.find((row) => row.owner === tenantOwner);
    assert(key !== undefined && tenant !== undefined, 'every key and the tenant have a quota row');
    if (rows.some(({ usedAtMs }) => usedAtMs !== null && usedAtMs > nowMs)) {
      turnBack.run({ tenantOwner, keyId, nowMs });
    }
    return {
      nowMs,
      key: limitStatus('key', key, nowMs),
      tenant: limitStatus('tenant', withCeilings(tenant), nowMs),
    };
  }

  /** Counts one more request in flight and takes its estimated tokens. */
  function takeFor(statuses: LimitStatuses, tokens: number): RateLimits {
    const after = {
      key: taken(statuses.key, tokens),
      tenant: taken(statuses.tenant, tokens),
    };
    for (const { owner, requests, tokens: bucket } of [after.key, after.tenant]) {
      write.run({
        owner,
        requestsLevel: requests?.level ?? null,
        tokensLevel: bucket?.level ?? null,
        nowMs: statuses.nowMs,
      });
    }
    return rateLimits(after);
  }

  /** Takes one request that is over as soon as it is admitted. */
  function takeRequest(statuses: LimitStatuses): RateLimits {
    const state = takeFor(statuses, 0);
    giveBack({ keyId: statuses.key.owner, reserved: 0, used: 0 });
    return state;
  }

  /** Ends a request in flight; what was reserved too much goes back, too little is taken. */
  function giveBack(request: { keyId: string; reserved: number; used: number }): void {
    const difference = (request.reserved - request.used) * partsPerUnit;
    assert(Number.isSafeInteger(difference), 'token counts are safe integers');
    release.run({ keyId: request.keyId, tenantOwner, difference });
  }

  function setLimits(owner: string, limits: KeyLimits): void {
    assertLimits(limits);
    const row = db.select().from(quota).where(eq(quota.owner, owner)).get();
    assert(row !== undefined, 'limits are set on an owner that exists');
    db.update(quota)
      .set({
        ...limits,
        // A limit that goes takes its bucket with it; one that comes starts with a full bucket.
        requestsLevel: limits.requestsPerMinute === null ? null : row.requestsLevel,
        tokensLevel: limits.tokensPerMinute === null ? null : row.tokensLevel,
      })
      .where(eq(quota.owner, owner))
      .run();
  }

  /** The tenant's own; its row is there from the first migration on. */
  function tenantLimits(): KeyLimits {
    const row = db.select().from(quota).where(eq(quota.owner, tenantOwner)).get();
    assert(row !== undefined, 'the tenant has a quota row');
    const { requestsPerMinute, tokensPerMinute, concurrentRequests } = row;
    return { requestsPerMinute, tokensPerMinute, concurrentRequests };
  }

  return {
    look,
    takeFor,
    takeRequest,
    giveBack,
    tenantLimits,
    setKeyLimits: (keyId: string, limits: KeyLimits) => setLimits(keyId, limits),
    setTenantLimits: (limits: KeyLimits) => setLimits(tenantOwner, limits),
  };
}
