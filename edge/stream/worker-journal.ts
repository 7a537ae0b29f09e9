/** What a worker's journal says a request used, once the worker has stopped it. */
import { usageRecordSchema } from '../../gpu-worker/protocol.ts';
import type { Usage } from '../services.ts';
import { fromWorkerUsage } from '../dialect/usage.ts';

/** A worker stops within one step; a step of a large prefill takes a second or two. */
const waitsMs = [10, 20, 50, 100, 200, 400, 800, 1_600];
const lookupMsMax = 5_000;

/**
 * The final count, or the last one of a worker that is still at it after some seconds. `null` if
 * the worker does not know the request or cannot be asked. Never throws.
 */
export async function readJournal(call: {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly token: string;
  readonly requestId: string;
  readonly reportsCachedTokens: boolean;
}): Promise<Usage | null> {
  const { fetch } = call;
  let usage: Usage | null = null;
  for (const waitMs of waitsMs) {
    try {
      const path = `/v1/requests/${encodeURIComponent(call.requestId)}/usage`;
      const response = await fetch(new URL(path, call.url), {
        headers: { authorization: `Bearer ${call.token}` },
        redirect: 'manual',
        signal: AbortSignal.timeout(lookupMsMax),
      });
      const record = usageRecordSchema.safeParse(await response.json()).data;
      if (response.status !== 200 || !record) return usage;
      usage = fromWorkerUsage(record.usage, call);
      if (record.status !== 'running') return usage;
    } catch {
      return usage;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  return usage;
}
