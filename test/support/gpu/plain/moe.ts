import { strict as assert } from 'node:assert';
import type { MoeOps, RouteOptions } from '../../../../gpu-worker/backend/moe.ts';
import type {
  ExpertMatrices,
  Experts,
  Routing,
  Tensor,
  Vector,
} from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import type { PlainGemm } from './gemm.ts';
import {
  asPlain,
  PlainExperts,
  PlainMatrix,
  PlainRouting,
  PlainTensor,
  valuesOf,
} from './handles.ts';
import { silu } from './numbers.ts';

export class PlainMoe implements MoeOps {
  readonly #context: PlainContext;
  readonly #gemm: PlainGemm;

  constructor(context: PlainContext, gemm: PlainGemm) {
    this.#context = context;
    this.#gemm = gemm;
  }

  experts(matrices: readonly ExpertMatrices[]): Experts {
    return new PlainExperts(matrices);
  }

  routing(rows: number, perToken: number): Routing {
    return new PlainRouting(rows, perToken);
  }

  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void {
    const routing = asPlain(PlainRouting, out);
    const { perToken } = routing;
    const biases = valuesOf(bias);
    for (let r = 0; r < rows; r++) {
      const scores = Float32Array.from(
        asPlain(PlainTensor, logits).row(r),
        (logit) => 1 / (1 + Math.exp(-logit)),
      );
      const biased = scores.map((score, e) => score + (biases[e] ?? 0));
      const size = scores.length / options.groups;
      const groupScores = Float32Array.from({ length: options.groups }, (_, g) => {
        const best = biased.slice(g * size, (g + 1) * size).toSorted((a, b) => b - a);
        return (best[0] ?? 0) + (best[1] ?? 0);
      });
      const kept = [...groupScores.keys()]
        .toSorted((a, b) => (groupScores[b] ?? 0) - (groupScores[a] ?? 0) || a - b)
        .slice(0, options.groupsKept);
      const chosen = [...biased.keys()]
        .filter((e) => kept.includes(Math.floor(e / size)))
        .toSorted((a, b) => (biased[b] ?? 0) - (biased[a] ?? 0) || a - b)
        .slice(0, perToken);
      const total = chosen.reduce((sum, e) => sum + (scores[e] ?? 0), 1e-20);
      for (const [i, e] of chosen.entries()) {
        const weight = (scores[e] ?? 0) / (options.normalize ? total : 1);
        routing.experts[r * perToken + i] = e;
        routing.weights[r * perToken + i] = weight * options.scale;
      }
    }
  }

  forward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routing: Routing,
    experts: Experts,
    rows: number,
  ): void {
    const { perToken, experts: chosen, weights } = asPlain(PlainRouting, routing);
    const { matrices } = asPlain(PlainExperts, experts);
    for (let r = 0; r < rows; r++) {
      const input = asPlain(PlainTensor, x).row(r);
      const sum = Float64Array.from(asPlain(PlainTensor, shared).row(r));
      for (let i = 0; i < perToken; i++) {
        const expert = matrices[chosen[r * perToken + i] ?? -1];
        assert(expert !== undefined, 'the routing names an expert that there is not');
        const gate = this.#gemm.linearRow(input, asPlain(PlainMatrix, expert.gate));
        const up = this.#gemm.linearRow(input, asPlain(PlainMatrix, expert.up));
        const inner = gate.map((value, c) => this.#context.round(silu(value) * (up[c] ?? 0)));
        const down = this.#gemm.linearRow(inner, asPlain(PlainMatrix, expert.down));
        const weight = weights[r * perToken + i] ?? 0;
        down.forEach((value, c) => (sum[c] = (sum[c] ?? 0) + weight * value));
      }
      sum.forEach((value, c) => (asPlain(PlainTensor, out).row(r)[c] = this.#context.round(value)));
    }
  }

  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array } {
    const { perToken, experts, weights } = asPlain(PlainRouting, routing);
    return {
      experts: experts.slice(0, rows * perToken),
      weights: weights.slice(0, rows * perToken),
    };
  }
}
