/** The keys of config.json that the oracle computes with; it believes them as they stand. */
import { at } from './vector.ts';

export interface OracleConfig {
  readonly model_type: 'deepseek_v3' | 'deepseek_v32' | 'glm_moe_dsa';
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  /** null or 0: queries come straight from the hidden state by q_proj. */
  readonly q_lora_rank: number | null;
  readonly kv_lora_rank: number;
  readonly qk_nope_head_dim: number;
  readonly qk_rope_head_dim: number;
  readonly v_head_dim: number;
  readonly rms_norm_eps: number;
  readonly rope_theta?: number;
  readonly rope_scaling?: RopeKeys | null;
  /** transformers 5 writes both of the above here. */
  readonly rope_parameters?: RopeKeys;
  readonly first_k_dense_replace?: number;
  /** Says for each layer what first_k_dense_replace says of the first ones; wins over it. */
  readonly mlp_layer_types?: readonly ('dense' | 'sparse')[] | null;
  readonly n_routed_experts: number;
  readonly num_experts_per_tok: number;
  readonly n_group: number;
  readonly topk_group: number;
  readonly norm_topk_prob: boolean;
  readonly routed_scaling_factor: number;
  /** Absent from models without an indexer; those attend to everything. */
  readonly index_n_heads?: number;
  readonly index_head_dim?: number;
  readonly index_topk?: number;
  readonly indexer_rope_interleave?: boolean;
  readonly indexer_types?: readonly IndexerType[] | null;
  readonly index_topk_pattern?: string | null;
  readonly index_topk_freq?: number;
  readonly index_skip_topk_offset?: number;
}

/** `shared`: a layer attends to what the last `full` layer before it has selected. */
export type IndexerType = 'full' | 'shared';

export interface YarnConfig {
  readonly factor: number;
  readonly original_max_position_embeddings: number;
  readonly beta_fast: number;
  readonly beta_slow: number;
  readonly mscale_all_dim: number;
}

export interface RopeKeys extends Partial<YarnConfig> {
  readonly type?: string;
  readonly rope_type?: string;
  readonly rope_theta?: number;
}

export interface IndexerConfig {
  readonly heads: number;
  readonly dim: number;
  readonly topK: number;
  readonly ropeLayout: 'interleaved' | 'half';
}

/** null for a model that attends to everything. */
export function indexerConfig(config: OracleConfig): IndexerConfig | null {
  const { index_n_heads: heads, index_head_dim: dim, index_topk: topK } = config;
  if (heads === undefined || dim === undefined || topK === undefined) return null;
  const interleaved = config.indexer_rope_interleave ?? config.model_type === 'glm_moe_dsa';
  return { heads, dim, topK, ropeLayout: interleaved ? 'interleaved' : 'half' };
}

export function indexerType(config: OracleConfig, layer: number): IndexerType {
  // An MTP module selects for itself.
  if (layer >= config.num_hidden_layers) return 'full';
  if (config.indexer_types) return at(config.indexer_types, layer);
  if (config.index_topk_pattern) {
    return at(config.index_topk_pattern, layer) === 'F' ? 'full' : 'shared';
  }
  // Without the keys every layer is full. The offset of 2 is the published code's default.
  const { index_topk_freq: frequency = 1, index_skip_topk_offset: offset = 2 } = config;
  return Math.max(layer - offset + 1, 0) % frequency === 0 ? 'full' : 'shared';
}

export function hasExperts(config: OracleConfig, layer: number): boolean {
  if (layer >= config.num_hidden_layers) return true;
  if (config.mlp_layer_types) return at(config.mlp_layer_types, layer) === 'sparse';
  return layer >= (config.first_k_dense_replace ?? 0);
}

/** The base of the rope's frequencies, and YaRN's keys where the model has YaRN. */
export function ropeConfig(config: OracleConfig): { theta: number; yarn: YarnConfig | null } {
  const keys = config.rope_parameters ?? config.rope_scaling ?? {};
  const theta = config.rope_theta ?? keys.rope_theta;
  if (theta === undefined) throw new Error('config.json has no rope_theta');
  const isYarn = (keys.rope_type ?? keys.type) === 'yarn';
  // A published YaRN has all of its keys.
  return { theta, yarn: isYarn ? (keys as YarnConfig) : null };
}
