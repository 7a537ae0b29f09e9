/**
 * Compares a key and its tenant with their limits, and decides what follows; without a database.
 */
import { strict as assert } from 'node:assert';
import type { quota } from '../../db/schema/tenant.ts';
import type { RateLimits, Refusal } from '../tenant/admission-contract.ts';
import type { KeyLimits } from '../tenant/key-contract.ts';
import type { Bucket } from './bucket.ts';
import { limitMax, refill, remaining, resetMs, take, waitMs } from './bucket.ts';

/**
 * A tenant that has no limit of its own has these: about what one tenant's database can sustain.
 */
export const tenantCeilings = {
  requestsPerMinute: 600_000,
  tokensPerMinute: limitMax,
  concurrentRequests: 20_000,
} as const satisfies KeyLimits;

/** The wait stated for a limit on concurrency: nobody can say when a running request ends. */
const concurrencyRetryMs = 1_000;

/** The limits of a key or of the tenant as of now. null: no limit. */
export interface LimitStatus {
  readonly of: 'key' | 'tenant';
  readonly owner: string;
  readonly requests: Bucket | null;
  readonly tokens: Bucket | null;
  readonly concurrentMax: number | null;
  readonly inFlight: number;
}

export interface LimitStatuses {
  readonly nowMs: number;
  readonly key: LimitStatus;
  readonly tenant: LimitStatus;
}

export type QuotaRow = typeof quota.$inferSelect;

/**
 * Refuses a request that must wait, by the limit that needs the longest wait; null when it need
 * not.
 * @param tokens null of a request that generates nothing: only the requests per minute bind it.
 */
export function limitRefusal(statuses: LimitStatuses, tokens: number | null): Refusal | null {
  const waits = [statuses.key, statuses.tenant].flatMap((at) => [
    {
      limit: 'concurrency',
      of: at.of,
      retryAfterMs: tokens === null ? 0 : concurrencyWaitMs(at),
    } as const,
    {
      limit: 'requests',
      of: at.of,
      retryAfterMs: at.requests ? waitMs(at.requests, 1) : 0,
    } as const,
    {
      limit: 'tokens',
      of: at.of,
      retryAfterMs: at.tokens && tokens !== null ? waitMs(at.tokens, tokens) : 0,
    } as const,
  ]);
  const longest = waits.reduce((a, b) => (b.retryAfterMs > a.retryAfterMs ? b : a));
  return longest.retryAfterMs > 0 ? { kind: 'limit', ...longest } : null;
}

/** The values of the x-ratelimit headers: those of the bucket with less left. */
export function rateLimits(statuses: Pick<LimitStatuses, 'key' | 'tenant'>): RateLimits {
  const requests = tighter(statuses.key.requests, statuses.tenant.requests);
  const tokens = tighter(statuses.key.tokens, statuses.tenant.tokens);
  return {
    requestsLimit: requests.limitPerMinute,
    requestsRemaining: remaining(requests),
    requestsResetMs: resetMs(requests),
    tokensLimit: tokens.limitPerMinute,
    tokensRemaining: remaining(tokens),
    tokensResetMs: resetMs(tokens),
  };
}

/** Estimates the tokens to reserve for a request. */
export function estimateTokens(request: {
  readonly promptTokensMax: number;
  readonly outputTokensMax: number;
  readonly cachedBytes: number;
}): number {
  const uncachedBytes = Math.max(0, request.promptTokensMax - request.cachedBytes);
  return Math.ceil(uncachedBytes / 4) + request.outputTokensMax;
}

export function assertLimits(limits: KeyLimits): void {
  for (const limit of [
    limits.requestsPerMinute,
    limits.tokensPerMinute,
    limits.concurrentRequests,
  ]) {
    const valid = limit === null || (Number.isInteger(limit) && limit >= 0 && limit <= limitMax);
    assert(valid, `a limit is null or an integer from 0 to ${limitMax}`);
  }
}

export function withCeilings(row: QuotaRow): QuotaRow {
  return {
    ...row,
    requestsPerMinute: row.requestsPerMinute ?? tenantCeilings.requestsPerMinute,
    tokensPerMinute: row.tokensPerMinute ?? tenantCeilings.tokensPerMinute,
    concurrentRequests: row.concurrentRequests ?? tenantCeilings.concurrentRequests,
  };
}

export function limitStatus(of: 'key' | 'tenant', row: QuotaRow, nowMs: number): LimitStatus {
  const elapsedMs = row.usedAtMs === null ? 0 : nowMs - row.usedAtMs;
  const bucket = (limitPerMinute: number | null, level: number | null): Bucket | null =>
    limitPerMinute === null ? null : refill({ limitPerMinute, level }, elapsedMs);
  return {
    of,
    owner: row.owner,
    requests: bucket(row.requestsPerMinute, row.requestsLevel),
    tokens: bucket(row.tokensPerMinute, row.tokensLevel),
    concurrentMax: row.concurrentRequests,
    inFlight: row.inFlight,
  };
}

export function taken(at: LimitStatus, tokens: number): LimitStatus {
  return {
    ...at,
    requests: at.requests && take(at.requests, 1),
    tokens: at.tokens && take(at.tokens, tokens),
    inFlight: at.inFlight + 1,
  };
}

function concurrencyWaitMs(at: LimitStatus): number {
  return at.concurrentMax !== null && at.inFlight >= at.concurrentMax ? concurrencyRetryMs : 0;
}

/** The tenant always has a bucket (its ceilings). */
function tighter(key: Bucket | null, tenant: Bucket | null): Bucket {
  assert(tenant !== null, 'the tenant has limits');
  return key !== null && remaining(key) <= remaining(tenant) ? key : tenant;
}
