/**
 * The processor time of another process, all of its threads together: on a machine that others use
 * too it says more than the clock does. Linux alone tells it to the nanosecond.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** In microseconds since its start; NaN where the system does not say. */
export function cpuUsOf(pid: number): number {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.reduce((sum, thread) => sum + threadUs(pid, thread), 0);
  } catch {
    return Number.NaN;
  }
}

function threadUs(pid: number, thread: string): number {
  const [runNs = ''] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
  return Number(runNs) / 1_000;
}
