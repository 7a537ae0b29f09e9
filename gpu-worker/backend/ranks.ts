/**
 * The other ranks that a model lies over. Ranks that share a group's heads have the same rows, and
 * whatever one of them computes whole has the same bits on each; the experts lie over the ranks of
 * all groups, each of which has rows of its own.
 */
import type { Tensor } from './shapes.ts';

export interface RankPlace {
  readonly rank: number;
  readonly size: number;
}

export interface RankOps {
  /** The place among the ranks that share a group's heads. */
  readonly heads: RankPlace;
  /** The place among all ranks, in whose order the experts are dealt out in equal parts. */
  readonly experts: RankPlace;
  /**
   * x = the sum of x over the ranks that share the heads: in float32, in order of rank, rounded
   * once. So every rank has the same bits.
   */
  allReduce(x: Tensor, rows: number): void;
  /** Row by row, out = the x of the first rank that shares the heads, then of the next. */
  allGather(out: Tensor, x: Tensor, rows: number): void;
}

/** A rank that has the whole model. */
export const alone: RankOps = {
  heads: { rank: 0, size: 1 },
  experts: { rank: 0, size: 1 },
  allReduce() {},
  allGather() {
    throw new Error('a rank that has the whole model gathers nothing');
  },
};
