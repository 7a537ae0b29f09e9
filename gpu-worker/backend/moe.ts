/** Mixture of experts: the gate and the routed experts. */
import type { ExpertMatrices, Experts, Routing, Tensor, Vector } from './shapes.ts';

export interface RouteOptions {
  readonly groups: number;
  readonly groupsKept: number;
  /** True if the chosen weights are divided by their sum. */
  readonly normalize: boolean;
  readonly scale: number;
}

/** The largest sizes among a model's layers of experts, which a step's scratch has to fit. */
export class LargestExperts {
  perToken = 0;
  hidden = 0;
  inner = 0;
  experts = 0;

  addExperts(shape: { readonly hidden: number; readonly inner: number }, count: number): void {
    this.hidden = Math.max(this.hidden, shape.hidden);
    this.inner = Math.max(this.inner, shape.inner);
    this.experts = Math.max(this.experts, count);
  }

  addRouting(perToken: number): void {
    this.perToken = Math.max(this.perToken, perToken);
  }

  /** Rows of a step, one for each expert of each; 0 while experts or their number is not known. */
  slots(rowsMax: number): number {
    return this.experts === 0 ? 0 : rowsMax * this.perToken;
  }
}

export interface MoeOps {
  /**
   * Makes one handle of the matrices of a layer's routed experts, those of this rank; at start.
   */
  experts(matrices: readonly ExpertMatrices[]): Experts;
  /** Makes room for the experts that `rows` rows go to; at start. */
  routing(rows: number, perToken: number): Routing;
  /**
   * Sigmoid gate with correction bias and groups (docs/engine-spec.md#moe). logits [rows, experts]
   * in `f32`.
   */
  route(out: Routing, logits: Tensor, bias: Vector, rows: number, options: RouteOptions): void;
  /**
   * out = shared + sum over the routed experts of weight * down(silu(gate x) * up x), with one
   * rounding. Where the experts lie over several ranks, all of them call it, one without rows of
   * its own with 0 rows.
   */
  forward(
    out: Tensor,
    x: Tensor,
    shared: Tensor,
    routing: Routing,
    experts: Experts,
    rows: number,
  ): void;
  readRouting(routing: Routing, rows: number): { experts: Int32Array; weights: Float32Array };
}
