/** The published models' config.json, as far as it says what they compute. */

const fp8 = {
  quant_method: 'fp8',
  fmt: 'e4m3',
  activation_scheme: 'dynamic',
  weight_block_size: [128, 128],
};

/** DeepSeek-V3.2-Exp; V3.2 and Speciale have the same. */
export const deepseekV32 = {
  architectures: ['DeepseekV32ForCausalLM'],
  model_type: 'deepseek_v32',
  torch_dtype: 'bfloat16',
  vocab_size: 129_280,
  hidden_size: 7168,
  intermediate_size: 18_432,
  moe_intermediate_size: 2048,
  num_hidden_layers: 61,
  num_attention_heads: 128,
  num_key_value_heads: 128,
  n_shared_experts: 1,
  n_routed_experts: 256,
  routed_scaling_factor: 2.5,
  kv_lora_rank: 512,
  q_lora_rank: 1536,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  qk_nope_head_dim: 128,
  n_group: 8,
  topk_group: 4,
  num_experts_per_tok: 8,
  first_k_dense_replace: 3,
  norm_topk_prob: true,
  hidden_act: 'silu',
  max_position_embeddings: 163_840,
  rms_norm_eps: 1e-6,
  index_topk: 2048,
  index_head_dim: 128,
  index_n_heads: 64,
  num_nextn_predict_layers: 1,
  rope_theta: 10_000,
  rope_scaling: {
    type: 'yarn',
    factor: 40,
    original_max_position_embeddings: 4096,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 1,
    mscale_all_dim: 1,
  },
  quantization_config: { ...fp8, scale_fmt: 'ue8m0' },
};

const indexerKeys = ['index_topk', 'index_head_dim', 'index_n_heads'];

/** DeepSeek-V3 and R1, which have no indexer and the same sizes. */
export const deepseekV3 = {
  ...Object.fromEntries(Object.entries(deepseekV32).filter(([key]) => !indexerKeys.includes(key))),
  architectures: ['DeepseekV3ForCausalLM'],
  model_type: 'deepseek_v3',
  quantization_config: fp8,
};

/** GLM-5 and 5.1: an indexer in every layer. */
export const glm5 = {
  architectures: ['GlmMoeDsaForCausalLM'],
  model_type: 'glm_moe_dsa',
  dtype: 'bfloat16',
  vocab_size: 154_880,
  hidden_size: 6144,
  intermediate_size: 12_288,
  moe_intermediate_size: 2048,
  num_hidden_layers: 78,
  num_attention_heads: 64,
  num_key_value_heads: 64,
  n_shared_experts: 1,
  n_routed_experts: 256,
  routed_scaling_factor: 2.5,
  kv_lora_rank: 512,
  q_lora_rank: 2048,
  qk_rope_head_dim: 64,
  v_head_dim: 256,
  qk_nope_head_dim: 192,
  n_group: 1,
  topk_group: 1,
  num_experts_per_tok: 8,
  first_k_dense_replace: 3,
  norm_topk_prob: true,
  hidden_act: 'silu',
  max_position_embeddings: 202_752,
  rms_norm_eps: 1e-5,
  index_topk: 2048,
  index_head_dim: 128,
  index_n_heads: 32,
  indexer_rope_interleave: true,
  num_nextn_predict_layers: 1,
  rope_parameters: { rope_theta: 1_000_000, rope_type: 'default' },
  quantization_config: fp8,
};

/** GLM-5.2 and 5.3: an indexer in layers 0, 1 and 2, and in every fourth from there on. */
export const glm52 = {
  ...glm5,
  max_position_embeddings: 1_048_576,
  index_topk_freq: 4,
  index_skip_topk_offset: 3,
  rope_parameters: { rope_theta: 8_000_000, rope_type: 'default' },
};
