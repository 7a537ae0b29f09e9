/**
 * Rotary tables with YaRN's frequency blending (docs/engine-spec.md#rope). MLA and the indexer
 * share one table.
 */
import { missing } from '../../at.ts';
import type { RopeTable } from '../../backend/row-ops.ts';
import type { RopeConfig, YarnConfig } from './rope-keys.ts';

/** cos and sin of every angle, [positions, dim / 2]; computed in float64, stored as float32. */
export function buildRopeTable(
  config: RopeConfig,
  shape: { dim: number; positions: number },
): RopeTable {
  const frequencies = ropeFrequencies(config, shape.dim);
  const pairs = frequencies.length;
  const cos = new Float32Array(shape.positions * pairs);
  const sin = new Float32Array(shape.positions * pairs);
  for (let position = 0; position < shape.positions; position++) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * (frequencies[pair] ?? missing());
      cos[position * pairs + pair] = Math.cos(angle);
      sin[position * pairs + pair] = Math.sin(angle);
    }
  }
  return { cos, sin, dim: shape.dim };
}

/** A table of that size without angles: to fill one takes seconds at a million positions. */
export function emptyRopeTable(shape: { dim: number; positions: number }): RopeTable {
  const values = new Float32Array((shape.positions * shape.dim) / 2);
  return { cos: values, sin: values, dim: shape.dim };
}

/** Radians per position of each pair, [dim / 2]. */
export function ropeFrequencies(config: RopeConfig, dim: number): Float64Array {
  const plain = Float64Array.from({ length: dim / 2 }, (_, i) => config.theta ** ((-2 * i) / dim));
  const { yarn } = config;
  if (yarn === null) return plain;
  const { low, high } = correctionRange(yarn, config.theta, dim);
  return plain.map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / yarn.factor) * ramp + frequency * (1 - ramp);
  });
}

/** The pairs between which frequencies go from unscaled to divided by the factor. */
function correctionRange(
  yarn: YarnConfig,
  theta: number,
  dim: number,
): { low: number; high: number } {
  const pairOfRotations = (rotations: number) =>
    (dim * Math.log(yarn.originalPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(pairOfRotations(yarn.betaFast)), 0);
  const high = Math.min(Math.ceil(pairOfRotations(yarn.betaSlow)), dim - 1);
  return low === high ? { low, high: high + 0.001 } : { low, high };
}
