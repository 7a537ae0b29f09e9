import type {
  AttendOptions,
  AttentionOps,
  ExpandedAttendOptions,
} from '../../../../gpu-worker/backend/attention.ts';
import type {
  LayerCache,
  Matrix,
  Selection,
  Tensor,
} from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import type { PlainGemm } from './gemm.ts';
import { asPlain, PlainCache, PlainMatrix, PlainSelection, PlainTensor } from './handles.ts';
import { dot } from './numbers.ts';

export class PlainAttention implements AttentionOps {
  readonly #context: PlainContext;
  readonly #gemm: PlainGemm;

  constructor(context: PlainContext, gemm: PlainGemm) {
    this.#context = context;
    this.#gemm = gemm;
  }

  expandsFaster(): boolean {
    return false;
  }

  /** Positions that a row attends to. */
  #attended(row: number, selection: Selection | null): Int32Array {
    const all = Int32Array.from(this.#context.slots(row).keys());
    if (selection === null) return all;
    return asPlain(PlainSelection, selection).chosen[row] ?? new Int32Array(0);
  }

  /** softmax(scale * q . keys) and the values' mean under it. */
  #attendHead(
    q: Float32Array,
    keys: Float32Array[],
    values: Float32Array[],
    scale: number,
  ): { out: Float64Array; lse: number } {
    const scores = keys.map((key) => scale * dot(q, key));
    const max = Math.max(...scores);
    const probabilities = scores.map((score) => Math.exp(score - max));
    const total = probabilities.reduce((sum, p) => sum + p, 0);
    const out = new Float64Array(values[0]?.length ?? 0);
    for (const [i, value] of values.entries()) {
      value.forEach((v, c) => (out[c] = (out[c] ?? 0) + (v * (probabilities[i] ?? 0)) / total));
    }
    return { out, lse: max + Math.log(total) };
  }

  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void {
    const from = asPlain(PlainCache, cache);
    const { latentDim } = from.shape;
    const width = latentDim + from.shape.ropeDim;
    for (let r = 0; r < this.#context.batch.tokens.length; r++) {
      const slots = this.#context.slots(r);
      const keys = Array.from(this.#attended(r, selection), (p) => from.latent(slots[p] ?? -1));
      const values = keys.map((key) => key.subarray(0, latentDim));
      for (let h = 0; h < options.heads; h++) {
        const query = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * width, (h + 1) * width);
        const head = this.#attendHead(query, keys, values, options.scale);
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * latentDim);
        head.out.forEach((value, c) => (into[c] = this.#context.round(value)));
        if (lse !== undefined) asPlain(PlainTensor, lse).row(r)[h] = head.lse;
      }
    }
  }

  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void {
    const from = asPlain(PlainCache, cache);
    const { latentDim } = from.shape;
    const { nopeDim, ropeDim, valueDim } = options;
    const expandedBySlot = new Map<number, Float32Array>();
    for (let r = 0; r < this.#context.batch.tokens.length; r++) {
      const slots = this.#context.slots(r);
      const chosen = Array.from(this.#attended(r, selection), (p) => slots[p] ?? -1);
      const entries = chosen.map((slot) => from.latent(slot));
      const expanded = chosen.map((slot) => {
        const known = expandedBySlot.get(slot);
        if (known !== undefined) return known;
        const latent = from.latent(slot).slice(0, latentDim);
        const fresh = this.#gemm.linearRow(latent, asPlain(PlainMatrix, kvB));
        expandedBySlot.set(slot, fresh);
        return fresh;
      });
      for (let h = 0; h < options.heads; h++) {
        const start = h * (nopeDim + valueDim);
        const keys = expanded.map((kv, i) =>
          Float32Array.of(
            ...kv.subarray(start, start + nopeDim),
            ...(entries[i]?.subarray(latentDim) ?? []),
          ),
        );
        const values = expanded.map((kv) =>
          kv.subarray(start + nopeDim, start + nopeDim + valueDim),
        );
        const query = asPlain(PlainTensor, q)
          .row(r)
          .subarray(h * (nopeDim + ropeDim));
        const head = this.#attendHead(
          query.subarray(0, nopeDim + ropeDim),
          keys,
          values,
          options.scale,
        );
        const into = asPlain(PlainTensor, out)
          .row(r)
          .subarray(h * valueDim);
        head.out.forEach((value, c) => (into[c] = this.#context.round(value)));
      }
    }
  }
}
