/**
 * One tenant: the work inside its database, each method in one synchronous transaction. The stages
 * (admit, ledger, prefix) know nothing of one another; here they are put in order.
 */
import { strict as assert } from 'node:assert';
import type { Committer } from '../../db/group-commit.ts';
import { commitAtOnce } from '../../db/group-commit.ts';
import type { SyncDb } from '../../db/types.ts';
import { Keys } from '../admit/keys.ts';
import { Limits } from '../admit/limits.ts';
import { estimateTokens, limitRefusal, rateLimits } from '../admit/limit-status.ts';
import { auditLedger } from '../ledger/audit.ts';
import { readBilledRequest } from '../ledger/billed-request.ts';
import { Credits } from '../ledger/credits.ts';
import type { HoldRow } from '../ledger/holds.ts';
import { Holds } from '../ledger/holds.ts';
import type { IdempotencyBounds } from '../ledger/idempotency.ts';
import { Idempotency } from '../ledger/idempotency.ts';
import { Reports } from '../ledger/reports.ts';
import { readStatementPart } from '../ledger/statement-parts.ts';
import { holdNanoUsd, limitedTokens } from '../money.ts';
import { StoredResponses } from '../responses/stored-responses.ts';
import type { StoredResponseBounds } from '../responses/stored-responses.ts';
import { PrefixIndex } from '../prefix/prefix-index.ts';
import type { Usage } from '../money.ts';
import type {
  AdmitInput,
  AdmitResult,
  PreadmitInput,
  RateLimits,
  Refusal,
} from './admission-contract.ts';
import type { VerifiedKey } from './key-contract.ts';
import type { SettleInput, Settlement } from './settlement-contract.ts';
import type { Asked } from './stored-response-contract.ts';
import type { Tenant } from './tenant-contract.ts';

export interface TenantOptions {
  readonly clock: { nowMs(): number };
  /** The default is a commit per call, as in a Durable Object. */
  readonly committer?: Committer;
  readonly prefixRowsMax?: number;
  readonly idempotency?: IdempotencyBounds;
  readonly storedResponses?: StoredResponseBounds;
}

/**
 * The database is migrated. Statements are prepared once, so keep the tenant as long as its
 * database.
 */
export function createTenant(db: SyncDb, options: TenantOptions): Tenant {
  const committer = options.committer ?? commitAtOnce(db);
  const run = <Result>(work: () => Result) => committer.run(work);
  const runUnsynced = <Result>(work: () => Result) => committer.runUnsynced(work);
  const now = () => options.clock.nowMs();
  const stages = createStages(db, options);
  const { keys, limits, holds, credits, reports, index, responses } = stages;
  const unlessRefused = <Found>(key: VerifiedKey, find: () => Found) =>
    run((): Asked<Found> => {
      const refusal = keys.refusal(key, 'inference');
      return refusal === null ? find() : { kind: 'refused', refusal };
    });
  return {
    // Nothing is owed before the client has had something, and that follows the placement: the
    // disk is waited for there, while the worker computes, and the hold that was committed before
    // is on it too. A settlement that the power takes away is made again from the hold and the
    // worker's journal; where there is no such journal, the answer waits for it.
    admit: (input) => runUnsynced(() => admit(stages, input, now())),
    preadmit: (input) => runUnsynced(() => preadmit(stages, input, now())),
    settle: (input) => (input.isJournalled ? runUnsynced : run)(() => settle(stages, input, now())),
    placed: (input) =>
      (input.durable ? run : runUnsynced)(() => {
        if (holds.place(input)) index.expect(input, input.chain, now());
      }),
    prefixHits: (chain) => runUnsynced(() => index.lookup(chain, now())),
    authorize: (key, scope) => runUnsynced(() => keys.refusal(key, scope)),
    admitFree: (key, scope) =>
      runUnsynced(() => {
        const keyRefusal = keys.refusal(key, scope);
        if (keyRefusal !== null) return { refusal: keyRefusal, limits: null };
        const statuses = limits.look(key.keyId, now());
        const refusal = limitRefusal(statuses, null);
        if (refusal !== null) return { refusal, limits: rateLimits(statuses) };
        return { refusal: null, limits: limits.takeRequest(statuses) };
      }),
    balance: () => runUnsynced(() => reports.balance()),
    usage: (page) => runUnsynced(() => reports.usage(page)),
    entries: (page) => runUnsynced(() => reports.entries(page)),
    statementPart: (input) => runUnsynced(() => readStatementPart(db, input)),
    billedRequest: (requestId) => runUnsynced(() => readBilledRequest(db, requestId)),
    openHolds: (olderThanMs) => runUnsynced(() => holds.stale({ olderThanMs, nowMs: now() })),
    audit: () => runUnsynced(() => auditLedger(db)),
    earlierItems: (key, names) => unlessRefused(key, () => responses.earlierItems(names, now())),
    storedResponse: (key, id) =>
      unlessRefused(key, () => {
        const stored = responses.find(id, now());
        return stored === null ? { kind: 'missing' } : { kind: 'found', stored };
      }),
    deleteStoredResponse: (key, id) =>
      unlessRefused(key, () => ({ kind: responses.remove(id, now()) ? 'deleted' : 'missing' })),
    createKey: (input) => run(() => keys.create({ ...input, nowMs: now() })),
    updateKey: (keyId, change) =>
      run(() => {
        if (keys.get(keyId) === null) return null;
        keys.change(keyId, change);
        if (change.limits !== undefined) limits.setKeyLimits(keyId, change.limits);
        return keys.get(keyId);
      }),
    keys: () => runUnsynced(() => keys.list()),
    limits: () => runUnsynced(() => limits.tenantLimits()),
    setLimits: (to) => run(() => limits.setTenantLimits(to)),
    credit: (input) => run(() => credits.credit({ ...input, nowMs: now() })),
    uncredited: (sources) => run(() => credits.uncredited(sources)),
    correct: (input) => run(() => credits.correct({ ...input, nowMs: now() })),
  };
}

type Stages = ReturnType<typeof createStages>;

function createStages(db: SyncDb, options: TenantOptions) {
  return {
    keys: new Keys(db),
    limits: new Limits(db),
    holds: new Holds(db),
    credits: new Credits(db),
    reports: new Reports(db),
    idempotency: new Idempotency(db, options.idempotency),
    index: new PrefixIndex(db, options.prefixRowsMax),
    responses: new StoredResponses(db, options.storedResponses),
  };
}

/** A refusal takes nothing and, unless the clock went back, writes nothing: it costs no commit. */
function admit(stages: Stages, input: AdmitInput, nowMs: number): AdmitResult {
  const { keys, limits, holds, idempotency, index, reports } = stages;
  const { keyId } = input.key;
  const checked = keys.check(input.key, input.scope);
  if (checked.refusal !== null) return { kind: 'refused', reason: checked.refusal, limits: null };

  const idempotencyKey = input.idempotency?.key ?? null;
  const named = input.idempotency && {
    keyId,
    idempotencyKey: input.idempotency.key,
    requestHash: input.idempotency.requestHash,
    nowMs,
  };
  const afterEvent = input.idempotency?.afterEvent ?? 0;
  const before = named && idempotency.seen({ ...named, afterEvent });
  if (before !== null) return before;

  const prefixHits = index.lookup(input.prefixChain, nowMs);
  const cachedBytes = Math.max(0, ...prefixHits.map(({ bytes }) => bytes));
  const tokensReserved = estimateTokens({ ...input, cachedBytes });
  const statuses = limits.look(keyId, nowMs);
  const tooMuch = limitRefusal(statuses, tokensReserved);
  if (tooMuch !== null) {
    return { kind: 'refused', reason: tooMuch, limits: rateLimits(statuses) };
  }

  const amountNanoUsd = holdNanoUsd(input, input.price);
  const wanted = { ...input, keyId, amountNanoUsd, tokensReserved, idempotencyKey, nowMs };
  if (holds.reserve(wanted) === null) {
    const { granted, toppedUp, held } = reports.balance();
    const availableNanoUsd = granted + toppedUp - held;
    const reason = { kind: 'no-balance', availableNanoUsd, neededNanoUsd: amountNanoUsd } as const;
    return { kind: 'refused', reason, limits: rateLimits(statuses) };
  }
  const state = limits.takeFor(statuses, tokensReserved);
  if (named) idempotency.begin({ ...named, requestId: input.requestId });
  const { priority } = checked;
  return { kind: 'admitted', holdNanoUsd: amountNanoUsd, priority, prefixHits, limits: state };
}

/** Refuses only what `admit` would refuse too, whatever the body says. */
function preadmit(
  { keys, limits, idempotency, reports }: Stages,
  { key, scope, idempotencyKey, costs }: PreadmitInput,
  nowMs: number,
): { refusal: Refusal | null; limits: RateLimits | null } {
  const keyRefusal = keys.refusal(key, scope);
  if (keyRefusal !== null) return { refusal: keyRefusal, limits: null };
  const { keyId } = key;
  if (idempotencyKey !== null && idempotency.knows({ keyId, idempotencyKey }, nowMs)) {
    return { refusal: null, limits: null };
  }
  const statuses = limits.look(keyId, nowMs);
  const tooMuch = limitRefusal(statuses, 0);
  if (tooMuch !== null) return { refusal: tooMuch, limits: rateLimits(statuses) };
  const { granted, toppedUp, held } = reports.balance();
  const availableNanoUsd = granted + toppedUp - held;
  if (!costs || availableNanoUsd > 0) return { refusal: null, limits: null };
  const refusal = { kind: 'no-balance', availableNanoUsd, neededNanoUsd: null } as const;
  return { refusal, limits: rateLimits(statuses) };
}

function settle(stages: Stages, input: SettleInput, nowMs: number): Settlement {
  const { limits, holds, reports, index } = stages;
  const open = holds.take(input.requestId);
  if (open === null) {
    const earlier = holds.earlier(input.requestId);
    assert(earlier !== null, 'a request that is settled was admitted');
    return earlier;
  }
  const settlement = holds.resolve(open, input, nowMs);
  const { keyId, model } = open;
  const used = tokensToLimit(open, input.usage, settlement);
  limits.giveBack({ keyId, reserved: open.tokensReserved, used });
  if (input.usage !== null) {
    const prefixPromised = input.outcome === 'done' && input.predictedCachedBytes > 0;
    reports.count({ model, keyId, settlement, prefixPromised, nowMs });
  }
  keepAnswer(stages, open, input);
  if (input.response) stages.responses.store(input.response, nowMs);
  if (input.worker !== null && input.epoch !== null) {
    index.confirm({ worker: input.worker, epoch: input.epoch }, input.confirmedChain, nowMs);
  }
  return settlement;
}

/** A count beyond the hold is false, and makes no debt, as it costs nothing. */
function tokensToLimit(open: HoldRow, usage: Usage | null, { excessNanoUsd }: Settlement): number {
  if (usage === null) return 0;
  return excessNanoUsd > 0 ? open.tokensReserved : limitedTokens(usage);
}

/** Frees the key of a request that was not billed: it may be asked again. */
function keepAnswer({ idempotency }: Stages, open: HoldRow, input: SettleInput): void {
  const { keyId, idempotencyKey } = open;
  if (idempotencyKey === null) return;
  if (input.usage === null) idempotency.remove({ keyId, idempotencyKey });
  else idempotency.answered({ keyId, idempotencyKey }, input.answer);
}
