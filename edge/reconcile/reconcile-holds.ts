/**
 * Resolves holds that nobody resolved: the edge died in mid-request, or could not reach the tenant
 * to settle. The worker's journal says what was generated; usage that it cannot state is not
 * billed. It is safe to repeat and to run beside the request itself, because the first settlement
 * of a request stands.
 */
import type { UsageRecord } from '../../gpu-worker/protocol/usage.ts';
import type { OpenHold, SettleInput } from '../tenant/settlement-contract.ts';
import type { Tenant } from '../tenant/tenant-contract.ts';
import { fromWorkerUsage } from '../engines/usage.ts';
import { fetchUsageRecord } from '../relay/usage-record.ts';
import { usedOrNull } from '../money.ts';
import type { Log } from '../../infra/log.ts';

/** Longer than any answer takes: until then a request that no journal knows may be under way. */
export const unknownMsMax = 60 * 60_000;
/** Workers keep their journal for a day; after that nothing can be learned any more. */
export const journalMsMax = 24 * 60 * 60_000;
const lookupsAtOnceMax = 8;

export interface ReconcileContext {
  readonly tenant: Tenant;
  readonly clock: { nowMs(): number };
  readonly fetch: typeof fetch;
  readonly workerToken: string;
  readonly log: Log;
}

export interface Reconciled {
  readonly settled: number;
  readonly voided: number;
  /** Holds that are still open: their requests run, or their workers do not answer. */
  readonly left: number;
}

/** Resolves what can be resolved of the holds older than that. Throws only if the tenant does. */
export async function reconcileHolds(
  context: ReconcileContext,
  olderThanMs: number,
): Promise<Reconciled> {
  const holds = await context.tenant.openHolds(olderThanMs);
  const counts = { settled: 0, voided: 0, left: 0 };
  const queue = holds.values();
  const lane = async (): Promise<void> => {
    for (const hold of queue) counts[await reconcile(context, hold, { lost: false })]++;
  };
  await Promise.all(Array.from({ length: lookupsAtOnceMax }, lane));
  return counts;
}

/** Resolves the hold of a request that nobody is answering any more, if it can be resolved yet. */
export async function reconcileLost(context: ReconcileContext, requestId: string): Promise<void> {
  const hold = (await context.tenant.openHolds(0)).find((each) => each.requestId === requestId);
  if (hold !== undefined) await reconcile(context, hold, { lost: true });
}

async function reconcile(
  context: ReconcileContext,
  hold: OpenHold,
  { lost }: { readonly lost: boolean },
): Promise<keyof Reconciled> {
  const found = await lookUp(context, hold);
  const resolution = resolve(found, { ageMs: context.clock.nowMs() - hold.openedAtMs, lost });
  if (resolution === null) return 'left';
  const { costNanoUsd, first, excessNanoUsd } = await context.tenant.settle({
    requestId: hold.requestId,
    outcome: resolution.outcome,
    usage: resolution.usage,
    worker: hold.worker,
    epoch: null,
    predictedCachedBytes: 0,
    confirmedChain: [],
    answer: null,
  });
  const { requestId, worker } = hold;
  context.log('info', 'hold-reconciled', { requestId, worker, found: found.kind, costNanoUsd });
  if (first && excessNanoUsd > 0) {
    context.log('error', 'cost-exceeded-hold', { requestId, worker, excessNanoUsd });
  }
  return resolution.usage === null ? 'voided' : 'settled';
}

type Found =
  | { readonly kind: 'recorded'; readonly record: UsageRecord }
  | { readonly kind: 'never-placed' }
  | { readonly kind: 'unknown-to-worker' }
  | { readonly kind: 'unreachable' };

/** Returns null to leave the hold open for now. */
function resolve(
  found: Found,
  { ageMs, lost }: { readonly ageMs: number; readonly lost: boolean },
): Pick<SettleInput, 'outcome' | 'usage'> | null {
  const voided = { outcome: 'failed', usage: null } as const;
  switch (found.kind) {
    case 'never-placed':
      return voided;
    case 'unknown-to-worker':
      return lost || ageMs >= unknownMsMax ? voided : null;
    case 'unreachable':
      return ageMs >= journalMsMax ? voided : null;
    case 'recorded': {
      const { status } = found.record;
      if (status === 'running' && ageMs < journalMsMax) return null;
      const outcome = status === 'done' || status === 'aborted' ? status : 'failed';
      const usage = fromWorkerUsage(found.record.usage, { reportsCachedTokens: true });
      return { outcome, usage: usedOrNull(usage) };
    }
  }
}

async function lookUp(context: ReconcileContext, hold: OpenHold): Promise<Found> {
  if (hold.worker === null) return { kind: 'never-placed' };
  // A foreign engine has no journal, and our token is none of its business.
  if (hold.workerUrl === null) return { kind: 'unknown-to-worker' };
  const found = await fetchUsageRecord({
    fetch: context.fetch,
    url: hold.workerUrl,
    token: context.workerToken,
    requestId: hold.requestId,
    route: 'usage',
  });
  return found.kind === 'unknown' ? { kind: 'unknown-to-worker' } : found;
}
