/**
 * The keys of config.json that all families of this architecture have, and the relations between
 * them. A family adds its own keys and makes a strict schema of both.
 */
import { strict as assert } from 'node:assert';
import { z } from 'zod';
import { check } from '../config-error.ts';
import type {
  AttentionConfig,
  ExpertsConfig,
  IndexerConfig,
  LayerKind,
  ModelConfig,
} from './config.ts';
import { impliedKeys } from './implied-keys.ts';
import { reachWarning, readRope, ropeKeys } from './rope-keys.ts';
import type { RopeConfig } from './rope-keys.ts';

/** 25 times the published models' context; the rope table has a row for each position. */
const positionsMax = 2 ** 22;
/** 32 times the published models' selection; each row of a step has memory for as many. */
const selectedMax = 2 ** 16;
/** A hundred times the largest published vocabulary. */
const vocabMax = 2 ** 24;
/** Fifty times the published models' layers; lists of that length are made of the count. */
export const layersMax = 2 ** 12;

export const count = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);
const tokenId = z.int().min(0).max(vocabMax);
export const normEpsilon = z.number().min(1e-20).max(1);
/** Factors that float32 can multiply by without leaving its range. */
const factor = z.number().min(1e-6).max(1e6);

const quantizationSchema = z.strictObject({
  quant_method: z.literal('fp8'),
  // transformers 5 leaves it out.
  fmt: z.literal('e4m3').default('e4m3'),
  dequantize: z.literal(false).nullish(),
  activation_scheme: z.literal('dynamic').optional(),
  weight_block_size: z.tuple([z.literal(128), z.literal(128)]),
  scale_fmt: z.literal('ue8m0').nullish(),
  modules_to_not_convert: z.unknown().optional(),
});

/** Keys that do not change what the model computes at inference. */
const inertKeys = {
  _name_or_path: z.unknown().optional(),
  attention_dropout: z.unknown().optional(),
  auto_map: z.unknown().optional(),
  aux_loss_alpha: z.unknown().optional(),
  dtype: z.unknown().optional(),
  ep_size: z.unknown().optional(),
  initializer_range: z.unknown().optional(),
  pad_token_id: z.unknown().optional(),
  pretraining_tp: z.unknown().optional(),
  seq_aux: z.unknown().optional(),
  torch_dtype: z.unknown().optional(),
  transformers_version: z.unknown().optional(),
  use_cache: z.unknown().optional(),
};

export const commonKeys = {
  ...inertKeys,
  ...impliedKeys,
  ...ropeKeys,
  architectures: z.array(z.string()).max(1).optional(),
  vocab_size: count.max(vocabMax),
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count.max(layersMax),
  num_attention_heads: count,
  num_key_value_heads: count,
  moe_layer_freq: z.literal(1).default(1),
  moe_intermediate_size: count.nullish(),
  n_routed_experts: count.nullish(),
  n_shared_experts: count.nullish(),
  num_experts_per_tok: count.nullish(),
  n_group: count.nullish(),
  topk_group: count.nullish(),
  norm_topk_prob: z.boolean().default(true),
  routed_scaling_factor: factor.default(1),
  scoring_func: z.literal('sigmoid').default('sigmoid'),
  topk_method: z.literal('noaux_tc').default('noaux_tc'),
  q_lora_rank: z.int().min(0).nullish(),
  kv_lora_rank: count,
  qk_nope_head_dim: count,
  qk_rope_head_dim: count,
  v_head_dim: count,
  index_n_heads: count.nullish(),
  index_head_dim: count.nullish(),
  index_topk: count.max(selectedMax).nullish(),
  max_position_embeddings: count.max(positionsMax),
  rms_norm_eps: normEpsilon.default(1e-6),
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  tie_word_embeddings: z.literal(false).default(false),
  num_nextn_predict_layers: z.int().min(0).max(8).default(0),
  quantization_config: quantizationSchema.nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
};

export type CommonConfig = z.infer<z.ZodObject<typeof commonKeys>>;

/** A family's own keys, read. */
export interface FamilyConfig {
  readonly modelType: string;
  readonly architecture: string;
  readonly layerKinds: readonly LayerKind[];
  /** null in a family without an indexer. */
  readonly indexerLayout: IndexerConfig['ropeLayout'] | null;
}

/** @throws ConfigError that names the key. */
export function readCommon(raw: CommonConfig, family: FamilyConfig): ModelConfig {
  checkRelations(raw, family);
  const rope = readRope(raw);
  const warning = reachWarning(rope, raw.max_position_embeddings);
  const { quantization_config: quantization } = raw;
  return {
    modelType: family.modelType,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    layers: raw.num_hidden_layers,
    layerKinds: family.layerKinds,
    attention: attentionConfig(raw, rope),
    experts: expertsConfig(raw, family),
    indexer: indexerConfig(raw, family),
    rope,
    contextLength: raw.max_position_embeddings,
    normEpsilon: raw.rms_norm_eps,
    quantization: quantization ? { scaleFormat: quantization.scale_fmt ?? 'f32' } : null,
    mtpLayers: raw.num_nextn_predict_layers,
    beginToken: raw.bos_token_id ?? null,
    endTokens: [raw.eos_token_id ?? []].flat(),
    warnings: warning === null ? [] : [warning],
  };
}

function checkRelations(raw: CommonConfig, family: FamilyConfig): void {
  const architecture = raw.architectures?.[0];
  check(
    'architectures',
    architecture === undefined || architecture === family.architecture,
    `is ${architecture}, but model_type ${family.modelType} is ${family.architecture}`,
  );
  check(
    'num_key_value_heads',
    raw.num_key_value_heads === raw.num_attention_heads,
    `must equal num_attention_heads (${raw.num_attention_heads}), because every MLA head has its own key`,
  );
  check(
    'qk_rope_head_dim',
    raw.qk_rope_head_dim % 2 === 0,
    'must be even, because rope rotates pairs',
  );
  for (const key of ['bos_token_id', 'eos_token_id'] as const) {
    for (const id of [raw[key] ?? []].flat()) {
      check(key, id < raw.vocab_size, `is ${id}, outside the vocabulary of ${raw.vocab_size}`);
    }
  }
  checkExperts(raw, family);
  checkIndexer(raw, family);
}

function hasExperts({ layerKinds }: FamilyConfig): boolean {
  return layerKinds.some(({ feedForward }) => feedForward === 'experts');
}

function checkExperts(raw: CommonConfig, family: FamilyConfig): void {
  if (!hasExperts(family)) return;
  const keys = [
    'moe_intermediate_size',
    'n_routed_experts',
    'n_shared_experts',
    'num_experts_per_tok',
  ] as const;
  for (const key of keys) check(key, raw[key] != null, 'is missing, but some layers have experts');
  const experts = checked(raw.n_routed_experts);
  const groups = raw.n_group ?? 1;
  const groupsKept = raw.topk_group ?? 1;
  check('n_group', experts % groups === 0, `must divide n_routed_experts (${experts})`);
  check('topk_group', groupsKept <= groups, `must be at most n_group (${groups})`);
  const reachable = (experts / groups) * groupsKept;
  check(
    'num_experts_per_tok',
    checked(raw.num_experts_per_tok) <= reachable,
    `must be at most the ${reachable} experts of topk_group groups`,
  );
}

/** A key that the family needs, once it was checked to be there. */
function checked(value: number | null | undefined): number {
  assert(value != null, 'a key that was checked is there');
  return value;
}

function checkIndexer(raw: CommonConfig, { modelType, indexerLayout }: FamilyConfig): void {
  const keys = ['index_n_heads', 'index_head_dim', 'index_topk'] as const;
  const wanted = indexerLayout !== null;
  for (const key of keys) {
    check(
      key,
      (raw[key] != null) === wanted,
      wanted
        ? `is missing, but ${modelType} has an indexer`
        : `is set, but ${modelType} has no indexer`,
    );
  }
  if (!wanted) return;
  check(
    'q_lora_rank',
    queryLatentDim(raw) !== null,
    'must be at least 1, because the indexer takes its queries from the query latent',
  );
  check(
    'index_head_dim',
    checked(raw.index_head_dim) >= raw.qk_rope_head_dim,
    `must be at least qk_rope_head_dim (${raw.qk_rope_head_dim})`,
  );
}

function attentionConfig(raw: CommonConfig, rope: RopeConfig): AttentionConfig {
  return {
    heads: raw.num_attention_heads,
    queryLatentDim: queryLatentDim(raw),
    latentDim: raw.kv_lora_rank,
    nopeDim: raw.qk_nope_head_dim,
    ropeDim: raw.qk_rope_head_dim,
    valueDim: raw.v_head_dim,
    softmaxScale: softmaxScale(raw, rope),
  };
}

/** 0 and null both mean a single query projection. */
function queryLatentDim(raw: CommonConfig): number | null {
  return raw.q_lora_rank ? raw.q_lora_rank : null;
}

function expertsConfig(raw: CommonConfig, family: FamilyConfig): ExpertsConfig | null {
  if (!hasExperts(family)) return null;
  return {
    count: checked(raw.n_routed_experts),
    perToken: checked(raw.num_experts_per_tok),
    shared: checked(raw.n_shared_experts),
    intermediateSize: checked(raw.moe_intermediate_size),
    groups: raw.n_group ?? 1,
    groupsKept: raw.topk_group ?? 1,
    normalize: raw.norm_topk_prob,
    scale: raw.routed_scaling_factor,
  };
}

function indexerConfig(
  raw: CommonConfig,
  { indexerLayout: ropeLayout }: FamilyConfig,
): IndexerConfig | null {
  if (ropeLayout === null || raw.index_n_heads == null || raw.index_head_dim == null) return null;
  if (raw.index_topk == null) return null;
  return {
    heads: raw.index_n_heads,
    dim: raw.index_head_dim,
    topK: raw.index_topk,
    ropeLayout,
  };
}

/** docs/engine-spec.md#rope: 192^-0.5 * m^2 with m = 0.1 * mscale * ln(factor) + 1. */
function softmaxScale(raw: CommonConfig, { yarn }: RopeConfig): number {
  const plain = (raw.qk_nope_head_dim + raw.qk_rope_head_dim) ** -0.5;
  if (yarn === null) return plain;
  const mscale = 0.1 * yarn.mscale * Math.log(yarn.factor) + 1;
  return plain * mscale * mscale;
}
