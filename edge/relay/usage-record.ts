/** A worker's journal: what it says of the usage of one request. */
import { usageRecordSchema, usageRecordBytesMax } from '../../gpu-worker/protocol/usage.ts';
import type { UsageRecord } from '../../gpu-worker/protocol/usage.ts';
import { readBoundedJson } from '../engines/bounded-json.ts';

const lookupMsMax = 5_000;

export interface UsageRecordCall {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly token: string;
  readonly requestId: string;
  /** `cancel` stops the request and answers with the same record. */
  readonly route: 'usage' | 'cancel';
}

export type FoundUsageRecord =
  | { readonly kind: 'recorded'; readonly record: UsageRecord }
  /** The worker has not seen the request, or lacks the route to cancel it. */
  | { readonly kind: 'unknown' }
  /** The worker is gone or answers nonsense. */
  | { readonly kind: 'unreachable' };

/** Asks for a usage record. Never throws. */
export async function fetchUsageRecord(call: UsageRecordCall): Promise<FoundUsageRecord> {
  // Not as a method: some runtimes refuse a fetch that has a `this`.
  const { fetch, route } = call;
  const path = `/v1/requests/${encodeURIComponent(call.requestId)}/${route}`;
  try {
    const response = await fetch(new URL(path, call.url), {
      method: route === 'cancel' ? 'POST' : 'GET',
      headers: { authorization: `Bearer ${call.token}` },
      redirect: 'manual',
      signal: AbortSignal.timeout(lookupMsMax),
    });
    if (response.status === 404 || (response.status === 405 && route === 'cancel')) {
      await response.body?.cancel();
      return { kind: 'unknown' };
    }
    const json = await readBoundedJson(response, usageRecordBytesMax);
    const record = usageRecordSchema.safeParse(json).data;
    if (response.status === 200 && record) return { kind: 'recorded', record };
  } catch {
    // Whoever asks tries again later, whatever went wrong.
  }
  return { kind: 'unreachable' };
}
