/** The lightning indexer: which tokens a row attends to. */
import type { LayerCache, Selection, Tensor } from './shapes.ts';

export interface SelectOptions {
  readonly heads: number;
  /** index_head_dim. */
  readonly dim: number;
}

export interface IndexerOps {
  /** Makes room for the selected tokens of `rows` rows; at start. */
  selection(rows: number, width: number): Selection;
  /**
   * The lightning indexer (docs/engine-spec.md#indexer): I(t, s) = sum_j w[t, j] * max(0, q[t, j] .
   * k[s]) over s <= t, then the top `width` of each row: score descending, index ascending on ties;
   * stored in ascending order. A row that sees at most `width` tokens selects all of them without
   * scoring. queries [rows, heads * dim]; weights [rows, heads] in `f32`, heads^-0.5 and dim^-0.5
   * not yet applied.
   */
  selectTopK(
    out: Selection,
    cache: LayerCache,
    queries: Tensor,
    weights: Tensor,
    options: SelectOptions,
  ): void;
  /** The positions selected for each row, ascending. */
  readSelection(selection: Selection, rows: number): Int32Array[];
}
