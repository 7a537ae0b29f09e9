/** Routes a token to experts, with their weights (docs/engine-spec.md#moe). */
import type { OracleConfig } from './config.ts';
import { at, sigmoid, split, topIndices } from './vector.ts';
import type { Vector } from './vector.ts';

export interface Route {
  readonly expert: number;
  readonly weight: number;
}

export function route(logits: Vector, bias: Vector, config: OracleConfig): Route[] {
  const scores = logits.map(sigmoid);
  // The bias chooses; it never weighs.
  const biased = scores.map((score, expert) => score + at(bias, expert));
  const groupScores = split(biased, config.n_group).map((group) =>
    topIndices(group, 2).reduce((sum, i) => sum + at(group, i), 0),
  );
  const kept = topIndices(groupScores, config.topk_group);
  const groupSize = logits.length / config.n_group;
  // Dropped groups go to -inf: at 0 they would beat kept experts whose biased score is negative.
  const candidates = biased.map((score, expert) =>
    kept.includes(Math.floor(expert / groupSize)) ? score : Number.NEGATIVE_INFINITY,
  );
  const experts = topIndices(candidates, config.num_experts_per_tok);
  const total = experts.reduce((sum, expert) => sum + at(scores, expert), 0);
  const divisor = config.norm_topk_prob ? total + 1e-20 : 1;
  return experts.map((expert) => ({
    expert,
    weight: (at(scores, expert) / divisor) * config.routed_scaling_factor,
  }));
}
