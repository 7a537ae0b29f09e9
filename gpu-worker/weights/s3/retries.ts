/** Tries again what may heal by itself, after waits that grow and that are drawn at random. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface RetrySettings {
  readonly attemptsMax: number;
  /** The longest wait before the second attempt; doubles with each further one. */
  readonly baseMs: number;
  readonly waitMaxMs: number;
}

/**
 * Rejects with the last attempt's error. Waits are uniform between 0 and their bound ("full
 * jitter"), so that workers that were turned away together do not come back together.
 */
export async function retrying<T>(
  attempt: () => Promise<T>,
  options: RetrySettings & { isTransient(error: unknown): boolean; signal: AbortSignal },
): Promise<T> {
  for (let failures = 0; ;) {
    options.signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      failures++;
      if (failures >= options.attemptsMax || !options.isTransient(error)) throw error;
      const boundMs = Math.min(options.waitMaxMs, options.baseMs * 2 ** (failures - 1));
      await sleep(Math.random() * boundMs, undefined, { signal: options.signal });
    }
  }
}
