import { strict as assert } from 'node:assert';
import type {
  NormOptions,
  RopeTable,
  RotateOptions,
  RowOps,
} from '../../../../gpu-worker/backend/row-ops.ts';
import type { Matrix, Tensor, Vector } from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import { asPlain, PlainMatrix, PlainTensor, valuesOf } from './handles.ts';
import { dot, silu } from './numbers.ts';

export class PlainRowOps implements RowOps {
  readonly #context: PlainContext;

  constructor(context: PlainContext) {
    this.#context = context;
  }

  ropeTable(table: RopeTable): void {
    this.#context.rope = table;
  }

  embed(out: Tensor, table: Matrix): void {
    const matrix = asPlain(PlainMatrix, table);
    const { tokens } = this.#context.batch;
    for (const [r, token] of tokens.entries()) {
      asPlain(PlainTensor, out)
        .row(r)
        .forEach((_, c, row) => (row[c] = this.#context.round(matrix.get(token, c))));
    }
  }

  #normalize(out: Float32Array, x: number[], weight: Float32Array, epsilon: number): void {
    const scale = 1 / Math.sqrt(dot(x, x) / x.length + epsilon);
    for (const [c, value] of x.entries())
      out[c] = this.#context.round(value * scale * (weight[c] ?? 0));
  }

  rmsNorm(out: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    for (let r = 0; r < options.rows; r++) {
      const values = [...asPlain(PlainTensor, x).row(r)];
      this.#normalize(asPlain(PlainTensor, out).row(r), values, valuesOf(weight), options.epsilon);
    }
  }

  addRmsNorm(out: Tensor, residual: Tensor, x: Tensor, weight: Vector, options: NormOptions): void {
    for (let r = 0; r < options.rows; r++) {
      const carried = asPlain(PlainTensor, residual).row(r);
      const added = asPlain(PlainTensor, x).row(r);
      const sum = Array.from(carried, (value, c) => Math.fround(value + (added[c] ?? 0)));
      sum.forEach((value, c) => (carried[c] = this.#context.round(value)));
      this.#normalize(asPlain(PlainTensor, out).row(r), sum, valuesOf(weight), options.epsilon);
    }
  }

  layerNorm(
    out: Tensor,
    x: Tensor,
    norm: { weight: Vector; bias: Vector },
    options: NormOptions,
  ): void {
    const weight = valuesOf(norm.weight);
    const bias = valuesOf(norm.bias);
    for (let r = 0; r < options.rows; r++) {
      const values = [...asPlain(PlainTensor, x).row(r)];
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const centred = values.map((value) => value - mean);
      const scale = 1 / Math.sqrt(dot(centred, centred) / values.length + options.epsilon);
      asPlain(PlainTensor, out)
        .row(r)
        .forEach((_, c, row) => {
          row[c] = this.#context.round(
            (centred[c] ?? 0) * scale * (weight[c] ?? 0) + (bias[c] ?? 0),
          );
        });
    }
  }

  add(residual: Tensor, x: Tensor, rows: number): void {
    for (let r = 0; r < rows; r++) {
      const added = asPlain(PlainTensor, x).row(r);
      const row = asPlain(PlainTensor, residual).row(r);
      row.forEach(
        (value, c) => (row[c] = this.#context.round(Math.fround(value + (added[c] ?? 0)))),
      );
    }
  }

  rotate(x: Tensor, options: RotateOptions): void {
    const table = this.#context.rope;
    assert(table !== null, 'rotate ran before ropeTable');
    const half = table.dim / 2;
    const { positions } = this.#context.batch;
    for (let r = 0; r < options.rows; r++) {
      const row = asPlain(PlainTensor, x).row(r);
      for (let h = 0; h < options.heads; h++) {
        const start = (h * row.length) / options.heads + options.start;
        for (let i = 0; i < half; i++) {
          const first = start + (options.layout === 'half' ? i : 2 * i);
          const second = options.layout === 'half' ? first + half : first + 1;
          const cos = table.cos[(positions[r] ?? 0) * half + i] ?? Number.NaN;
          const sin = table.sin[(positions[r] ?? 0) * half + i] ?? Number.NaN;
          const [a, b] = [row[first] ?? 0, row[second] ?? 0];
          row[first] = this.#context.round(a * cos - b * sin);
          row[second] = this.#context.round(a * sin + b * cos);
        }
      }
    }
    if (options.transform === true) this.hadamard(x, options);
  }

  hadamard(x: Tensor, options: { rows: number; heads: number }): void {
    for (let r = 0; r < options.rows; r++) {
      const row = asPlain(PlainTensor, x).row(r);
      const dim = row.length / options.heads;
      for (let h = 0; h < options.heads; h++) {
        const part = row.slice(h * dim, (h + 1) * dim);
        for (let i = 0; i < dim; i++) {
          let sum = 0;
          // Sylvester's entry (i, j) is -1 to the number of bits that i and j share.
          for (let j = 0; j < dim; j++) {
            const shared = (i & j).toString(2).replaceAll('0', '').length;
            sum += (part[j] ?? 0) * (shared % 2 === 0 ? 1 : -1);
          }
          row[h * dim + i] = this.#context.round(sum / Math.sqrt(dim));
        }
      }
    }
  }

  siluMultiply(out: Tensor, gate: Tensor, up: Tensor, rows: number): void {
    for (let r = 0; r < rows; r++) {
      const gates = asPlain(PlainTensor, gate).row(r).slice();
      const ups = asPlain(PlainTensor, up).row(r);
      const row = asPlain(PlainTensor, out).row(r);
      gates.forEach((value, c) => (row[c] = this.#context.round(silu(value) * (ups[c] ?? 0))));
    }
  }

  gatherRows(out: Tensor, x: Tensor, rowIndices: Int32Array): void {
    rowIndices.forEach((from, r) =>
      asPlain(PlainTensor, out).row(r).set(asPlain(PlainTensor, x).row(from)),
    );
  }
}
