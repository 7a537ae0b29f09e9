/** The entry of a rank's thread: picks its backend. */
import { strict as assert } from 'node:assert';
import { parentPort, workerData } from 'node:worker_threads';
import type { Absorption } from './backend/attention-plan.ts';
import { openCpuBackend } from './backend/cpu/cpu-backend.ts';
import type { CpuRankMemory } from './backend/cpu/ranks.ts';
import { RanksAborted } from './backend/cpu/shared-ranks.ts';
import type { RankStart } from './ranks/rank-messages.ts';
import { runRankThread } from './ranks/rank-thread.ts';

/** The part of a rank's start that its cpu backend is opened with. */
export interface CpuRankOpening {
  readonly ranks: CpuRankMemory;
  readonly threads: number;
  readonly absorb?: Absorption | undefined;
}

assert(parentPort !== null, 'this module is the entry of a thread');
// cpu-ranks.ts is the only one to start a thread on this file.
const start = workerData as RankStart<CpuRankOpening>;
await runRankThread({
  port: parentPort,
  start,
  openBackend: ({ numerics, options, opening }) =>
    openCpuBackend({ numerics, rowsMax: options.limits.rowsMax, ...opening }),
  isAftermath: (error) => error instanceof RanksAborted,
});
