/**
 * config.json of a DeepSeek-V3 or V3.2 checkpoint. A value that this engine does not compute is
 * refused by its key, and so is a key that it does not know, because either may change the model.
 */
import { z } from 'zod';
import { check } from '../config-error.ts';
import type { LayerKind, ModelConfig } from '../mla-moe/config.ts';
import { commonKeys, readCommon } from '../mla-moe/config-keys.ts';
import { checkHeadDim, checkImplied, checkLayers } from '../mla-moe/implied-keys.ts';
import { parseKeys } from '../parse-keys.ts';

const configSchema = z.strictObject({
  ...commonKeys,
  model_type: z.enum(['deepseek_v3', 'deepseek_v32']),
  first_k_dense_replace: z.int().min(0),
  indexer_rope_interleave: z.boolean().default(false),
  // Every layer selects for itself.
  index_topk_freq: z.literal(1).default(1),
  index_topk_pattern: z.literal('').nullish(),
  index_skip_topk_offset: z.literal(0).default(0),
});

const architectureOf = {
  deepseek_v3: 'DeepseekV3ForCausalLM',
  deepseek_v32: 'DeepseekV32ForCausalLM',
};

/** Attention of every layer, as transformers calls it. */
const layerTypeOf = {
  deepseek_v3: ['full_attention'],
  deepseek_v32: ['deepseek_sparse_attention', 'full_attention'],
};

/** @throws ConfigError that names the key. */
export function parseDeepseekConfig(json: unknown): ModelConfig {
  const raw = parseKeys(configSchema, json);
  const { model_type: modelType, num_hidden_layers: layers, first_k_dense_replace: dense } = raw;
  check('first_k_dense_replace', dense <= layers, `must be at most num_hidden_layers (${layers})`);
  const isSparse = modelType === 'deepseek_v32';
  const layerKinds = Array.from({ length: layers }, (_, layer): LayerKind => ({
    feedForward: layer < dense ? 'dense' : 'experts',
    indexer: isSparse ? 'full' : null,
  }));
  const layout = raw.indexer_rope_interleave ? 'interleaved' : 'half';
  const config = readCommon(raw, {
    modelType,
    architecture: architectureOf[modelType],
    layerKinds,
    indexerLayout: isSparse ? layout : null,
  });
  checkHeadDim(raw, ['qk_rope_head_dim']);
  checkImplied(raw, modelType);
  checkLayers(raw, 'mlp_layer_types', {
    expected: (layer) => [layer < dense ? 'dense' : 'sparse'],
    of: `first_k_dense_replace is ${dense}`,
  });
  checkLayers(raw, 'layer_types', {
    expected: () => layerTypeOf[modelType],
    of: `model_type is ${modelType}`,
  });
  checkLayers(raw, 'indexer_types', {
    expected: () => ['full'],
    of: `every layer of ${modelType} has an indexer of its own`,
  });
  return config;
}
