/** The parts of the CPU backend that its ops share. */
import type { Numerics } from '../numerics.ts';
import type { Arena } from './arena.ts';
import type { CpuRanks } from './ranks.ts';
import type { CpuStep } from './step.ts';
import type { ThreadPool } from './thread-pool.ts';

export interface OpContext {
  readonly arena: Arena;
  readonly pool: ThreadPool;
  readonly numerics: Numerics;
  readonly step: CpuStep;
  /** Null where the model lies whole on this backend. */
  readonly ranks: CpuRanks | null;
  /** 1 if ops round what they write to bfloat16: the kernels' `round` argument. */
  readonly round: 0 | 1;
  /** 1 if the scales of a linear op's input are powers of two: its kernels' `powerOfTwo`. */
  readonly powerOfTwo: 0 | 1;
}
