/** What a worker's journal says a request used, once the worker has stopped it. */
import { usageRecordSchema, usageRecordBytesMax } from '../../gpu-worker/protocol/usage.ts';
import { readBoundedJson } from '../engines/bounded-json.ts';
import type { Usage } from '../money.ts';
import { fromWorkerUsage } from '../engines/usage.ts';

/** A worker stops within one step; a step of a large prefill takes a second or two. */
const waitsMs = [10, 20, 50, 100, 200, 400, 800, 1_600];
const lookupMsMax = 5_000;

export interface JournalCall {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly token: string;
  readonly requestId: string;
  readonly reportsCachedTokens: boolean;
}

export type JournalAnswer =
  /** It has ended. */
  | { readonly kind: 'counted'; readonly usage: Usage }
  | { readonly kind: 'never-seen' }
  /** It has not stopped after some seconds. */
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
  // Not as a method: some runtimes refuse a fetch that has a `this`.
  const { fetch } = call;
  const path = `/v1/requests/${encodeURIComponent(call.requestId)}/${route}`;
  try {
    const response = await fetch(new URL(path, call.url), {
      method: route === 'cancel' ? 'POST' : 'GET',
      headers: { authorization: `Bearer ${call.token}` },
      redirect: 'manual',
      signal: AbortSignal.timeout(lookupMsMax),
    });
    if (response.status === 404 || response.status === 405) {
      await response.body?.cancel();
      return { kind: 'never-seen' };
    }
    const json = await readBoundedJson(response, usageRecordBytesMax);
    const record = usageRecordSchema.safeParse(json).data;
    if (response.status === 200 && record) {
      return record.status === 'running'
        ? { kind: 'running' }
        : { kind: 'counted', usage: fromWorkerUsage(record.usage, call) };
    }
  } catch {
    // A worker that is gone or answers nonsense is the same to us: it is asked again.
  }
  return { kind: 'unreachable' };
}
