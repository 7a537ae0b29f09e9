/**
 * config.json of a GLM-5 checkpoint (5, 5.1, 5.2, 5.3). It is DeepSeek-V3.2's graph with other
 * sizes, an indexer that rotates neighbours, and layers that share a selection.
 */
import { z } from 'zod';
import type { ModelConfig } from '../mla-moe/config.ts';
import { commonKeys, normEpsilon, readCommon } from '../mla-moe/config-keys.ts';
import { checkHeadDim, checkImplied, checkLayers } from '../mla-moe/implied-keys.ts';
import { parseKeys } from '../parse-keys.ts';
import { layerKeys, readLayerKinds } from './layer-kinds.ts';

const modelType = 'glm_moe_dsa';

const configSchema = z.strictObject({
  ...commonKeys,
  ...layerKeys,
  model_type: z.literal(modelType),
  rms_norm_eps: normEpsilon.default(1e-5),
  indexer_rope_interleave: z.boolean().default(true),
  // Every router computes in float32.
  moe_router_dtype: z.literal('float32').nullish(),
  // It says how drafts select, which nothing here computes.
  index_share_for_mtp_iteration: z.boolean().nullish(),
});

/** @throws ConfigError that names the key. */
export function parseGlmConfig(json: unknown): ModelConfig {
  const raw = parseKeys(configSchema, json);
  const config = readCommon(raw, {
    modelType,
    architecture: 'GlmMoeDsaForCausalLM',
    layerKinds: readLayerKinds(raw),
    indexerLayout: raw.indexer_rope_interleave ? 'interleaved' : 'half',
  });
  checkHeadDim(raw, ['qk_rope_head_dim', 'qk_nope_head_dim']);
  checkImplied(raw, modelType);
  checkLayers(raw, 'layer_types', {
    expected: () => ['deepseek_sparse_attention', 'full_attention'],
    of: `model_type is ${modelType}`,
  });
  return config;
}
