import { decodeE4m3, quantizeGroup } from '../../../../gpu-worker/backend/cpu/codecs.ts';
import type { GemmOps } from '../../../../gpu-worker/backend/gemm.ts';
import { scaleGroup } from '../../../../gpu-worker/backend/numerics.ts';
import type { AbsorbedKv, Matrix, Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import { asPlain, PlainAbsorbedKv, PlainMatrix, PlainTensor } from './handles.ts';

export class PlainGemm implements GemmOps {
  readonly #context: PlainContext;

  constructor(context: PlainContext) {
    this.#context = context;
  }

  /** One row through a weight: quantised and rounded as a linear op is. */
  linearRow(x: Float32Array, matrix: PlainMatrix): Float32Array {
    const quantized = matrix.scales !== null && this.#context.numerics.quantizedLinear;
    const codes = new Uint8Array(x.length);
    const out = new Float64Array(matrix.outputs);
    for (let start = 0; start < x.length; start += scaleGroup) {
      const end = Math.min(start + scaleGroup, x.length);
      const scale = quantized
        ? quantizeGroup(x, codes, { start, end }, this.#context.numerics.scaleFormat)
        : 1;
      const input = quantized
        ? Float32Array.from(codes.subarray(start, end), decodeE4m3)
        : x.subarray(start, end);
      for (let o = 0; o < matrix.outputs; o++) {
        let sum = 0;
        for (let i = start; i < end; i++) sum += (input[i - start] ?? 0) * matrix.raw(o, i);
        out[o] = (out[o] ?? 0) + sum * scale * matrix.scale(o, start / scaleGroup);
      }
    }
    return Float32Array.from(out, (value) => this.#context.round(value));
  }

  linear(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    const matrix = asPlain(PlainMatrix, weight);
    for (let r = 0; r < rows; r++) {
      asPlain(PlainTensor, out)
        .row(r)
        .set(this.linearRow(asPlain(PlainTensor, x).row(r), matrix));
    }
  }

  linearOfParts(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    this.linear(out, x, weight, rows);
  }

  linearF32(out: Tensor, x: Tensor, weight: Matrix, rows: number): void {
    const matrix = asPlain(PlainMatrix, weight);
    for (let r = 0; r < rows; r++) {
      const input = asPlain(PlainTensor, x).row(r);
      const row = asPlain(PlainTensor, out).row(r);
      for (let o = 0; o < matrix.outputs; o++) {
        let sum = 0;
        for (let i = 0; i < matrix.inputs; i++) sum += (input[i] ?? 0) * matrix.get(o, i);
        row[o] = sum;
      }
    }
  }

  /** kv_b seen as [head][nope, then value][latent], as absorption reads it. */
  #absorbed(kv: PlainAbsorbedKv, head: number, row: number, latent: number): number {
    const weight = kv.matrix.get(head * (kv.nopeDim + kv.valueDim) + row, latent);
    return kv.matrix.scales === null ? weight : this.#context.round(weight);
  }

  toLatent(out: Tensor, q: Tensor, kv: AbsorbedKv, rows: number): void {
    const absorbed = asPlain(PlainAbsorbedKv, kv);
    const latentDim = absorbed.matrix.inputs;
    const ropeDim = q.columns / kv.heads - absorbed.nopeDim;
    for (let r = 0; r < rows; r++) {
      for (let h = 0; h < kv.heads; h++) {
        const from = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * (absorbed.nopeDim + ropeDim));
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * (latentDim + ropeDim));
        for (let l = 0; l < latentDim; l++) {
          let sum = 0;
          for (let n = 0; n < absorbed.nopeDim; n++) {
            sum += (from[n] ?? 0) * this.#absorbed(absorbed, h, n, l);
          }
          into[l] = this.#context.round(sum);
        }
        for (let i = 0; i < ropeDim; i++) into[latentDim + i] = from[absorbed.nopeDim + i] ?? 0;
      }
    }
  }

  fromLatent(out: Tensor, latent: Tensor, kv: AbsorbedKv, rows: number): void {
    const absorbed = asPlain(PlainAbsorbedKv, kv);
    const latentDim = absorbed.matrix.inputs;
    for (let r = 0; r < rows; r++) {
      const row = asPlain(PlainTensor, out).row(r);
      row.forEach((_, c) => {
        const head = Math.floor(c / absorbed.valueDim);
        let sum = 0;
        for (let l = 0; l < latentDim; l++) {
          const weight = this.#absorbed(
            absorbed,
            head,
            absorbed.nopeDim + (c % absorbed.valueDim),
            l,
          );
          sum += asPlain(PlainTensor, latent).get(r, head * latentDim + l) * weight;
        }
        row[c] = this.#context.round(sum);
      });
    }
  }
}
