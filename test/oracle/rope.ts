/** Rotary positions with YaRN (docs/engine-spec.md#rope), both layouts. */
import { ropeConfig } from './config.ts';
import type { OracleConfig } from './config.ts';
import { at } from './vector.ts';
import type { Vector } from './vector.ts';

/** Angle per position of each pair: dim / 2 values. */
export function ropeFrequencies(config: OracleConfig): Vector {
  const dim = config.qk_rope_head_dim;
  const { theta, yarn } = ropeConfig(config);
  const plain = Float64Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim));
  if (yarn === null) return plain;

  // The pair that turns `rotations` times over the original context.
  const pairOf = (rotations: number) =>
    (dim * Math.log(yarn.original_max_position_embeddings / (rotations * 2 * Math.PI))) /
    (2 * Math.log(theta));
  const low = Math.max(Math.floor(pairOf(yarn.beta_fast)), 0);
  const ceiling = Math.min(Math.ceil(pairOf(yarn.beta_slow)), dim - 1);
  const high = ceiling === low ? ceiling + 0.001 : ceiling;
  return plain.map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / yarn.factor) * ramp + frequency * (1 - ramp);
  });
}

/** Scale of the main attention's scores: YaRN's factor counts here and nowhere else. */
export function softmaxScale(config: OracleConfig): number {
  const plain = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5;
  const { yarn } = ropeConfig(config);
  if (yarn === null || yarn.factor <= 1) return plain;
  const m = 0.1 * yarn.mscale_all_dim * Math.log(yarn.factor) + 1;
  return plain * m * m;
}

/** `interleaved` turns the pairs (2i, 2i + 1), `half` the pairs (i, i + dim / 2). */
export function rotate(
  x: Vector,
  options: { position: number; frequencies: Vector; layout: 'interleaved' | 'half' },
): Vector {
  const { position, frequencies, layout } = options;
  const half = x.length / 2;
  const out = new Float64Array(x.length);
  for (let i = 0; i < half; i++) {
    const [first, second] = layout === 'half' ? [i, i + half] : [2 * i, 2 * i + 1];
    const angle = position * at(frequencies, i);
    const [a, b] = [at(x, first), at(x, second)];
    out[first] = a * Math.cos(angle) - b * Math.sin(angle);
    out[second] = a * Math.sin(angle) + b * Math.cos(angle);
  }
  return out;
}
