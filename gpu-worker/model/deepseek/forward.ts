/**
 * The forward pass of DeepSeek-V3 and V3.2 over a `Backend`, written once for prefill chunks and
 * decode steps alike: a batch is rows of any sequences, and everything a row needs of earlier
 * tokens it reads from the paged caches. Names follow the papers: latent, rope, indexer, gate.
 */
import assert from 'node:assert/strict';
import { maskedTokensMax } from '../../backend/attention.ts';
import type { Backend } from '../../backend/backend.ts';
import type { Batch } from '../../backend/batch.ts';
import type { MemoryUse } from '../../backend/memory.ts';
import type {
  LayerCache,
  Routing,
  Selection,
  Tensor,
  TensorPrecision,
} from '../../backend/shapes.ts';
import type { Draw } from '../../backend/draw.ts';
import type { ModelConfig } from './config.ts';
import type { ForwardObserver, Model, ModelLimits } from '../model.ts';
import { buildRopeTable } from './rope.ts';
import type {
  Absorption,
  FeedForwardWeights,
  IndexerWeights,
  KvUpWeights,
  LayerWeights,
  MlpWeights,
  ModelWeights,
} from './weights.ts';

/** LayerNorm of the index keys has an epsilon of its own (docs/engine-spec.md#norms). */
const indexNormEpsilon = 1e-6;
/**
 * Rows of a sequence in one batch from which on expanding keys and values pays. Per token of context
 * it costs 2 * 512 * 32,768 operations at V3.2's widths, and saves 2 * 128 * (1,088 - 320) a row.
 */
export const expandedRowsMin = 128;
/**
 * What expanding a token costs, and what attending to a selected one absorbed does, in tokens that a row
 * attends to expanded: 33.5 MFLOP and 278.5 KFLOP against 81.9 KFLOP at V3.2's widths. The latter is more
 * than 3.4, because the rate is lower and the row's queries and outputs go through kv_b as well.
 * `npm run bench:gpu -- masked` measures both.
 */
const expansionCost = 450;
const absorbedCost = 4.5;

/**
 * Tokens of a sequence up to which so many of its rows attend faster expanded to all that they see, with
 * what they do not select masked, than absorbed to their `topK` selected tokens. Rows see
 * `tokens - rows / 2` on average, and so break even where
 * `expansionCost * tokens + rows * (tokens - rows / 2) = rows * absorbedCost * topK`.
 */
export function limitMaskedTokens({ rows, topK }: { rows: number; topK: number }): number {
  const tokens = (rows * (absorbedCost * topK + rows / 2)) / (expansionCost + rows);
  return Math.min(Math.floor(tokens), maskedTokensMax);
}

export interface ModelOptions {
  /** `dense` attends to every token and leaves the indexer out: the baseline of every speed claim. */
  readonly attention: 'sparse' | 'dense';
  readonly absorb: Absorption;
  readonly limits: ModelLimits;
  /** Decides how many cache blocks to make, once weights and activations are allocated. */
  chooseBlocks(memory: MemoryUse, blockBytes: number): number;
}

export function createModel(
  config: ModelConfig,
  weights: ModelWeights,
  backend: Backend,
  options: ModelOptions,
): Model {
  return new ForwardModel(config, weights, backend, options);
}

/** How a batch's rows attend. */
interface AttentionForms {
  /** The batch's first rows, whose attention is absorbed. The others' keys and values are expanded. */
  readonly absorbedRows: number;
  /** Whether some expanded rows select fewer tokens than they see: they mask what they do not select. */
  readonly masked: boolean;
}

class ForwardModel implements Model {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly limits: ModelLimits;
  readonly blocks: number;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #backend: Backend;
  readonly #caches: readonly LayerCache[];
  readonly #buffers: Buffers;
  readonly #sparse: boolean;
  readonly #absorb: Absorption;
  #rows = 0;
  #forms: AttentionForms = { absorbedRows: 0, masked: false };

  constructor(config: ModelConfig, weights: ModelWeights, backend: Backend, options: ModelOptions) {
    this.#config = config;
    this.#weights = weights;
    this.#backend = backend;
    this.#sparse = options.attention === 'sparse' && config.indexer !== null;
    this.#absorb = options.absorb;
    this.vocabSize = config.vocabSize;
    this.contextLength = config.contextLength;
    this.limits = options.limits;
    backend.rows.ropeTable(
      buildRopeTable(config.rope, {
        dim: config.attention.ropeDim,
        positions: config.contextLength,
      }),
    );
    this.#buffers = allocateBuffers(config, backend, options.limits);
    const shape = {
      layers: config.layers,
      latentDim: config.attention.latentDim,
      ropeDim: config.attention.ropeDim,
      indexDim: this.#sparse ? (config.indexer?.dim ?? 0) : 0,
    };
    this.blocks = options.chooseBlocks(backend.memory.use(), backend.caches.blockBytes(shape));
    this.#caches = backend.caches.make({ ...shape, blocks: this.blocks });
  }

  forward(batch: Batch, observer: ForwardObserver = {}): void {
    const rows = batch.tokens.length;
    assert(rows > 0 && rows <= this.limits.rowsMax, `a batch of ${rows} rows`);
    this.#rows = rows;
    this.#forms = this.#chooseForms(batch);
    this.#backend.batch.begin(batch);
    // An observer reads between the ops; what it sees can't be run again without it.
    if (observer.hidden || observer.selection) this.#compute(observer);
    else {
      const { absorbedRows, masked } = this.#forms;
      this.#backend.batch.captureOrReplay(2 * absorbedRows + Number(masked), this.#computeUnseen);
    }
  }

  readonly #computeUnseen = (): void => this.#compute({});

  #compute(observer: ForwardObserver): void {
    const rows = this.#rows;
    const { rows: rowOps } = this.#backend;
    const { residual, normed, delta } = this.#buffers;
    const norm = { rows, epsilon: this.#config.normEpsilon };

    rowOps.embed(residual, this.#weights.embedding);
    this.#observeHidden(observer, 0, residual);
    this.#weights.layers.forEach((layer, index) => {
      if (index === 0) rowOps.rmsNorm(normed, residual, layer.inputNorm, norm);
      else rowOps.addRmsNorm(normed, residual, delta, layer.inputNorm, norm);
      if (index > 0) this.#observeHidden(observer, index, residual);
      this.#attention(layer, index, observer);
      rowOps.addRmsNorm(normed, residual, delta, layer.postNorm, norm);
      this.#feedForward(layer.feedForward);
    });
    rowOps.addRmsNorm(normed, residual, delta, this.#weights.finalNorm, norm);
    this.#observeHidden(observer, this.#config.layers, normed);
  }

  logits(rows: Int32Array): Float32Array {
    return this.#backend.memory.read(this.#computeLogits(rows), rows.length);
  }

  sample(rows: Int32Array, draws: readonly Draw[]): (number | null)[] {
    assert(rows.length === draws.length, 'every row has a draw');
    return this.#backend.sampling.sample(this.#computeLogits(rows), draws);
  }

  #computeLogits(rows: Int32Array): Tensor {
    assert(rows.length > 0 && rows.length <= this.limits.logitRowsMax, `${rows.length} logit rows`);
    for (const row of rows) assert(row >= 0 && row < this.#rows, `no row ${row} in the last batch`);
    const { rows: rowOps, gemm } = this.#backend;
    const { normed, lastHidden, logits } = this.#buffers;
    rowOps.gatherRows(lastHidden, normed, rows);
    gemm.linearF32(logits, lastHidden, this.#weights.head, rows.length);
    return logits;
  }

  /** delta = attention(normed) (docs/engine-spec.md#mla). */
  #attention(layer: LayerWeights, index: number, observer: ForwardObserver): void {
    const { gemm, rows: rowOps, caches, indexer } = this.#backend;
    const rows = this.#rows;
    const cache = this.#caches[index];
    const { heads, nopeDim } = this.#config.attention;
    const { normed, queryLatent, q, kv, attended, delta } = this.#buffers;
    const norm = { rows, epsilon: this.#config.normEpsilon };

    if (layer.query.kind === 'direct') {
      gemm.linear(q, normed, layer.query.q, rows);
    } else {
      gemm.linear(queryLatent, normed, layer.query.qA, rows);
      rowOps.rmsNorm(queryLatent, queryLatent, layer.query.qNorm, norm);
      gemm.linear(q, queryLatent, layer.query.qB, rows);
    }
    rowOps.rotate(q, { rows, heads, start: nopeDim, layout: 'interleaved' });

    gemm.linear(kv, normed, layer.kvA, rows);
    caches.storeLatent(cache, kv, { weight: layer.kvNorm, epsilon: norm.epsilon });

    const selection = this.#select(layer.indexer, cache);
    if (selection !== null && observer.selection) {
      observer.selection(index, indexer.readSelection(selection, rows));
    }

    this.#attend(layer.kvB, cache, selection);
    gemm.linear(delta, attended, layer.output, rows);
  }

  /** attended = softmax(q k) v: the batch's first rows absorbed, the others expanded. */
  #attend(kvB: KvUpWeights, cache: LayerCache, selection: Selection | null): void {
    const { gemm, attention } = this.#backend;
    const { heads, nopeDim, ropeDim, valueDim, softmaxScale: scale } = this.#config.attention;
    const { q, absorbedQ, attendedLatent, attended } = this.#buffers;
    const { absorbedRows: rows, masked } = this.#forms;
    if (rows > 0) {
      assert(kvB.absorbed !== null, 'kv_b is not there in its absorbed form');
      gemm.toLatent(absorbedQ, q, kvB.absorbed, rows);
      attention.attend(attendedLatent, absorbedQ, cache, selection, { heads, scale, rows });
      gemm.fromLatent(attended, attendedLatent, kvB.absorbed, rows);
    }
    if (rows < this.#rows) {
      assert(kvB.whole !== null, 'kv_b is not there in its whole form');
      const options = { heads, scale, nopeDim, ropeDim, valueDim, firstRow: rows };
      const chosen = masked ? selection : null;
      attention.attendExpanded(attended, q, cache, kvB.whole, chosen, options);
    }
  }

  /**
   * Rows are absorbed up to the first of the batch's last sequences that all have many rows and few
   * enough tokens. Schedulers put decoding sequences first.
   */
  #chooseForms({ positions, sequences }: Batch): AttentionForms {
    if (this.#absorb === 'always') return { absorbedRows: this.#rows, masked: false };
    if (this.#absorb === 'never') return { absorbedRows: 0, masked: this.#sparse };
    const { indexer } = this.#config;
    const topK = this.#sparse && indexer !== null ? indexer.topK : Infinity;
    let absorbedRows = this.#rows;
    let masked = false;
    while (absorbedRows > 0) {
      const last = absorbedRows - 1;
      let first = last;
      while (first > 0 && sequences[first - 1] === sequences[last]) first--;
      const rows = absorbedRows - first;
      const tokens = (positions[last] ?? 0) + 1;
      const leavesOut = tokens > topK;
      if (rows < expandedRowsMin) break;
      if (leavesOut && tokens > limitMaskedTokens({ rows, topK })) break;
      masked ||= leavesOut;
      absorbedRows = first;
    }
    return { absorbedRows, masked };
  }

  /**
   * The tokens that each row attends to, or null when it attends to all
   * (docs/engine-spec.md#selection).
   */
  #select(weights: IndexerWeights | null, cache: LayerCache): Selection | null {
    const { index } = this.#buffers;
    const config = this.#config.indexer;
    if (!this.#sparse || weights === null || config === null || index === null) return null;
    const { gemm, rows: rowOps, caches, indexer, numerics } = this.#backend;
    const rows = this.#rows;
    const { heads, dim, ropeLayout } = config;
    const { normed, queryLatent } = this.#buffers;

    gemm.linear(index.queries, queryLatent, weights.queries, rows);
    const transform = numerics.hadamard;
    rowOps.rotate(index.queries, { rows, heads, start: 0, layout: ropeLayout, transform });
    gemm.linear(index.key, normed, weights.key, rows);
    const norm = { ...weights.keyNorm, epsilon: indexNormEpsilon };
    caches.storeIndexKeys(cache, index.key, norm, { layout: ropeLayout, transform });
    gemm.linearF32(index.headWeights, normed, weights.headWeights, rows);
    indexer.selectTopK(index.selection, cache, index.queries, index.headWeights, { heads, dim });
    return index.selection;
  }

  /**
   * delta = ffn(normed): a dense MLP, or routed experts on top of the shared one
   * (docs/engine-spec.md#moe).
   */
  #feedForward(weights: FeedForwardWeights): void {
    const { gemm, moe } = this.#backend;
    const rows = this.#rows;
    const { normed, delta, moe: buffers } = this.#buffers;
    if (weights.kind === 'dense') {
      this.#mlp(delta, weights.mlp, this.#buffers.mlpGate, this.#buffers.mlpUp);
      return;
    }
    const { experts } = this.#config;
    assert(
      buffers !== null && experts !== null,
      'a layer has experts but the configuration has none',
    );
    gemm.linearF32(buffers.gateLogits, normed, weights.gate, rows);
    moe.route(buffers.routing, buffers.gateLogits, weights.bias, rows, experts);
    this.#mlp(buffers.shared, weights.shared, buffers.sharedGate, buffers.sharedUp);
    moe.forward(delta, normed, buffers.shared, buffers.routing, weights.experts, rows);
  }

  #mlp(out: Tensor, weights: MlpWeights, gate: Tensor, up: Tensor): void {
    const { gemm, rows: rowOps } = this.#backend;
    const rows = this.#rows;
    gemm.linear(gate, this.#buffers.normed, weights.gate, rows);
    gemm.linear(up, this.#buffers.normed, weights.up, rows);
    rowOps.siluMultiply(gate, gate, up, rows);
    gemm.linear(out, gate, weights.down, rows);
  }

  #observeHidden(observer: ForwardObserver, stage: number, states: Tensor): void {
    if (observer.hidden)
      observer.hidden(stage, this.#backend.memory.read(states, this.#rows).slice());
  }
}

type Buffers = ReturnType<typeof allocateBuffers>;

/** Every activation of a step, made once. Rows are the batch's capacity. */
function allocateBuffers(config: ModelConfig, backend: Backend, limits: ModelLimits) {
  const { hiddenSize } = config;
  const { heads, queryLatentDim, latentDim, nopeDim, ropeDim, valueDim } = config.attention;
  const make = (columns: number, precision?: TensorPrecision) =>
    backend.memory.tensor(limits.rowsMax, columns, precision);
  return {
    residual: make(hiddenSize),
    normed: make(hiddenSize, 'input'),
    delta: make(hiddenSize),
    queryLatent: make(queryLatentDim ?? 1, 'input'),
    q: make(heads * (nopeDim + ropeDim)),
    kv: make(latentDim + ropeDim),
    absorbedQ: make(heads * (latentDim + ropeDim)),
    attendedLatent: make(heads * latentDim),
    attended: make(heads * valueDim),
    index: allocateIndexBuffers(config, backend, limits),
    mlpGate: make(config.intermediateSize, 'input'),
    mlpUp: make(config.intermediateSize),
    moe: allocateMoeBuffers(config, backend, limits),
    lastHidden: backend.memory.tensor(limits.logitRowsMax, hiddenSize),
    logits: backend.memory.tensor(limits.logitRowsMax, config.vocabSize, 'f32'),
  };
}

function allocateIndexBuffers(config: ModelConfig, backend: Backend, limits: ModelLimits) {
  const { indexer } = config;
  if (indexer === null) return null;
  return {
    queries: backend.memory.tensor(limits.rowsMax, indexer.heads * indexer.dim),
    key: backend.memory.tensor(limits.rowsMax, indexer.dim),
    headWeights: backend.memory.tensor(limits.rowsMax, indexer.heads, 'f32'),
    selection: backend.indexer.selection(limits.rowsMax, indexer.topK),
  };
}

function allocateMoeBuffers(config: ModelConfig, backend: Backend, limits: ModelLimits) {
  const { experts } = config;
  if (experts === null) return null;
  const sharedSize = experts.shared * experts.intermediateSize;
  return {
    gateLogits: backend.memory.tensor(limits.rowsMax, experts.count, 'f32'),
    routing: backend.moe.routing(limits.rowsMax, experts.perToken) satisfies Routing,
    shared: backend.memory.tensor(limits.rowsMax, config.hiddenSize),
    sharedGate: backend.memory.tensor(limits.rowsMax, sharedSize, 'input'),
    sharedUp: backend.memory.tensor(limits.rowsMax, sharedSize),
  };
}
