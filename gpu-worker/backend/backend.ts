/**
 * The contract between the forward graph (`model/mla-moe/forward.ts`) and what computes it
 * (`backend/cpu`, `backend/cuda`), by groups of ops: each group has a file here, with shapes in its
 * comments, and one of the same name in each backend. Every op is synchronous for its caller; a
 * backend that queues work waits in `read*` and `sample`. `mla` is made of other ops, alike in
 * both. Ops never allocate: all tensors, caches and selections are made at start.
 */
import type { AttentionOps } from './attention.ts';
import type { BatchOps } from './batch.ts';
import type { CacheOps } from './caches.ts';
import type { GemmOps } from './gemm.ts';
import type { IndexerOps } from './indexer.ts';
import type { KernelChoices } from './kernel-choices.ts';
import type { MemoryOps } from './memory.ts';
import type { Mla } from './mla.ts';
import type { MoeOps } from './moe.ts';
import type { Numerics } from './numerics.ts';
import type { RankOps } from './ranks.ts';
import type { RowOps } from './row-ops.ts';
import type { SamplingOps } from './sampling.ts';
import type { WeightOps } from './weights.ts';

export interface Backend {
  readonly name: 'cpu' | 'cuda';
  readonly numerics: Numerics;
  readonly memory: MemoryOps;
  readonly weights: WeightOps;
  readonly batch: BatchOps;
  readonly rows: RowOps;
  readonly gemm: GemmOps;
  readonly caches: CacheOps;
  readonly indexer: IndexerOps;
  readonly attention: AttentionOps;
  readonly mla: Pick<Mla, 'kvUp' | 'attend'>;
  readonly moe: MoeOps;
  /** The other ranks that the model lies over. */
  readonly ranks: RankOps;
  readonly sampling: SamplingOps;
  /** Whole once the model is warm. */
  readonly kernels: Pick<KernelChoices, 'list'>;
  /**
   * A backend that takes the same memory for the same calls and computes nothing: it tells what a
   * model will take before its weights are read. Backends without it are not asked ahead.
   */
  planned?(): Backend;
  /** True of such a backend: nobody reads the values that it is given. */
  readonly isPlan?: boolean;
  /** Ends threads and frees device memory. The backend can't be used afterwards. */
  close(): Promise<void>;
}
