/** GLM-5, 5.1, 5.2 and 5.3 (glm_moe_dsa). */
import type { ModelFamily } from '../family.ts';
import { mlaMoeModel } from '../mla-moe/model-parts.ts';
import { parseGlmConfig } from './config.ts';

export const glmMoeDsa: ModelFamily = {
  ...mlaMoeModel,
  chatFormat: 'glm',
  parseConfig: parseGlmConfig,
};
