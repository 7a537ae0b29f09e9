/**
 * The least time of a decode step, a token for each stream: the bytes that a GPU must read at its
 * memory's rate, and the operations that it must do at its tensor cores' rate. What GPUs say to
 * each other, launches and drafts are not in it, so that no step is faster.
 */
import { entryBytes, pageBytes } from '../backend/cache-layout.ts';
import { blockTokens } from '../backend/batch.ts';
import type { Numerics } from '../backend/numerics.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import { expertOf } from '../model/mla-moe/shard.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type { PlannedTensor, RankModel } from './layout.ts';
import { elementsOf, weightBytes } from './model-memory.ts';

export interface GpuRates {
  readonly hbmBytesPerSecond: number;
  readonly operationsPerSecond: number;
}

export interface StepFloor {
  readonly streams: number;
  readonly bytesMs: number;
  readonly operationsMs: number;
  /** The larger of the two. */
  readonly ms: number;
  readonly tokensPerSecond: number;
}

/** The bytes and elements of a step on one GPU, apart from how many streams there are. */
export interface StepCosts {
  /** Bytes and elements of weights that every step reads whole. */
  readonly dense: { readonly bytes: number; readonly elements: number };
  /** The same of the routed experts, of which a step reads those that its rows go to. */
  readonly experts: { readonly bytes: number; readonly elements: number };
  readonly caches: CacheCosts;
}

interface CacheCosts {
  readonly layers: number;
  /** Layers that have an indexer; none in models without one. */
  readonly indexedLayers: number;
  readonly entryBytes: number;
  readonly keyBytes: number;
}

const isEmbedding = (name: string): boolean => name === 'model.embed_tokens.weight';

export function stepCosts(config: ModelConfig, rank: RankModel, numerics: Numerics): StepCosts {
  // A step reads some rows of the embedding, and an MTP layer only where there are drafts.
  const read = rank.tensors.filter(({ name, use }) => use === 'needed' && !isEmbedding(name));
  const sum = (of: readonly PlannedTensor[]) => ({
    bytes: of.reduce((bytes, tensor) => bytes + bytesRead(tensor, numerics), 0),
    elements: of.reduce((elements, tensor) => elements + matrixElements(tensor), 0),
  });
  const shape = {
    latentDim: config.attention.latentDim,
    ropeDim: config.attention.ropeDim,
    indexDim: config.indexer?.dim ?? 0,
  };
  const indexed = config.layerKinds.filter(({ indexer }) => indexer === 'full');
  return {
    dense: sum(read.filter(({ name }) => expertOf(name) === null)),
    experts: sum(read.filter(({ name }) => expertOf(name) !== null)),
    caches: {
      layers: config.layers,
      indexedLayers: indexed.length,
      entryBytes: entryBytes(shape, numerics),
      keyBytes: pageBytes(shape, numerics) / blockTokens,
    },
  };
}

/** kv_b is read in its absorbed form, as wide as activations. */
function bytesRead(tensor: PlannedTensor, { activations }: Numerics): number {
  if (tensor.role !== 'kv-up') return weightBytes(tensor);
  return elementsOf(tensor) * (activations === 'bf16' ? 2 : 4);
}

function matrixElements(tensor: PlannedTensor): number {
  return tensor.shape.length > 1 ? elementsOf(tensor) : 0;
}

export function stepFloor(options: {
  readonly config: ModelConfig;
  readonly layout: Layout;
  readonly costs: StepCosts;
  readonly rates: GpuRates;
  readonly streams: number;
  readonly context: number;
}): StepFloor {
  const { config, layout, costs, rates, streams, context } = options;
  const { dense, experts, caches } = costs;
  const rows = Math.ceil(streams / layout.dataParallel);
  const bytes =
    dense.bytes +
    experts.bytes * touchedExperts(config, streams) +
    rows * cacheBytesRead(config, caches, context);
  // Rows of all groups go to the experts of all ranks, the same number to each at best.
  const expertRows = streams * expertShare(config);
  const operations =
    2 * dense.elements * rows +
    2 * experts.elements * expertRows +
    rows * attentionOperations(config, layout, caches, context);
  const bytesMs = (bytes / rates.hbmBytesPerSecond) * 1000;
  const operationsMs = (operations / rates.operationsPerSecond) * 1000;
  const ms = Math.max(bytesMs, operationsMs);
  return { streams, bytesMs, operationsMs, ms, tokensPerSecond: (streams / ms) * 1000 };
}

/** The part of all experts that a row goes to. */
function expertShare({ experts }: ModelConfig): number {
  return experts === null ? 0 : experts.perToken / experts.count;
}

/** The part of the experts that some of so many rows go to, if all are chosen equally often. */
function touchedExperts(config: ModelConfig, rows: number): number {
  return 1 - (1 - expertShare(config)) ** rows;
}

/** Tokens that a row attends to. */
function attendedTokens({ indexer }: ModelConfig, context: number): number {
  return indexer === null ? context : Math.min(indexer.topK, context);
}

function cacheBytesRead(config: ModelConfig, caches: CacheCosts, context: number): number {
  const { layers, indexedLayers } = caches;
  const keys = indexedLayers * context * caches.keyBytes;
  return keys + layers * attendedTokens(config, context) * caches.entryBytes;
}

/** Scores and sums of a row's absorbed attention, and its indexer's scores. */
function attentionOperations(
  config: ModelConfig,
  { tensorParallel }: Layout,
  { layers, indexedLayers }: CacheCosts,
  context: number,
): number {
  const { heads, latentDim, ropeDim } = config.attention;
  const perToken = 2 * (heads / tensorParallel) * (latentDim + ropeDim + latentDim);
  const perKey = config.indexer === null ? 0 : 2 * config.indexer.heads * config.indexer.dim;
  return layers * attendedTokens(config, context) * perToken + indexedLayers * context * perKey;
}
