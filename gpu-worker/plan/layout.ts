/** The layouts of a model over the GPUs of a machine, and the part of a rank in each. */
import { strict as assert } from 'node:assert';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import { expertOf, splitAxis } from '../model/mla-moe/shard.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type { TensorSpec } from '../weights/tensor-spec.ts';
import type { WeightShape } from './model-memory.ts';

/** A tensor of the checkpoint: what the model expects of it, and its dtype there. */
export interface PlannedTensor extends WeightShape, Pick<TensorSpec, 'role' | 'use' | 'keys'> {}

/** A rank's own part of a model. */
export interface RankModel {
  readonly config: ModelConfig;
  /** The tensors that its graph has, cut to the rank's part. */
  readonly tensors: readonly PlannedTensor[];
  /** The MTP layers' tensors that no other layer has. */
  readonly draftTensors: readonly PlannedTensor[];
}

export function layoutsOf(gpus: number): Layout[] {
  const layouts: Layout[] = [];
  for (let tensorParallel = gpus; tensorParallel >= 1; tensorParallel /= 2) {
    layouts.push({ tensorParallel, dataParallel: gpus / tensorParallel });
  }
  return layouts;
}

/** Rows and columns of an fp8 weight that share a scale: a rank has whole blocks. */
const scaleBlock = 128;

/** Says why a model cannot be split so; null if it can. */
export function layoutFault(
  config: ModelConfig,
  tensors: readonly PlannedTensor[],
  layout: Layout,
): string | null {
  const { tensorParallel: ranks, dataParallel } = layout;
  const gpus = ranks * dataParallel;
  if (config.attention.heads % ranks !== 0) {
    return `num_attention_heads = ${config.attention.heads} does not divide by ${ranks}`;
  }
  if (config.experts !== null && config.experts.count % gpus !== 0) {
    return `n_routed_experts = ${config.experts.count} does not divide by ${gpus}`;
  }
  if (ranks === 1) return null;
  for (const tensor of tensors) {
    const fault = splitFaults(tensor, ranks)[0];
    if (fault !== undefined) return fault;
  }
  return null;
}

/** A weight that may be split by its inputs can be split by its outputs as well (shard.ts). */
function splitFaults({ name, shape, keys, dtype }: PlannedTensor, ranks: number): string[] {
  const split = splitAxis(name);
  const axes = split === null ? [] : split === 1 ? [1, 0] : [0];
  return axes.flatMap((axis) => {
    const size = shape[axis] ?? 1;
    const what = `${keys?.[axis] ?? name} = ${size}`;
    if (size % ranks !== 0) return [`${what} does not divide by ${ranks}`];
    if (dtype !== 'F8_E4M3' || (size / ranks) % scaleBlock === 0) return [];
    return [`${what} does not divide by ${ranks} in whole blocks of ${scaleBlock} scales`];
  });
}

/** An MTP layer's copies of embedding and head, which the model's own stand in for. */
const copies = /^model\.layers\.\d+\.(embed_tokens|shared_head\.head)\.weight$/;
/** The tensors that an MTP layer has beside those of every layer. */
const ofDrafts = /^model\.layers\.\d+\.(enorm|hnorm|eh_proj|shared_head\.norm)\.weight$/;

/**
 * The part that the first rank has; every rank's is as large. The MTP layers, which hold tensors
 * that are `skipped` today, count as further layers where `drafts` says so.
 */
export function rankModel(
  config: ModelConfig,
  tensors: readonly PlannedTensor[],
  { tensorParallel, dataParallel, drafts }: Layout & { readonly drafts: boolean },
): RankModel {
  const ownExperts = (config.experts?.count ?? 0) / (tensorParallel * dataParallel);
  const own = tensors.filter(({ name, use }) => {
    const expert = expertOf(name);
    const isLoaded = use === 'needed' || (drafts && !copies.test(name));
    return isLoaded && (expert === null || expert < ownExperts);
  });
  const cut = own.map((tensor) => cutTensor(tensor, tensorParallel));
  return {
    config: rankConfig(config, { tensorParallel, dataParallel }, drafts ? config.mtpLayers : 0),
    tensors: cut.filter(({ name }) => !ofDrafts.test(name)),
    draftTensors: cut.filter(({ name }) => ofDrafts.test(name)),
  };
}

function cutTensor(tensor: PlannedTensor, ranks: number): PlannedTensor {
  const axis = splitAxis(tensor.name);
  return { ...tensor, shape: tensor.shape.map((size, i) => (i === axis ? size / ranks : size)) };
}

/** The configuration that a rank's graph is made of. */
function rankConfig(config: ModelConfig, layout: Layout, draftLayers: number): ModelConfig {
  const { tensorParallel, dataParallel } = layout;
  const { attention, experts } = config;
  assert(attention.heads % tensorParallel === 0, 'ranks have whole heads');
  const ranks = tensorParallel * dataParallel;
  const draftKind = { feedForward: 'experts', indexer: config.indexer && 'full' } as const;
  const draftKinds = Array.from({ length: draftLayers }, () => draftKind);
  return {
    ...config,
    layers: config.layers + draftLayers,
    layerKinds: [...config.layerKinds, ...draftKinds],
    vocabSize: config.vocabSize / tensorParallel,
    intermediateSize: config.intermediateSize / tensorParallel,
    attention: { ...attention, heads: attention.heads / tensorParallel },
    experts: experts && {
      ...experts,
      count: experts.count / ranks,
      // A part of one: the width of the shared expert is this times `intermediateSize`.
      shared: experts.shared / tensorParallel,
      // The groups' rows may all choose experts of one rank, which then has work for all of them.
      perToken: dataParallel * Math.min(experts.perToken, experts.count / ranks),
    },
  };
}
