/**
 * Every op of the backend contract written the obvious way, one value at a time with float64 sums:
 * the slow twin that the tests hold the kernels against. It shares only the codecs with them.
 */
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import { Mla } from '../../../gpu-worker/backend/mla.ts';
import type { Numerics } from '../../../gpu-worker/backend/numerics.ts';
import { alone } from '../../../gpu-worker/backend/ranks.ts';
import { PlainAttention } from './plain/attention.ts';
import { PlainCaches } from './plain/caches.ts';
import { PlainContext } from './plain/context.ts';
import { PlainGemm } from './plain/gemm.ts';
import { PlainIndexer } from './plain/indexer.ts';
import { PlainMemory } from './plain/memory.ts';
import { PlainMoe } from './plain/moe.ts';
import { PlainRowOps } from './plain/row-ops.ts';
import { PlainSampling } from './plain/sampling.ts';
import { PlainWeights } from './plain/weights.ts';

export class PlainBackend implements Backend {
  readonly name = 'cpu' as const;
  readonly numerics: Numerics;
  readonly memory = new PlainMemory();
  readonly weights = new PlainWeights();
  readonly batch: PlainContext;
  readonly rows: PlainRowOps;
  readonly gemm: PlainGemm;
  readonly caches: PlainCaches;
  readonly indexer: PlainIndexer;
  readonly attention: PlainAttention;
  readonly mla: Mla;
  readonly moe: PlainMoe;
  readonly sampling = new PlainSampling();
  readonly ranks = alone;
  readonly kernels = { list: () => [] };

  constructor(numerics: Numerics) {
    const context = new PlainContext(numerics);
    this.numerics = numerics;
    this.batch = context;
    this.rows = new PlainRowOps(context);
    this.gemm = new PlainGemm(context);
    this.caches = new PlainCaches(context, this.memory, this.rows);
    this.indexer = new PlainIndexer(context);
    this.attention = new PlainAttention(context, this.gemm);
    this.mla = new Mla({ ...this, step: context });
    this.moe = new PlainMoe(context, this.gemm);
  }

  async close(): Promise<void> {}
}
