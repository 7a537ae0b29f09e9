/** Stops a request at its worker and reads from the worker's journal what it used. */
import type { Usage } from '../money.ts';
import { fromWorkerUsage } from '../engines/usage.ts';
import { fetchUsageRecord } from './usage-record.ts';

/** A worker stops within one step; a step of a large prefill takes a second or two. */
const waitsMs = [10, 20, 50, 100, 200, 400, 800, 1_600];

export interface JournalCall {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly token: string;
  readonly requestId: string;
  readonly reportsCachedTokens: boolean;
}

export type JournalAnswer =
  /** The request has ended. */
  | { readonly kind: 'counted'; readonly usage: Usage }
  | { readonly kind: 'never-seen' }
  /** The request has not stopped after some seconds. */
  | { readonly kind: 'running' }
  /** The worker cannot be asked. */
  | { readonly kind: 'unreachable' };

/**
 * Stops the request at the worker, wherever it is on its way there, and asks for its final count. A
 * request that the worker has not seen when it is cancelled is refused when it comes, so the answer
 * stands. Never throws.
 */
export async function stopAndCount(call: JournalCall): Promise<JournalAnswer> {
  let route: 'cancel' | 'usage' = 'cancel';
  let answer: JournalAnswer = { kind: 'unreachable' };
  for (const waitMs of waitsMs) {
    answer = await ask(call, route);
    if (answer.kind === 'counted') return answer;
    // A worker without the route to cancel may hear of the request after it is first asked for it.
    if (answer.kind !== 'unreachable') route = 'usage';
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  return answer;
}

async function ask(call: JournalCall, route: 'cancel' | 'usage'): Promise<JournalAnswer> {
  const found = await fetchUsageRecord({ ...call, route });
  if (found.kind === 'unknown') return { kind: 'never-seen' };
  if (found.kind === 'unreachable') return found;
  if (found.record.status === 'running') return { kind: 'running' };
  return { kind: 'counted', usage: fromWorkerUsage(found.record.usage, call) };
}
