/** Tells whether the edge can serve: records can be written, and a worker takes requests. */
import { describe } from '../middleware/answer-error.ts';
import type { Services } from '../services.ts';

export interface Readiness {
  readonly status: 'ready' | 'not-ready';
  /** `ok`, or what is wrong. */
  readonly checks: Readonly<Record<'records' | 'workers', string>>;
}

/** Everybody may ask, and a check writes to the disk: so it is made this often at most. */
const keptMs = 1_000;

export function readinessOf(services: Services): () => Promise<Readiness> {
  let found: Promise<Readiness> | null = null;
  let foundAtMs = -Infinity;
  return () => {
    const nowMs = performance.now();
    if (found === null || nowMs - foundAtMs >= keptMs) {
      found = look(services);
      foundAtMs = nowMs;
    }
    return found;
  };
}

async function look(services: Services): Promise<Readiness> {
  const [records, workers] = await Promise.all([lookAtRecords(services), lookAtWorkers(services)]);
  const isReady = records === 'ok' && workers === 'ok';
  return { status: isReady ? 'ready' : 'not-ready', checks: { records, workers } };
}

/** Names the check alone: the reason is the operator's to know, and stands in the log. */
async function lookAtRecords({ checkRecords, log }: Services): Promise<string> {
  try {
    await checkRecords();
    return 'ok';
  } catch (error) {
    log('warn', 'not-ready', { reason: describe(error) });
    return 'cannot be written';
  }
}

async function lookAtWorkers({ fleet, log }: Services): Promise<string> {
  try {
    const workers = await fleet.status();
    return workers.some(({ state }) => state === 'ready') ? 'ok' : 'none takes requests';
  } catch (error) {
    log('warn', 'fleet-unreachable', { reason: describe(error) });
    return 'are not known';
  }
}
