/**
 * An attack is a few hostile requests against the whole system, bounded in count, bytes and time,
 * on loopback alone. It says whether the system held, or in a sentence what broke.
 */
import type { HostileSystem, Runtime } from './system.ts';

export type Verdict = 'held' | { readonly broken: string };

export interface Attack {
  readonly name: string;
  /** An attack that throws counts as broken, and so does a system that is not sound afterwards. */
  run(system: HostileSystem): Promise<Verdict>;
  /** Lines of the log that tell of a fault and belong to the attack. */
  readonly mayLog?: string;
  /** Default: 30 s. */
  readonly secondsMax?: number;
  /** The runtime of the edge; absent where the attack is made for either. */
  readonly only?: Runtime;
}

/** Returns the first fault that is not null. */
export function verdictOf(...faults: readonly (string | null)[]): Verdict {
  const fault = faults.find((each) => each !== null);
  return fault === undefined ? 'held' : { broken: fault };
}

/**
 * Checks that a bad input was refused as the client's own fault, in the error shape of its
 * protocol.
 */
export async function wasRefused(response: Response): Promise<Verdict> {
  const text = await response.text();
  const shown = text.slice(0, 200);
  if (response.status < 400) return { broken: `it was taken: ${response.status} ${shown}` };
  if (response.status >= 500) return { broken: `it answered ${response.status} ${shown}` };
  return verdictOf(isErrorBody(text) ? null : `its error has no known shape: ${shown}`);
}

/** Checks that an odd input, which may be taken or not, caused no fault of the server. */
export async function hadNoFault(response: Response): Promise<Verdict> {
  const text = await response.text();
  if (response.status >= 500) {
    return { broken: `it answered ${response.status} ${text.slice(0, 200)}` };
  }
  return verdictOf(
    text.includes('internal_error') || text.includes('worker_failed')
      ? `its answer broke: ${text.slice(-200)}`
      : null,
  );
}

function isErrorBody(text: string): boolean {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === 'object' && body !== null && 'error' in body;
  } catch {
    return false;
  }
}
