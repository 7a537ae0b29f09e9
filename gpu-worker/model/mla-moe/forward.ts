/**
 * The forward pass of DeepSeek-V3, V3.2 and GLM-5 over a `Backend`, written once for prefill chunks
 * and decode steps alike: a batch is rows of any sequences, and everything a row needs of earlier
 * tokens it reads from the paged caches. Names follow the papers: latent, rope, indexer, gate.
 */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import type { Backend } from '../../backend/backend.ts';
import type { Batch } from '../../backend/batch.ts';
import type {
  LayerCache,
  Routing,
  Selection,
  Tensor,
  TensorPrecision,
} from '../../backend/shapes.ts';
import type { Draw } from '../../backend/draw.ts';
import type { ModelConfig } from './config.ts';
import type { CachelessModel, ModelOptions } from '../family.ts';
import type { ForwardObserver, Model, ModelLimits } from '../model.ts';
import { buildRopeTable, emptyRopeTable } from './rope.ts';
import type {
  DrafterWeights,
  ExpertsWeights,
  FeedForwardWeights,
  IndexerWeights,
  LayerWeights,
  MlpWeights,
  ModelWeights,
} from './weights.ts';

/** These norms have epsilons of their own (docs/engine-spec.md#norms). */
const indexNormEpsilon = 1e-6;
const latentNormEpsilon = 1e-6;

/** Allocates the activations of a model; `withCache` then allocates its caches. */
export function prepareModel(
  config: ModelConfig,
  weights: ModelWeights,
  backend: Backend,
  options: ModelOptions,
): CachelessModel {
  const { ropeDim, latentDim } = config.attention;
  const { limits } = options;
  const usedIndexer = options.attention === 'sparse' ? config.indexer : null;
  const positions = config.contextLength;
  const rope = { dim: ropeDim, positions };
  const table = backend.isPlan === true ? emptyRopeTable(rope) : buildRopeTable(config.rope, rope);
  backend.rows.ropeTable(table);
  const { drafter } = weights;
  const buffers = allocateBuffers(config, backend, { limits, drafts: drafter !== null });
  const indexDim = usedIndexer?.dim ?? 0;
  const sharing = config.layerKinds.flatMap(({ indexer }, layer) =>
    indexer === 'shared' ? [layer] : [],
  );
  const keylessLayers = new Set(sharing);
  const layers = config.layers + (drafter === null ? 0 : 1);
  const shape = { layers, latentDim, ropeDim, indexDim, keylessLayers };
  return {
    blockBytes: backend.caches.blockBytes(shape),
    withCache(blocks) {
      const caches = backend.caches.make({ ...shape, blocks });
      const isSparse = usedIndexer !== null;
      const parts = { config, weights, backend, limits, isSparse, buffers, blocks, caches };
      return new ForwardModel(parts);
    },
  };
}

interface ModelParts {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly backend: Backend;
  readonly limits: ModelLimits;
  readonly isSparse: boolean;
  readonly buffers: Buffers;
  readonly blocks: number;
  readonly caches: readonly LayerCache[];
}

class ForwardModel implements Model {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly limits: ModelLimits;
  readonly blocks: number;
  readonly draft: Model['draft'];
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #backend: Backend;
  readonly #caches: readonly LayerCache[];
  readonly #buffers: Buffers;
  readonly #sparse: boolean;
  #rows = 0;

  constructor(parts: ModelParts) {
    this.#config = parts.config;
    this.#weights = parts.weights;
    this.#backend = parts.backend;
    this.#sparse = parts.isSparse;
    this.#buffers = parts.buffers;
    this.#caches = parts.caches;
    this.vocabSize = parts.config.vocabSize;
    this.contextLength = parts.config.contextLength;
    this.limits = parts.limits;
    this.blocks = parts.blocks;
    const { drafter } = parts.weights;
    this.draft =
      drafter === null ? null : (batch, hiddenRows) => this.#draft(drafter, batch, hiddenRows);
  }

  forward(batch: Batch, observer: ForwardObserver = {}): void {
    const rows = batch.tokens.length;
    assert(rows <= this.limits.rowsMax, `a batch of ${rows} rows`);
    this.#rows = rows;
    if (rows === 0) return this.#serveExperts();
    this.#backend.batch.begin(batch);
    // An observer reads between the ops; what it sees can't be run again without it.
    if (observer.hidden || observer.selection) this.#compute(observer);
    else this.#backend.batch.captureOrReplay(this.#computeUnseen);
  }

  readonly #computeUnseen = (): void => this.#compute({});

  #compute(observer: ForwardObserver): void {
    const rows = this.#rows;
    const { rows: rowOps } = this.#backend;
    const { residual, normed, delta } = this.#buffers;
    const norm = { rows, epsilon: this.#config.normEpsilon };

    this.#embed(residual);
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

  /** normed = the MTP module over tokens and hidden states (docs/engine-spec.md). */
  #draft(weights: DrafterWeights, batch: Batch, hiddenRows: Int32Array): void {
    const rows = batch.tokens.length;
    const { rows: rowOps, gemm } = this.#backend;
    const { residual, normed, delta, draft } = this.#buffers;
    assert(draft !== null && rows > 0, 'a model that drafts has buffers and rows for it');
    assert(rows <= this.limits.rowsMax && rows === hiddenRows.length, `${rows} rows of drafts`);
    this.#backend.batch.begin(batch);
    rowOps.gatherRows(draft.hidden, normed, hiddenRows);
    this.#rows = rows;
    const norm = { rows, epsilon: this.#config.normEpsilon };
    this.#embed(residual);
    rowOps.rmsNorm(draft.joinedEmbedding, residual, weights.embeddingNorm, norm);
    rowOps.rmsNorm(draft.joinedHidden, draft.hidden, weights.hiddenNorm, norm);
    gemm.linear(residual, draft.joined, weights.join, rows);
    const { layer } = weights;
    rowOps.rmsNorm(normed, residual, layer.inputNorm, norm);
    this.#attention(layer, this.#config.layers, {});
    rowOps.addRmsNorm(normed, residual, delta, layer.postNorm, norm);
    this.#feedForward(layer.feedForward);
    rowOps.addRmsNorm(normed, residual, delta, weights.headNorm, norm);
  }

  /** Takes part in a step of the other groups: their rows come to the experts of this rank. */
  #serveExperts(): void {
    const { size } = this.#backend.ranks.experts;
    assert(size > 1, 'a batch has rows unless others have them');
    for (const { feedForward } of this.#weights.layers) {
      if (feedForward.kind === 'experts') this.#routedExperts(feedForward);
    }
  }

  #embed(residual: Tensor): void {
    const { rows: rowOps, ranks } = this.#backend;
    const table = this.#weights.embedding;
    if (ranks.heads.size === 1) return rowOps.embed(residual, table);
    rowOps.embed(residual, table, ranks.heads.rank * table.outputs);
    ranks.allReduce(residual, this.#rows);
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
    const { rows: rowOps, gemm, ranks } = this.#backend;
    const { normed, lastHidden, logits, ownLogits } = this.#buffers;
    rowOps.gatherRows(lastHidden, normed, rows);
    gemm.linearF32(ownLogits ?? logits, lastHidden, this.#weights.head, rows.length);
    if (ownLogits !== null) ranks.allGather(logits, ownLogits, rows.length);
    return logits;
  }

  /** delta = attention(normed) (docs/engine-spec.md#mla). */
  #attention(layer: LayerWeights, index: number, observer: ForwardObserver): void {
    const { gemm, rows: rowOps, caches, indexer, mla, ranks } = this.#backend;
    const rows = this.#rows;
    const cache = at(this.#caches, index);
    const { nopeDim, softmaxScale: scale } = this.#config.attention;
    const heads = this.#config.attention.heads / ranks.heads.size;
    const { normed, queryLatent, q, kv, attended, delta } = this.#buffers;
    const norm = { rows, epsilon: latentNormEpsilon };

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
    if (selection !== null && layer.indexer !== null && observer.selection) {
      observer.selection(index, indexer.readSelection(selection, rows));
    }

    mla.attend(attended, q, { cache, kv: layer.kvB, selection, scale });
    gemm.linearOfParts(delta, attended, layer.output, rows);
  }

  /**
   * The tokens that each row attends to, or null when it attends to all
   * (docs/engine-spec.md#selection). A layer without an indexer of its own attends to what the last
   * one has selected, which stands in the buffer until the next does.
   */
  #select(weights: IndexerWeights | null, cache: LayerCache): Selection | null {
    const { index } = this.#buffers;
    const config = this.#config.indexer;
    if (!this.#sparse || config === null || index === null) return null;
    if (weights === null) return index.selection;
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
    this.#routedExperts(weights);
  }

  #routedExperts(weights: ExpertsWeights): void {
    const { normed, delta, moe: buffers } = this.#buffers;
    assert(buffers !== null, 'a layer has experts but the configuration has none');
    const { moe } = this.#backend;
    moe.forward(delta, normed, buffers.shared, buffers.routing, weights.experts, this.#rows);
  }

  #mlp(out: Tensor, weights: MlpWeights, gate: Tensor, up: Tensor): void {
    const { gemm, rows: rowOps } = this.#backend;
    const rows = this.#rows;
    gemm.linear(gate, this.#buffers.normed, weights.gate, rows);
    gemm.linear(up, this.#buffers.normed, weights.up, rows);
    rowOps.siluMultiply(gate, gate, up, rows);
    gemm.linearOfParts(out, gate, weights.down, rows);
  }

  #observeHidden(observer: ForwardObserver, stage: number, states: Tensor): void {
    if (observer.hidden)
      observer.hidden(stage, this.#backend.memory.read(states, this.#rows).slice());
  }
}

type Buffers = ReturnType<typeof allocateBuffers>;

/** Every activation of a step, made once. Rows are the batch's capacity. */
function allocateBuffers(
  config: ModelConfig,
  backend: Backend,
  { limits, drafts }: { limits: ModelLimits; drafts: boolean },
) {
  const { hiddenSize } = config;
  const { queryLatentDim, latentDim, nopeDim, ropeDim, valueDim } = config.attention;
  const { size } = backend.ranks.heads;
  const heads = config.attention.heads / size;
  const mlpSize = config.intermediateSize / size;
  const make = (columns: number, precision?: TensorPrecision) =>
    backend.memory.tensor(limits.rowsMax, columns, precision);
  return {
    residual: make(hiddenSize),
    normed: make(hiddenSize, 'input'),
    delta: make(hiddenSize),
    queryLatent: make(queryLatentDim ?? 1, 'input'),
    q: make(heads * (nopeDim + ropeDim)),
    kv: make(latentDim + ropeDim),
    attended: make(heads * valueDim),
    index: allocateIndexBuffers(config, backend, limits),
    mlpGate: make(mlpSize, 'input'),
    mlpUp: make(mlpSize),
    moe: allocateMoeBuffers(config, backend, limits),
    draft: drafts ? allocateDraftBuffers(config, backend, limits) : null,
    lastHidden: backend.memory.tensor(limits.logitRowsMax, hiddenSize),
    logits: backend.memory.tensor(limits.logitRowsMax, config.vocabSize, 'f32'),
    ownLogits:
      size === 1
        ? null
        : backend.memory.tensor(limits.logitRowsMax, config.vocabSize / size, 'f32'),
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

/** Hidden states that the MTP module starts from, and its input: two halves of one tensor. */
function allocateDraftBuffers(
  { hiddenSize }: ModelConfig,
  { memory }: Backend,
  { rowsMax }: ModelLimits,
) {
  const joined = memory.tensor(rowsMax, 2 * hiddenSize);
  return {
    hidden: memory.tensor(rowsMax, hiddenSize),
    joined,
    joinedEmbedding: memory.columns(joined, 0, hiddenSize),
    joinedHidden: memory.columns(joined, hiddenSize, hiddenSize),
  };
}

function allocateMoeBuffers(config: ModelConfig, backend: Backend, limits: ModelLimits) {
  const { experts } = config;
  if (experts === null) return null;
  const sharedSize = (experts.shared * experts.intermediateSize) / backend.ranks.heads.size;
  return {
    gateLogits: backend.memory.tensor(limits.rowsMax, experts.count, 'f32'),
    routing: backend.moe.routing(limits.rowsMax, experts.perToken) satisfies Routing,
    shared: backend.memory.tensor(limits.rowsMax, config.hiddenSize),
    sharedGate: backend.memory.tensor(limits.rowsMax, sharedSize, 'input'),
    sharedUp: backend.memory.tensor(limits.rowsMax, sharedSize),
  };
}
