/**
 * Preloaded into a worker (`node --import`): one of its ranks fails, hangs or dies in the middle of
 * an answer, as the query of this module's address says.
 */
import { workerData } from 'node:worker_threads';
import { CpuRowOps } from '../../../gpu-worker/backend/cpu/row-ops.ts';

/** The rank that faults, and the steps that it computes before. */
export const faultyRank = 1;
export const stepsBeforeFault = 6;

export type RankFault = 'throws' | 'hangs' | 'dies';

// The test that names this module gives one of them.
const fault = new URL(import.meta.url).searchParams.get('fault') as RankFault;

// Threads of other kinds are started with other data.
const { rank } = (workerData ?? {}) as { rank?: number };
if (rank === faultyRank) {
  const { embed } = CpuRowOps.prototype;
  let steps = 0;
  CpuRowOps.prototype.embed = function embedUntilFault(...call) {
    if (steps++ >= stepsBeforeFault) happen();
    embed.apply(this, call);
  };
}

function happen(): void {
  if (fault === 'throws') throw new Error('the GPU has fallen off the bus');
  if (fault === 'dies') process.exit(3);
  for (;;);
}
