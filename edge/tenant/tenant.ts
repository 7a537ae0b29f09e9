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
import { BudgetTermsOfTenant } from '../ledger/budget-terms.ts';
import { Budgets, exhausted, unbound } from '../ledger/budgets.ts';
import { Credits } from '../ledger/credits.ts';
import type { HoldRow } from '../ledger/holds.ts';
import { Holds } from '../ledger/holds.ts';
import type { IdempotencyBounds } from '../ledger/idempotency.ts';
import { Idempotency } from '../ledger/idempotency.ts';
import { Reports } from '../ledger/reports.ts';
import { readStatementPart } from '../ledger/statement-parts.ts';
import { limitedTokens } from '../money.ts';
import { StoredResponses } from '../responses/stored-responses.ts';
import type { StoredResponseBounds } from '../responses/stored-responses.ts';
import { PrefixIndex } from '../prefix/prefix-index.ts';
import { RecentPrompts } from '../prefix/recent-prompts.ts';
import type { Usage } from '../money.ts';
import { AuditLog } from './audit-log.ts';
import { createWebhookStages, webhookOperations } from './webhook-operations.ts';
import type {
  AdmitInput,
  AdmitResult,
  PreadmitInput,
  RateLimits,
  Refusal,
} from './admission-contract.ts';
import { holdAmounts } from './hold-amounts.ts';
import { keyOperations } from './key-operations.ts';
import type { VerifiedKey } from './key-contract.ts';
import type { ExtendInput, Extension, SettleInput, Settlement } from './settlement-contract.ts';
import type { Asked } from './stored-response-contract.ts';
import type { Tenant } from './tenant-contract.ts';

export interface TenantOptions {
  readonly clock: { nowMs(): number };
  /** The default is a commit per call, as in a Durable Object. */
  readonly committer?: Committer;
  readonly prefixRowsMax?: number;
  readonly idempotency?: IdempotencyBounds;
  readonly storedResponses?: StoredResponseBounds;
  /** Webhooks may be due from that time on. */
  readonly onWebhooksDue?: (atMs: number) => void;
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
  const { keys, limits, holds, credits, reports, index, responses, recentPrompts } = stages;
  const unlessRefused = <Found>(key: VerifiedKey, find: () => Found) =>
    run((): Asked<Found> => {
      const refusal = keys.refusal(key, { scope: 'inference', nowMs: now() });
      return refusal === null ? find() : { kind: 'refused', refusal };
    });
  return {
    ...keyOperations(stages, { run, runUnsynced, now }),
    // Nothing is owed before the client has had something, and that follows the placement: the
    // disk is waited for there, while the worker computes, and the hold that was committed before
    // is on it too. A settlement that the power takes away is made again from the hold and the
    // worker's journal; where there is no such journal, the answer waits for it.
    admit: (input) => runUnsynced(() => admit(stages, input, now())),
    preadmit: (input) => runUnsynced(() => preadmit(stages, input, now())),
    // A longer answer that is delivered is billed to its hold, whatever happens.
    extend: (input) => run(() => extend(stages, input)),
    settle: (input) => (input.isJournalled ? runUnsynced : run)(() => settle(stages, input, now())),
    placed: (input) =>
      (input.durable ? run : runUnsynced)(() => {
        if (holds.place(input)) index.expect(input, input.chain, now());
      }),
    prefixHits: (chain) => runUnsynced(() => index.lookup(chain, now())),
    seenPrompt: async (marks) => recentPrompts.find(marks),
    authorize: (key, scope) => runUnsynced(() => keys.refusal(key, { scope, nowMs: now() })),
    admitFree: (key, scope) =>
      runUnsynced(() => {
        const keyRefusal = keys.refusal(key, { scope, nowMs: now() });
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
    limits: () => runUnsynced(() => limits.tenantLimits()),
    setLimits: (to) => run(() => limits.setTenantLimits(to)),
    credit: (input) => run(() => credit(stages, input, now())),
    uncredited: (sources) => run(() => credits.uncredited(sources)),
    correct: (input) => run(() => correct(stages, input, now())),
    ...webhookOperations(stages.webhooks, { committer, nowMs: now, auditLog: stages.auditLog }),
    auditLog: (page) => runUnsynced(() => stages.auditLog.page(page)),
    noteAction: (action, actor) =>
      run(() => stages.auditLog.note({ ...action, actor, nowMs: now() })),
  };
}

const cryptoRandom = {
  bytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)),
};

type Stages = ReturnType<typeof createStages>;

function createStages(db: SyncDb, options: TenantOptions) {
  return {
    keys: new Keys(db),
    limits: new Limits(db),
    holds: new Holds(db),
    budgets: new Budgets(db),
    terms: new BudgetTermsOfTenant(db),
    credits: new Credits(db),
    reports: new Reports(db),
    idempotency: new Idempotency(db, options.idempotency),
    index: new PrefixIndex(db, options.prefixRowsMax),
    responses: new StoredResponses(db, options.storedResponses),
    recentPrompts: new RecentPrompts(),
    auditLog: new AuditLog(db),
    webhooks: createWebhookStages(db, { random: cryptoRandom, onDue: options.onWebhooksDue }),
  };
}

/** A refusal takes nothing and, unless the clock went back, writes nothing: it costs no commit. */
function admit(stages: Stages, input: AdmitInput, nowMs: number): AdmitResult {
  const { keys, limits, holds, budgets, idempotency, index, recentPrompts } = stages;
  const { keyId } = input.key;
  const checked = keys.check(input.key, { scope: input.scope, model: input.model, nowMs });
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
  const outputTokensHeld = Math.min(
    input.outputTokensMax,
    input.lease?.outputTokens ?? input.outputTokensMax,
  );
  const tokensReserved = estimateTokens({
    ...input,
    outputTokensMax: outputTokensHeld,
    cachedBytes,
  });
  const statuses = limits.look(keyId, nowMs);
  const tooMuch = limitRefusal(statuses, tokensReserved);
  if (tooMuch !== null) {
    return { kind: 'refused', reason: tooMuch, limits: rateLimits(statuses) };
  }

  const refused = (reason: Refusal): AdmitResult => {
    return { kind: 'refused', reason, limits: rateLimits(statuses) };
  };
  const { priority, weight, hasBudget } = checked.inForce;
  const names = input.budgets?.names ?? [];
  const isBound = hasBudget || names.length > 0;
  const bound = isBound ? budgets.look({ keyId: hasBudget ? keyId : null, names, nowMs }) : unbound;
  if ('kind' in bound) return refused(bound);
  const amounts = holdAmounts(input, bound, () => available(stages));
  if ('refusal' in amounts) return refused(amounts.refusal);
  const { amountNanoUsd, amountNanoUsdMax: holdNanoUsdMax, outputTokensMax } = amounts;
  if (!holds.reserve(amountNanoUsd)) return refused(noBalance(stages, amountNanoUsd));
  const counted = budgets.reserve(bound, { amountNanoUsd, nowMs });
  holds.open({ ...input, keyId, amountNanoUsd, tokensReserved, idempotencyKey, nowMs }, counted);
  const state = limits.takeFor(statuses, tokensReserved);
  if (named) idempotency.begin({ ...named, requestId: input.requestId });
  return {
    kind: 'admitted',
    holdNanoUsd: amountNanoUsd,
    holdNanoUsdMax,
    outputTokensMax,
    priority,
    weight,
    prefixHits,
    seenPrompt: input.promptMarks ? recentPrompts.find(input.promptMarks) : null,
    limits: state,
  };
}

/** Takes no more than is there, and nothing at all where that would be of no use. */
function extend(stages: Stages, input: ExtendInput): Extension {
  const { holds, budgets } = stages;
  const { requestId, leastNanoUsd } = input;
  const open = holds.find(requestId);
  if (open === null) return { kind: 'over' };
  const ofBalance = available(stages);
  const tightest = budgets.left(open.budgetWindows);
  const amountNanoUsd = Math.min(
    input.amountNanoUsd,
    ofBalance,
    tightest?.leftNanoUsd ?? ofBalance,
  );
  if (amountNanoUsd < Math.max(1, leastNanoUsd)) {
    const isBudget = tightest !== null && tightest.leftNanoUsd <= ofBalance;
    const lacks = isBudget
      ? exhausted(tightest, leastNanoUsd)
      : ({
          kind: 'no-balance',
          availableNanoUsd: ofBalance,
          neededNanoUsd: leastNanoUsd,
        } as const);
    return { kind: 'exhausted', lacks };
  }
  const isReserved = holds.reserve(amountNanoUsd);
  assert(isReserved, 'what is available can be reserved');
  holds.extend(requestId, amountNanoUsd);
  budgets.extend(open.budgetWindows, amountNanoUsd);
  return { kind: 'extended', holdNanoUsd: open.amountNanoUsd + amountNanoUsd };
}

function available({ reports }: Stages): number {
  const { granted, toppedUp, held } = reports.balance();
  return granted + toppedUp - held;
}

function noBalance(stages: Stages, neededNanoUsd: number | null): Refusal {
  return { kind: 'no-balance', availableNanoUsd: available(stages), neededNanoUsd };
}

/** Refuses only what `admit` would refuse too, whatever the body says. */
function preadmit(
  stages: Stages,
  { key, scope, idempotencyKey, costs }: PreadmitInput,
  nowMs: number,
): { refusal: Refusal | null; limits: RateLimits | null } {
  const { keys, limits, idempotency } = stages;
  const keyRefusal = keys.refusal(key, { scope, nowMs });
  if (keyRefusal !== null) return { refusal: keyRefusal, limits: null };
  const { keyId } = key;
  if (idempotencyKey !== null && idempotency.knows({ keyId, idempotencyKey }, nowMs)) {
    return { refusal: null, limits: null };
  }
  const statuses = limits.look(keyId, nowMs);
  const tooMuch = limitRefusal(statuses, 0);
  if (tooMuch !== null) return { refusal: tooMuch, limits: rateLimits(statuses) };
  if (!costs || available(stages) > 0) return { refusal: null, limits: null };
  return { refusal: noBalance(stages, null), limits: rateLimits(statuses) };
}

function settle(stages: Stages, input: SettleInput, nowMs: number): Settlement {
  const { limits, holds, budgets, reports, index } = stages;
  const open = holds.take(input.requestId);
  if (open === null) {
    const earlier = holds.earlier(input.requestId);
    assert(earlier !== null, 'a request that is settled was admitted');
    return earlier;
  }
  const settlement = holds.resolve(open, input, nowMs);
  const { keyId, model, amountNanoUsd: heldNanoUsd } = open;
  const { costNanoUsd } = settlement;
  budgets.settle(open.budgetWindows, { heldNanoUsd, costNanoUsd });
  stages.webhooks.balanceChanged(nowMs);
  stages.webhooks.budgetsSpent(open.budgetWindows, nowMs);
  const used = tokensToLimit(open, input.usage, settlement);
  limits.giveBack({ keyId, reserved: open.tokensReserved, used });
  if (input.usage !== null) {
    const prefixPromised = input.outcome === 'done' && input.predictedCachedBytes > 0;
    reports.count({ model, keyId, settlement, prefixPromised, nowMs });
  }
  keepAnswer(stages, open, input);
  if (input.response) stages.responses.store(input.response, nowMs);
  const { promptMarks, worker } = input;
  if (promptMarks && worker !== null) stages.recentPrompts.remember({ marks: promptMarks, worker });
  if (input.worker !== null && input.epoch !== null) {
    index.confirm({ worker: input.worker, epoch: input.epoch }, input.confirmedChain, nowMs);
  }
  return settlement;
}

function credit(stages: Stages, input: Parameters<Tenant['credit']>[0], nowMs: number): boolean {
  if (!stages.credits.credit({ ...input, nowMs })) return false;
  if (input.kind === 'topped-up') stages.webhooks.toppedUp({ ...input, nowMs });
  stages.webhooks.balanceChanged(nowMs);
  return true;
}

function correct(stages: Stages, input: Parameters<Tenant['correct']>[0], nowMs: number) {
  const entry = stages.credits.correct({ ...input, nowMs });
  stages.webhooks.balanceChanged(nowMs);
  return entry;
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
