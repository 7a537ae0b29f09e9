/** Ranks on the cpu backend: what their threads share, and how their work is watched. */
import { createCpuRanks } from './backend/cpu/ranks.ts';
import type { Absorption } from './backend/attention-plan.ts';
import type { Layout } from './model/mla-moe/shard.ts';
import type { RanksOptions } from './open-ranks.ts';
import type { CpuRankOpening } from './rank-entry.ts';

/** More than any step's pause between two collectives, and soon enough for a supervisor. */
export const defaultStepMs = 4_000;

export interface CpuRanksOptions {
  /** Threads that compute, of all ranks together; a rank has one at least. */
  readonly threads: number;
  readonly absorb?: Absorption | undefined;
  readonly stepMs?: number;
}

export function openCpuRanks(
  layout: Layout,
  { threads, absorb, stepMs = defaultStepMs }: CpuRanksOptions,
): ReturnType<RanksOptions['openRanks']> {
  const ranks = createCpuRanks(layout);
  const count = layout.tensorParallel * layout.dataParallel;
  return {
    entry: new URL('./rank-entry.ts', import.meta.url),
    openingOf: (rank): CpuRankOpening => ({
      ranks: ranks.memoryOf(rank),
      threads: Math.max(1, Math.floor(threads / count)),
      absorb,
    }),
    abort: ranks.abort,
    progress: ranks.progress,
    stepMs,
  };
}
