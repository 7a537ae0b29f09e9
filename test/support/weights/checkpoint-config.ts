/** config.json of small random models, of every kind that the engine claims to compute. */
import { seededRandom } from '../random.ts';
import type { Random } from '../random.ts';

/** A whole config.json, with every key that the published ones have and that matters. */
export interface CheckpointConfig {
  readonly architectures: readonly string[];
  readonly model_type: 'deepseek_v3' | 'deepseek_v32' | 'glm_moe_dsa';
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly moe_intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly n_shared_experts: number;
  readonly n_routed_experts: number;
  readonly routed_scaling_factor: number;
  readonly kv_lora_rank: number;
  readonly q_lora_rank: number | null;
  readonly qk_rope_head_dim: number;
  readonly v_head_dim: number;
  readonly qk_nope_head_dim: number;
  readonly n_group: number;
  readonly topk_group: number;
  readonly num_experts_per_tok: number;
  readonly norm_topk_prob: boolean;
  readonly hidden_act: 'silu';
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly bos_token_id: number;
  readonly eos_token_id: number;
  readonly tie_word_embeddings: false;
  readonly attention_bias: false;
  readonly index_topk?: number;
  readonly index_head_dim?: number;
  readonly index_n_heads?: number;
  readonly first_k_dense_replace?: number;
  readonly mlp_layer_types?: readonly ('dense' | 'sparse')[];
  readonly indexer_types?: readonly ('full' | 'shared')[];
  readonly index_topk_freq?: number;
  readonly index_skip_topk_offset?: number;
  readonly moe_layer_freq: 1;
  readonly scoring_func: 'sigmoid';
  readonly topk_method: 'noaux_tc';
  readonly num_nextn_predict_layers: number;
  readonly rope_theta: number;
  readonly rope_scaling: YarnScaling | null;
  readonly quantization_config?: QuantizationKeys;
}

export interface YarnScaling {
  readonly type: 'yarn';
  readonly factor: number;
  readonly original_max_position_embeddings: number;
  readonly beta_fast: number;
  readonly beta_slow: number;
  readonly mscale: number;
  readonly mscale_all_dim: number;
}

export interface QuantizationKeys {
  readonly quant_method: 'fp8';
  readonly fmt: 'e4m3';
  readonly activation_scheme: 'dynamic';
  readonly weight_block_size: readonly [128, 128];
  readonly scale_fmt?: 'ue8m0';
}

export const fp8Keys: QuantizationKeys = {
  quant_method: 'fp8',
  fmt: 'e4m3',
  activation_scheme: 'dynamic',
  weight_block_size: [128, 128],
  scale_fmt: 'ue8m0',
};

/**
 * The settings that set a kind apart from the plain V3.2 model with groups, YaRN and one shared
 * expert.
 */
export const modelKinds = {
  'V3.2 with everything': () => ({}),
  'no YaRN': () => ({ rope_scaling: null }),
  'one group': () => ({ n_group: 1, topk_group: 1 }),
  'several shared experts': () => ({ n_shared_experts: 3 }),
  'expert weights not normalised': () => ({ norm_topk_prob: false }),
  'YaRN with mscale 0.7': (random: Random) => ({
    rope_scaling: { ...yarn(random), mscale: 0.7, mscale_all_dim: 0.7 },
  }),
  'experts in every layer': () => ({ first_k_dense_replace: 0 }),
  'no experts': (_: Random, layers: number) => ({ first_k_dense_replace: layers }),
  'V3, dense attention': () => withoutIndexer,
  'V3 with a single query projection': () => ({ ...withoutIndexer, q_lora_rank: null }),
  'groups of a single expert': () => ({ n_group: 12, topk_group: 5 }),
  'one expert per token in one group of two': () => ({
    n_routed_experts: 4,
    n_group: 2,
    topk_group: 1,
    num_experts_per_tok: 1,
  }),
  'GLM with shared selections': () => ({
    ...glm,
    num_hidden_layers: 3,
    first_k_dense_replace: undefined,
    mlp_layer_types: ['dense', 'sparse', 'dense'],
    indexer_types: ['full', 'shared', 'shared'],
  }),
  'GLM with a selection of every second layer': () => ({
    ...glm,
    num_hidden_layers: 3,
    first_k_dense_replace: 2,
    index_topk_freq: 2,
    index_skip_topk_offset: 1,
  }),
} satisfies Record<string, (random: Random, layers: number) => object>;

export type ModelKind = keyof typeof modelKinds;

const withoutIndexer = {
  model_type: 'deepseek_v3',
  architectures: ['DeepseekV3ForCausalLM'],
  index_topk: undefined,
  index_head_dim: undefined,
  index_n_heads: undefined,
} as const;

const glm = {
  model_type: 'glm_moe_dsa',
  architectures: ['GlmMoeDsaForCausalLM'],
  n_group: 1,
  topk_group: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
} as const;

/** Odd sizes on purpose: nothing but the rope width and the groups has to be a round number. */
export function randomConfig(kind: ModelKind, seed: number): CheckpointConfig {
  const random = seededRandom(seed);
  const heads = random.integer(1, 5);
  const layers = random.integer(2, 3);
  const ropeDim = 2 * random.integer(2, 8);
  const config = {
    architectures: ['DeepseekV32ForCausalLM'],
    model_type: 'deepseek_v32',
    vocab_size: random.integer(60, 150),
    hidden_size: 4 * random.integer(10, 40),
    intermediate_size: random.integer(30, 150),
    moe_intermediate_size: random.integer(10, 60),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    n_shared_experts: 1,
    n_routed_experts: 12,
    routed_scaling_factor: 1 + random.uniform(),
    kv_lora_rank: random.integer(10, 150),
    q_lora_rank: random.integer(10, 150),
    qk_rope_head_dim: ropeDim,
    v_head_dim: random.integer(8, 40),
    qk_nope_head_dim: random.integer(8, 40),
    n_group: 4,
    topk_group: 2,
    num_experts_per_tok: random.integer(1, 4),
    norm_topk_prob: true,
    hidden_act: 'silu',
    max_position_embeddings: 512,
    rms_norm_eps: 1e-6,
    bos_token_id: 0,
    eos_token_id: 1,
    tie_word_embeddings: false,
    attention_bias: false,
    index_topk: random.integer(5, 20),
    // The Hadamard transform wants a power of two, of which the rope part is at most all.
    index_head_dim: random.choose([16, 32, 64]),
    index_n_heads: random.integer(5, 9),
    first_k_dense_replace: 1,
    moe_layer_freq: 1,
    scoring_func: 'sigmoid',
    topk_method: 'noaux_tc',
    num_nextn_predict_layers: 0,
    rope_theta: random.choose([100, 10_000, 1_000_000]),
    rope_scaling: yarn(random),
    ...modelKinds[kind](random, layers),
  } as const;
  // The generators above give literal types that satisfy the interface; undefined keys drop out.
  return JSON.parse(JSON.stringify(config)) as CheckpointConfig;
}

function yarn(random: Random): YarnScaling {
  return {
    type: 'yarn',
    factor: random.integer(8, 40),
    original_max_position_embeddings: 64,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 1,
    mscale_all_dim: 1,
  };
}
