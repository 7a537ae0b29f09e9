/**
 * The CPU backend: exact, and the reference for the others. All of its arrays lie in one shared
 * WebAssembly memory; its kernels (kernels/) run on the calling thread and on helpers.
 *
 * A row's result never depends on what else is in the call: not on other rows, chunks, sequences or
 * the number of threads. Every sum has one fixed order, and nothing uses fused multiply-adds, so
 * all machines compute the same bits.
 */
import { strict as assert } from 'node:assert';
import { availableParallelism } from 'node:os';
import type { Absorption } from '../attention-plan.ts';
import type { Backend } from '../backend.ts';
import type { KernelChoice } from '../kernel-choices.ts';
import { Mla } from '../mla.ts';
import type { Numerics } from '../numerics.ts';
import { alone } from '../ranks.ts';
import type { RankOps } from '../ranks.ts';
import { Arena } from './arena.ts';
import { CpuAttention } from './attention.ts';
import { CpuCaches } from './caches.ts';
import { CpuGemm } from './gemm.ts';
import { CpuIndexer } from './indexer.ts';
import { CpuMemory } from './memory.ts';
import { CpuMoe } from './moe.ts';
import type { OpContext } from './op-context.ts';
import { CpuRanks } from './ranks.ts';
import type { CpuRankMemory } from './ranks.ts';
import { CpuRowOps } from './row-ops.ts';
import { CpuSampling } from './sampling.ts';
import { CpuStep } from './step.ts';
import { ThreadPool } from './thread-pool.ts';
import { CpuWeights } from './weights.ts';

export interface CpuBackendOptions {
  readonly numerics: Numerics;
  /** Most rows that a step has. */
  readonly rowsMax: number;
  /** Rows whose attention is absorbed; all unless given. */
  readonly absorb?: Absorption | undefined;
  /** Threads that compute, the caller's included; one per core unless given. */
  readonly threads?: number;
  /**
   * Bytes of weights, activations and caches together; the machine's memory, at most 4 GiB, unless
   * given.
   */
  readonly memoryBytesMax?: number;
  /** Shared with the other ranks that the model lies over; none unless given. */
  readonly ranks?: CpuRankMemory;
}

/** Rejects if the memory does not fit or a helper thread does not start. */
export async function openCpuBackend(options: CpuBackendOptions): Promise<CpuBackend> {
  const { numerics, rowsMax, threads = availableParallelism() } = options;
  assert(Number.isInteger(rowsMax) && rowsMax > 0, 'rowsMax must be a positive integer');
  assert(Number.isInteger(threads) && threads > 0, 'threads must be a positive integer');
  const arena = new Arena(options.memoryBytesMax);
  const step = new CpuStep(arena, rowsMax);
  const pool = await ThreadPool.open(arena, threads);
  const round = numerics.activations === 'bf16' ? 1 : 0;
  const ranks = options.ranks === undefined ? null : new CpuRanks({ arena, round }, options.ranks);
  if (ranks !== null) pool.watch(() => ranks.experts.work());
  const context: OpContext = {
    arena,
    pool,
    numerics,
    step,
    ranks,
    round,
    powerOfTwo: numerics.scaleFormat === 'ue8m0' ? 1 : 0,
  };
  return new CpuBackend(context, options.absorb);
}

const cpuKernels: readonly KernelChoice[] = [
  { op: 'all ops', kernel: 'WebAssembly, 128 bits wide', unit: 'plain', shapes: [] },
];

export class CpuBackend implements Backend {
  readonly name = 'cpu' as const;
  readonly numerics: Numerics;
  readonly context: OpContext;
  readonly memory: CpuMemory;
  readonly weights: CpuWeights;
  readonly batch: CpuStep;
  readonly rows: CpuRowOps;
  readonly gemm: CpuGemm;
  readonly caches: CpuCaches;
  readonly indexer: CpuIndexer;
  readonly attention: CpuAttention;
  readonly mla: Mla;
  readonly moe: CpuMoe;
  readonly ranks: RankOps;
  readonly sampling: CpuSampling;
  readonly kernels = { list: () => cpuKernels };

  constructor(context: OpContext, absorb?: Absorption) {
    this.context = context;
    this.numerics = context.numerics;
    this.batch = context.step;
    this.memory = new CpuMemory(context);
    this.rows = new CpuRowOps(context);
    this.gemm = new CpuGemm(context);
    this.weights = new CpuWeights(context, this.gemm);
    this.caches = new CpuCaches(context, this.memory, this.rows);
    this.indexer = new CpuIndexer(context);
    this.attention = new CpuAttention(context, this.gemm);
    this.mla = new Mla({ ...this, step: context.step }, absorb);
    this.moe = new CpuMoe(context, this.gemm);
    this.ranks = context.ranks ?? alone;
    this.sampling = new CpuSampling(context);
  }

  close(): Promise<void> {
    return this.context.pool.close();
  }
}
