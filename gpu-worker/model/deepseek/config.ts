/**
 * config.json of a DeepSeek-V3 or V3.2 checkpoint, parsed and checked: every relation between its
 * numbers holds once `parseModelConfig` has returned. A value that this engine does not compute is
 * refused by its key, and so is a key that it does not know, because either may change the model.
 */
import { z } from 'zod';
import { check, ConfigError } from '../config-error.ts';
import { checkImplied, impliedKeys } from './implied-keys.ts';
import { reachWarning, readRope, ropeKeys } from './rope-keys.ts';
import type { RopeConfig } from './rope-keys.ts';

export interface ModelConfig {
  readonly modelType: 'deepseek_v3' | 'deepseek_v32';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Width of the dense layers' MLP. */
  readonly intermediateSize: number;
  readonly layers: number;
  /** Layers before this one have a dense MLP, the others experts. */
  readonly denseLayers: number;
  readonly attention: AttentionConfig;
  /** null when no layer has experts. */
  readonly experts: ExpertsConfig | null;
  /** null for models without a lightning indexer: they attend densely. */
  readonly indexer: IndexerConfig | null;
  readonly rope: RopeConfig;
  readonly contextLength: number;
  /** Epsilon of every RMSNorm. */
  readonly normEpsilon: number;
  readonly quantization: QuantizationConfig | null;
  /** Multi-token prediction modules behind the last layer. */
  readonly mtpLayers: number;
  readonly beginToken: number | null;
  readonly endTokens: readonly number[];
  /** Warnings for the operator of a model that loads all the same. */
  readonly warnings: readonly string[];
}

export interface AttentionConfig {
  readonly heads: number;
  /** q_lora_rank; null for a single query projection. */
  readonly queryLatentDim: number | null;
  /** kv_lora_rank. */
  readonly latentDim: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** (nope + rope)^-0.5, times YaRN's mscale^2 where there is YaRN. */
  readonly softmaxScale: number;
}

export interface ExpertsConfig {
  readonly count: number;
  readonly perToken: number;
  readonly shared: number;
  readonly intermediateSize: number;
  readonly groups: number;
  readonly groupsKept: number;
  readonly normalize: boolean;
  readonly scale: number;
}

export interface IndexerConfig {
  readonly heads: number;
  readonly dim: number;
  readonly topK: number;
  readonly ropeLayout: 'half' | 'interleaved';
}

export interface QuantizationConfig {
  readonly scaleFormat: 'f32' | 'ue8m0';
}

/** @throws ConfigError that names the key. */
export function parseModelConfig(json: unknown): ModelConfig {
  const result = configSchema.safeParse(json);
  if (!result.success) throw new ConfigError(describeIssue(result.error.issues[0]));
  const raw = result.data;
  checkRelations(raw);
  const rope = readRope(raw);
  const warning = reachWarning(rope, raw.max_position_embeddings);
  return {
    modelType: raw.model_type,
    vocabSize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    layers: raw.num_hidden_layers,
    denseLayers: raw.first_k_dense_replace,
    attention: {
      heads: raw.num_attention_heads,
      queryLatentDim: queryLatentDim(raw),
      latentDim: raw.kv_lora_rank,
      nopeDim: raw.qk_nope_head_dim,
      ropeDim: raw.qk_rope_head_dim,
      valueDim: raw.v_head_dim,
      softmaxScale: softmaxScale(raw, rope),
    },
    experts: expertsConfig(raw),
    indexer: indexerConfig(raw),
    rope,
    contextLength: raw.max_position_embeddings,
    normEpsilon: raw.rms_norm_eps,
    quantization: raw.quantization_config
      ? { scaleFormat: raw.quantization_config.scale_fmt ?? 'f32' }
      : null,
    mtpLayers: raw.num_nextn_predict_layers,
    beginToken: raw.bos_token_id ?? null,
    endTokens: [raw.eos_token_id ?? []].flat(),
    warnings: warning === null ? [] : [warning],
  };
}

/** 25 times the published models' context; the rope table has a row for each position. */
const positionsMax = 2 ** 22;
/** 32 times the published models' selection; each row of a step has memory for as many. */
const selectedMax = 2 ** 16;
/** A hundred times the largest published vocabulary. */
const vocabMax = 2 ** 24;

const count = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);
const tokenId = z.int().min(0).max(vocabMax);
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
  architectures: z.unknown().optional(),
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

const configSchema = z.strictObject({
  ...inertKeys,
  ...impliedKeys,
  architectures: z.array(z.string()).max(1).optional(),
  model_type: z.enum(['deepseek_v3', 'deepseek_v32']),
  vocab_size: count.max(vocabMax),
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count,
  first_k_dense_replace: z.int().min(0),
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
  indexer_rope_interleave: z.boolean().default(false),
  index_topk_freq: z.literal(1).default(1),
  index_topk_pattern: z.literal('').nullish(),
  index_skip_topk_offset: z.literal(0).default(0),
  max_position_embeddings: count.max(positionsMax),
  rms_norm_eps: z.number().min(1e-20).max(1).default(1e-6),
  ...ropeKeys,
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  tie_word_embeddings: z.literal(false).default(false),
  num_nextn_predict_layers: z.int().min(0).max(8).default(0),
  quantization_config: quantizationSchema.nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
});

type RawConfig = z.infer<typeof configSchema>;

const architectureOf = {
  deepseek_v3: 'DeepseekV3ForCausalLM',
  deepseek_v32: 'DeepseekV32ForCausalLM',
};

function checkRelations(raw: RawConfig): void {
  const architecture = raw.architectures?.[0];
  check(
    'architectures',
    architecture === undefined || architecture === architectureOf[raw.model_type],
    `is ${architecture}, but model_type ${raw.model_type} is ${architectureOf[raw.model_type]}`,
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
  check(
    'first_k_dense_replace',
    raw.first_k_dense_replace <= raw.num_hidden_layers,
    `must be at most num_hidden_layers (${raw.num_hidden_layers})`,
  );
  for (const key of ['bos_token_id', 'eos_token_id'] as const) {
    for (const id of [raw[key] ?? []].flat()) {
      check(key, id < raw.vocab_size, `is ${id}, outside the vocabulary of ${raw.vocab_size}`);
    }
  }
  checkExperts(raw);
  checkIndexer(raw);
  checkImplied(raw);
}

function checkExperts(raw: RawConfig): void {
  if (raw.first_k_dense_replace === raw.num_hidden_layers) return;
  const keys = [
    'moe_intermediate_size',
    'n_routed_experts',
    'n_shared_experts',
    'num_experts_per_tok',
  ] as const;
  for (const key of keys) check(key, raw[key] != null, 'is missing, but some layers have experts');
  const experts = raw.n_routed_experts ?? 0;
  const groups = raw.n_group ?? 1;
  const groupsKept = raw.topk_group ?? 1;
  check('n_group', experts % groups === 0, `must divide n_routed_experts (${experts})`);
  check('topk_group', groupsKept <= groups, `must be at most n_group (${groups})`);
  const reachable = (experts / groups) * groupsKept;
  check(
    'num_experts_per_tok',
    (raw.num_experts_per_tok ?? 0) <= reachable,
    `must be at most the ${reachable} experts of topk_group groups`,
  );
}

function checkIndexer(raw: RawConfig): void {
  const keys = ['index_n_heads', 'index_head_dim', 'index_topk'] as const;
  const wanted = raw.model_type === 'deepseek_v32';
  for (const key of keys) {
    check(
      key,
      (raw[key] != null) === wanted,
      wanted
        ? 'is missing, but deepseek_v32 has an indexer'
        : 'is set, but deepseek_v3 has no indexer',
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
    (raw.index_head_dim ?? 0) >= raw.qk_rope_head_dim,
    `must be at least qk_rope_head_dim (${raw.qk_rope_head_dim})`,
  );
}

/** 0 and null both mean a single query projection. */
function queryLatentDim(raw: RawConfig): number | null {
  return raw.q_lora_rank ? raw.q_lora_rank : null;
}

function expertsConfig(raw: RawConfig): ExpertsConfig | null {
  if (raw.first_k_dense_replace === raw.num_hidden_layers) return null;
  return {
    count: raw.n_routed_experts ?? 0,
    perToken: raw.num_experts_per_tok ?? 0,
    shared: raw.n_shared_experts ?? 0,
    intermediateSize: raw.moe_intermediate_size ?? 0,
    groups: raw.n_group ?? 1,
    groupsKept: raw.topk_group ?? 1,
    normalize: raw.norm_topk_prob,
    scale: raw.routed_scaling_factor,
  };
}

function indexerConfig(raw: RawConfig): IndexerConfig | null {
  if (raw.index_n_heads == null || raw.index_head_dim == null || raw.index_topk == null)
    return null;
  return {
    heads: raw.index_n_heads,
    dim: raw.index_head_dim,
    topK: raw.index_topk,
    ropeLayout: raw.indexer_rope_interleave ? 'interleaved' : 'half',
  };
}

/** docs/engine-spec.md#rope: 192^-0.5 * m^2 with m = 0.1 * mscale * ln(factor) + 1. */
function softmaxScale(raw: RawConfig, { yarn }: RopeConfig): number {
  const plain = (raw.qk_nope_head_dim + raw.qk_rope_head_dim) ** -0.5;
  if (yarn === null) return plain;
  const mscale = 0.1 * yarn.mscale * Math.log(yarn.factor) + 1;
  return plain * mscale * mscale;
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return 'config.json is not a model configuration';
  if (issue.code === 'unrecognized_keys') {
    const keys = [...issue.path.map(String), issue.keys[0]].join('.');
    return `${keys} is not a key that this engine knows; it may change the model, so it is refused`;
  }
  const path = issue.path.map(String).join('.');
  return path === '' ? `config.json: ${issue.message}` : `${path}: ${issue.message}`;
}
