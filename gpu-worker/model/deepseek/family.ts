/** DeepSeek-V3, V3.1 and R1 (deepseek_v3), DeepSeek-V3.2-Exp, V3.2 and Speciale (deepseek_v32). */
import type { ModelFamily } from '../family.ts';
import { mlaMoeModel } from '../mla-moe/model-parts.ts';
import { parseDeepseekConfig } from './config.ts';

export const deepseekV3: ModelFamily = {
  ...mlaMoeModel,
  chatFormat: 'deepseek-v3',
  parseConfig: parseDeepseekConfig,
};

export const deepseekV32: ModelFamily = { ...deepseekV3, chatFormat: 'deepseek-v32' };
