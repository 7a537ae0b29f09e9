/** The engine's view of a model; `mla-moe/forward.ts` is the one implementation. */
import type { Batch } from '../backend/batch.ts';
import type { Draw } from '../backend/draw.ts';

export interface ModelLimits {
  /** Rows of a batch, prefill and decode together. */
  readonly rowsMax: number;
  /** Rows that one call of `logits` takes. */
  readonly logitRowsMax: number;
}

export interface Model {
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly limits: ModelLimits;
  /** Blocks of 64 tokens in the caches. */
  readonly blocks: number;
  /**
   * Computes the hidden states of the batch's rows and writes their cache entries. Where others
   * step with it, a batch without rows takes part in their step.
   */
  forward(batch: Batch, observer?: ForwardObserver): void;
  /**
   * Runs the MTP module, which predicts the token after the next one; null in a model without it.
   * Row r of `batch` is the position whose hidden state is row `hiddenRows[r]` of the last call of
   * `forward` or `draft`, and its token is the one that follows that position. The batch then is
   * the last one, for `logits`, `sample` and a further call of `draft`.
   */
  readonly draft: ((batch: Batch, hiddenRows: Int32Array) => void) | null;
  /**
   * Logits [rows.length, vocabSize] of those rows of the last batch, float32; valid until the next
   * call. At most `limits.logitRowsMax` rows.
   */
  logits(rows: Int32Array): Float32Array;
  /**
   * A token for each of those rows of the last batch, drawn where the logits are, so that only the
   * tokens travel; null where a row's logits are no distribution. As many rows as `logits` takes.
   */
  sample(rows: Int32Array, draws: readonly Draw[]): (number | null)[];
}

/** Models that step together, each over caches of its own: the groups of ranks of one model. */
export interface ModelGroups {
  readonly groups: readonly Model[];
  /**
   * `forward` of all groups: a batch for each, null for those that have none. Logits and samples
   * are then asked of the groups.
   */
  forward(batches: readonly (Batch | null)[]): void;
}

/** Sees intermediate values of a forward pass; for `score` and for tests. */
export interface ForwardObserver {
  /**
   * Hidden states [rows, hidden]: after the embedding (stage 0), after each layer, the last normed.
   */
  hidden?(stage: number, states: Float32Array): void;
  /** Positions that each row's indexer selected in this layer, ascending. */
  selection?(layer: number, rows: Int32Array[]): void;
}
