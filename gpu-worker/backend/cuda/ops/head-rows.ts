/** The arguments of kernels that work on heads, a warp a head (head-rows.cuh). */
import type { RopeLayout } from '../../row-ops.ts';
import type { KernelArgs } from '../runtime/kernel-args.ts';

/** The addresses of the cosines and sines, [positions, half] f32. */
export interface RopePlace {
  readonly positions: number;
  readonly half: number;
  readonly cos: number;
  readonly sin: number;
}

/** Elements of a head that a lane holds (head-rows.cuh). */
export function perLane(dim: number): number {
  return Math.ceil(dim / 32);
}

/** The fields of a kernel's Rope. */
export function ropeArgs(
  rotation: { rope: RopePlace; layout: RopeLayout } | null,
  start: number,
  positions: number,
): KernelArgs {
  return {
    cos: rotation?.rope.cos ?? null,
    sin: rotation?.rope.sin ?? null,
    positions: rotation === null ? null : positions,
    start: rotation === null ? 0 : start,
    half: rotation?.rope.half ?? 0,
    half_split: rotation?.layout === 'half',
  };
}
