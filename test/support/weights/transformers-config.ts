/**
 * config.json as transformers 5 writes it for a model that it has loaded from the published one.
 */
import { hasExperts } from '../../oracle/config.ts';
import type { CheckpointConfig } from './checkpoint-config.ts';

type Json = Record<string, unknown>;

/** The same model, with the keys that others imply, and the rope's in one object. */
export function asTransformers5(config: CheckpointConfig): Json {
  const { rope_theta, rope_scaling, quantization_config, ...kept } = config;
  const layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => layer);
  const dropped = ['moe_layer_freq', 'scoring_func', 'topk_method', 'torch_dtype'];
  return {
    ...Object.fromEntries(Object.entries(kept).filter(([key]) => !dropped.includes(key))),
    dtype: 'float32',
    transformers_version: '5.3.0',
    head_dim: config.qk_rope_head_dim,
    qk_head_dim: config.qk_nope_head_dim + config.qk_rope_head_dim,
    rope_interleave: true,
    mlp_layer_types: layers.map((layer) => (hasExperts(config, layer) ? 'sparse' : 'dense')),
    layer_types: layers.map(() =>
      config.model_type === 'deepseek_v3' ? 'full_attention' : 'deepseek_sparse_attention',
    ),
    num_local_experts: config.n_routed_experts,
    rope_parameters: {
      rope_theta,
      rope_type: rope_scaling === null ? 'default' : 'yarn',
      ...rope_scaling,
    },
    ...(quantization_config && {
      quantization_config: { ...quantization_config, fmt: undefined, dequantize: false },
    }),
  };
}
