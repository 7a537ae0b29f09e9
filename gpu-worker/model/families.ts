/** The families that this engine computes, by `model_type` of config.json. */
import { z } from 'zod';
import { ConfigError } from './config-error.ts';
import { deepseekV3, deepseekV32 } from './deepseek/family.ts';
import type { ModelFamily } from './family.ts';
import { glmMoeDsa } from './glm/family.ts';
import type { ModelConfig } from './mla-moe/config.ts';
import { UnknownKeyError } from './parse-keys.ts';

const families: ReadonlyMap<string, ModelFamily> = new Map([
  ['deepseek_v3', deepseekV3],
  ['deepseek_v32', deepseekV32],
  ['glm_moe_dsa', glmMoeDsa],
]);
const known = [...families.keys()].join(', ');

const typed = z.looseObject({ model_type: z.string() });

/** @throws ConfigError that names the families that there are, if `modelType` is none of them. */
export function familyOf(modelType: string): ModelFamily {
  const family = families.get(modelType);
  if (family === undefined) {
    throw new ConfigError(
      `model_type is ${JSON.stringify(modelType)}, which this engine does not know; it knows ${known}`,
    );
  }
  return family;
}

/** The chat format of a family; null for a `model_type` that is none. */
export function chatFormatOf(modelType: string): string | null {
  return families.get(modelType)?.chatFormat ?? null;
}

/**
 * Reads a config.json by its family.
 * @throws ConfigError that names the key
 */
export function parseModelConfig(json: unknown): ModelConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ConfigError('config.json holds no JSON object');
  }
  const parsed = typed.safeParse(json);
  if (!parsed.success) {
    throw new ConfigError(`model_type is missing or no text; this engine knows ${known}`);
  }
  const family = familyOf(parsed.data.model_type);
  try {
    return family.parseConfig(json);
  } catch (cause) {
    if (!(cause instanceof UnknownKeyError)) throw cause;
    const where = `model_type is ${parsed.data.model_type}; this engine knows ${known}`;
    throw new ConfigError(`${cause.message} (${where})`, { cause });
  }
}
