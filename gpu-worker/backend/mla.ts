/**
 * Multi-head latent attention of a whole batch (docs/engine-spec.md#mla): the plan decides which
 * rows are absorbed and which expanded, and the ops of the backend compute both.
 */
import { strict as assert } from 'node:assert';
import type { AttentionOps } from './attention.ts';
import { planAttention } from './attention-plan.ts';
import type { Absorption, AttentionPlan } from './attention-plan.ts';
import type { Batch } from './batch.ts';
import type { GemmOps } from './gemm.ts';
import type { MemoryOps } from './memory.ts';
import type { AbsorbedKv, HeadShape, LayerCache, Matrix, Selection, Tensor } from './shapes.ts';
import type { HostTensor, WeightOps } from './weights.ts';

/** kv_b_proj in the forms that the plan may need. */
export interface KvUp {
  readonly shape: HeadShape;
  readonly absorbed: AbsorbedKv | null;
  readonly whole: Matrix | null;
}

/** The batch of the current step, as far as a plan reads it. */
export interface PlannedStep {
  readonly rowsMax: number;
  readonly rows: number;
  /**
   * A property of the batch. A step whose launches are captured is replayed only for batches of
   * which it is the same.
   */
  guarded(property: string, read: (batch: Batch) => number): number;
}

export interface MlaCall {
  readonly cache: LayerCache;
  readonly kv: KvUp;
  /** The tokens that each row attends to; null: all that it sees. */
  readonly selection: Selection | null;
  /** Softmax scale, YaRN's factor included. */
  readonly scale: number;
}

interface Parts {
  readonly memory: Pick<MemoryOps, 'tensor'>;
  readonly weights: Pick<WeightOps, 'absorb' | 'wholeKv'>;
  readonly gemm: Pick<GemmOps, 'toLatent' | 'fromLatent'>;
  readonly attention: AttentionOps;
  readonly step: PlannedStep;
}

export class Mla {
  readonly #parts: Parts;
  readonly #absorption: Absorption | null;
  /** The absorbed queries and what they attended to, by the shape of the heads. */
  readonly #buffers = new Map<string, { queries: Tensor; latent: Tensor }>();
  #planned: { batch: Batch; topK: number | null; plan: AttentionPlan } | null = null;

  /** @param absorption by the backend and the shape unless given */
  constructor(parts: Parts, absorption?: Absorption) {
    this.#parts = parts;
    this.#absorption = absorption ?? null;
  }

  #absorptionOf(shape: HeadShape): Absorption {
    const faster = this.#parts.attention.expandsFaster(shape) ? 'decode' : 'always';
    return this.#absorption ?? faster;
  }

  /** Keeps kv_b_proj [heads * (nope + value), latent] in the forms that plans need; at start. */
  kvUp(source: HostTensor, shape: HeadShape): KvUp {
    const { weights } = this.#parts;
    const absorption = this.#absorptionOf(shape);
    if (absorption !== 'never') this.#buffersOf(shape);
    return {
      shape,
      absorbed: absorption === 'never' ? null : weights.absorb(source, shape),
      whole: absorption === 'always' ? null : weights.wholeKv(source, shape),
    };
  }

  #buffersOf({ heads, latentDim, ropeDim }: HeadShape): { queries: Tensor; latent: Tensor } {
    const { memory, step } = this.#parts;
    const key = `${heads} ${latentDim} ${ropeDim}`;
    const known = this.#buffers.get(key);
    if (known !== undefined) return known;
    const buffers = {
      queries: memory.tensor(step.rowsMax, heads * (latentDim + ropeDim)),
      latent: memory.tensor(step.rowsMax, heads * latentDim),
    };
    this.#buffers.set(key, buffers);
    return buffers;
  }

  /** out = softmax(q k) v; q [rows, heads * (nope + rope)], out [rows, heads * value]. */
  attend(out: Tensor, q: Tensor, { cache, kv, selection, scale }: MlaCall): void {
    const { gemm, attention, step } = this.#parts;
    const { heads, nopeDim, ropeDim, valueDim } = kv.shape;
    const topK = selection === null ? null : selection.width;
    const planOf = (batch: Batch) => this.#plan(batch, kv.shape, topK);
    const rows = step.guarded(`absorbed rows, top ${topK}`, (batch) => planOf(batch).absorbedRows);
    if (rows > 0) {
      assert(kv.absorbed !== null, 'kv_b is not there in its absorbed form');
      const { queries, latent } = this.#buffersOf(kv.shape);
      gemm.toLatent(queries, q, kv.absorbed, rows);
      attention.attend(latent, queries, cache, selection, { heads, scale, rows });
      gemm.fromLatent(out, latent, kv.absorbed, rows);
    }
    if (rows < step.rows) {
      assert(kv.whole !== null, 'kv_b is not there in its whole form');
      const masked = step.guarded(`masks, top ${topK}`, (batch) => Number(planOf(batch).masked));
      const options = { heads, scale, nopeDim, ropeDim, valueDim, firstRow: rows };
      const chosen = masked === 1 ? selection : null;
      attention.attendExpanded(out, q, cache, kv.whole, chosen, options);
    }
  }

  /** The plan of a batch is the same for all layers, and made once. */
  #plan(batch: Batch, shape: HeadShape, topK: number | null): AttentionPlan {
    if (this.#planned?.batch !== batch || this.#planned.topK !== topK) {
      const absorption = this.#absorptionOf(shape);
      this.#planned = { batch, topK, plan: planAttention(batch, { absorption, topK }) };
    }
    return this.#planned.plan;
  }
}
