/**
 * The keys of rotary positions, in either place: `rope_theta` and `rope_scaling` as DeepSeek and
 * transformers 4 write them, or `rope_parameters` as transformers 5 does. Where both are there they
 * have to say the same.
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { check, ConfigError } from '../config-error.ts';

const base = z.number().min(1e-6).max(1e15);
/** Factors that float32 can multiply by without leaving its range. */
const positive = z.number().min(1e-6).max(1e6);
const positions = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);
const ropeType = z.enum(['default', 'yarn']).optional();

/** The value of `rope_scaling` and of `rope_parameters`. */
const ropeSchema = z
  .strictObject({
    type: ropeType,
    rope_type: ropeType,
    rope_theta: base.nullish(),
    factor: z.number().min(1).max(1e6).optional(),
    original_max_position_embeddings: positions.optional(),
    beta_fast: positive.default(32),
    beta_slow: positive.default(1),
    mscale: positive.default(1),
    // Without it the softmax is not scaled, and the rope tables are.
    mscale_all_dim: z.number().min(0).max(1e6).default(0),
    // The only values that the engine computes.
    attention_factor: z.literal(1).nullish(),
    partial_rotary_factor: z.literal(1).nullish(),
    truncate: z.literal(true).nullish(),
  })
  .transform((rope, context) => {
    const complain = (key: string, message: string): never => {
      context.addIssue({ code: 'custom', path: [key], message });
      return z.NEVER;
    };
    const { factor, original_max_position_embeddings: originalPositions } = rope;
    const theta = rope.rope_theta ?? null;
    if (rope.type && rope.rope_type && rope.type !== rope.rope_type) {
      return complain('rope_type', `is "${rope.rope_type}", but type is "${rope.type}"`);
    }
    if ((rope.rope_type ?? rope.type) !== 'yarn') {
      if (factor === undefined) return { theta, yarn: null };
      const isDefault = (rope.rope_type ?? rope.type) === 'default';
      return isDefault
        ? complain('factor', 'is set, but the type is "default"')
        : complain('type', 'must be "yarn"');
    }
    if (factor === undefined) return complain('factor', 'is missing');
    if (originalPositions === undefined) {
      return complain('original_max_position_embeddings', 'is missing');
    }
    const { beta_fast: betaFast, beta_slow: betaSlow, mscale, mscale_all_dim: mscaleAllDim } = rope;
    const yarn = { factor, originalPositions, betaFast, betaSlow, mscale, mscaleAllDim };
    return { theta, yarn };
  });

export const ropeKeys = {
  rope_theta: base.nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
};

type RawRope = z.infer<z.ZodObject<typeof ropeKeys>>;

export interface RopeConfig {
  readonly theta: number;
  readonly yarn: YarnConfig | null;
}

export interface YarnConfig {
  readonly factor: number;
  readonly originalPositions: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  readonly mscale: number;
}

/** @throws ConfigError that names the key, and both of two keys that contradict each other. */
export function readRope(raw: RawRope): RopeConfig {
  const { rope_scaling: scaling, rope_parameters: parameters } = raw;
  const [first, ...others] = [
    { key: 'rope_theta', theta: raw.rope_theta },
    { key: 'rope_parameters.rope_theta', theta: parameters?.theta },
    { key: 'rope_scaling.rope_theta', theta: scaling?.theta },
  ].flatMap(({ key, theta }) => (theta === null || theta === undefined ? [] : [{ key, theta }]));
  if (!first) throw new ConfigError('rope_theta is missing, and rope_parameters has none either');
  for (const { key, theta } of others) {
    check(first.key, first.theta === theta, `is ${first.theta}, but ${key} is ${theta}`);
  }
  if (scaling && parameters) {
    const [one, other] = [scaling.yarn, parameters.yarn].map((yarn) => JSON.stringify(yarn));
    const isSame = isDeepStrictEqual(scaling.yarn, parameters.yarn);
    check('rope_scaling', isSame, `is ${one}, but rope_parameters is ${other}`);
  }
  const yarn = (scaling ?? parameters)?.yarn ?? null;
  if (yarn === null) return { theta: first.theta, yarn };
  check(first.key, first.theta > 1, 'must be greater than 1 with YaRN, which divides by its log');
  const place = scaling ? 'rope_scaling' : 'rope_parameters';
  const { mscaleAllDim, ...kept } = yarn;
  check(
    `${place}.mscale_all_dim`,
    kept.mscale === mscaleAllDim,
    `must equal mscale (${kept.mscale}): scaled rope tables are not supported`,
  );
  check(
    `${place}.beta_fast`,
    kept.betaFast > kept.betaSlow,
    `must be greater than beta_slow (${kept.betaSlow})`,
  );
  return { theta: first.theta, yarn: kept };
}

/** A warning of positions that YaRN was not made to reach; null if it reaches all. */
export function reachWarning({ yarn }: RopeConfig, contextLength: number): string | null {
  if (yarn === null) return null;
  const reach = Math.floor(yarn.factor * yarn.originalPositions);
  if (contextLength <= reach) return null;
  return (
    `max_position_embeddings is ${contextLength}, but YaRN reaches ${reach} positions ` +
    `(${yarn.factor} times ${yarn.originalPositions}): answers may be worse beyond them`
  );
}
