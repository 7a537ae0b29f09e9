import { decodeE4m3, quantizeGroup } from '../../../../gpu-worker/backend/cpu/codecs.ts';
import type { IndexerOps, SelectOptions } from '../../../../gpu-worker/backend/indexer.ts';
import type { Numerics } from '../../../../gpu-worker/backend/numerics.ts';
import type { LayerCache, Selection, Tensor } from '../../../../gpu-worker/backend/shapes.ts';
import type { PlainContext } from './context.ts';
import { asPlain, PlainCache, PlainSelection, PlainTensor } from './handles.ts';
import { dot } from './numbers.ts';

export class PlainIndexer implements IndexerOps {
  readonly #context: PlainContext;

  constructor(context: PlainContext) {
    this.#context = context;
  }

  selection(rows: number, width: number): Selection {
    return new PlainSelection(rows, width);
  }

  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void {
    const chosen = asPlain(PlainSelection, out);
    chosen.chosen = Array.from(this.#context.batch.positions, (position, r) => {
      const scores =
        position < out.width
          ? new Float32Array(position + 1)
          : this.#indexScores(r, asPlain(PlainCache, cache), { queries, weights, options });
      const order = [...scores.keys()];
      order.sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
      return Int32Array.from(order.slice(0, out.width)).toSorted();
    });
  }

  /** I(t, s) of one row for all the tokens that it sees. */
  #indexScores(
    row: number,
    cache: PlainCache,
    inputs: { queries: Tensor; weights: Tensor; options: SelectOptions },
  ): Float32Array {
    const { heads, dim } = inputs.options;
    const query = asPlain(PlainTensor, inputs.queries).row(row);
    const parts = Array.from({ length: heads }, (_, h) =>
      indexVector(this.#context.numerics, query.slice(h * dim, (h + 1) * dim)),
    );
    const weights = asPlain(PlainTensor, inputs.weights).row(row);
    return Float32Array.from(this.#context.slots(row), (slot) => {
      let sum = 0;
      for (const [h, part] of parts.entries()) {
        const weight = ((weights[h] ?? 0) * part.scale) / Math.sqrt(heads * dim);
        sum += weight * Math.max(0, dot(part.values, cache.key(slot)));
      }
      return sum * (this.#context.numerics.indexKeys === 'fp8' ? (cache.keyScales[slot] ?? 0) : 1);
    });
  }

  readSelection(selection: Selection, rows: number): Int32Array[] {
    return asPlain(PlainSelection, selection).chosen.slice(0, rows);
  }
}

/** A query or key of the indexer after the format's rounding, without its scale. */
export function indexVector(
  numerics: Numerics,
  source: Float32Array,
): { values: Float32Array; scale: number } {
  if (numerics.indexKeys === 'f32') return { values: source, scale: 1 };
  const codes = new Uint8Array(source.length);
  const range = { start: 0, end: source.length };
  const scale = quantizeGroup(source, codes, range, 'ue8m0');
  return { values: Float32Array.from(codes, decodeE4m3), scale };
}
