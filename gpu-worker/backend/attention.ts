/** Attention over the cached latents. */
import { checkSelectionRows } from './checks.ts';
import type { HeadShape, LayerCache, Matrix, Selection, Tensor } from './shapes.ts';

export interface AttentionScale {
  readonly heads: number;
  /** Softmax scale, YaRN's factor included. */
  readonly scale: number;
}

export interface AttendOptions extends AttentionScale {
  /** The batch's first rows alone, whole sequences; all of them unless given. */
  readonly rows?: number;
}

export interface ExpandedAttendOptions extends AttentionScale {
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** The batch's rows from this one on, which begins a sequence; all of them unless given. */
  readonly firstRow?: number;
}

/** A call of `attendExpanded` once it is checked, with the handles of one backend. */
export interface ExpandedCall<OwnTensor, OwnCache, OwnMatrix, OwnSelection> {
  readonly out: OwnTensor;
  readonly q: OwnTensor;
  readonly cache: OwnCache;
  readonly matrix: OwnMatrix;
  readonly selection: OwnSelection | null;
  readonly options: ExpandedAttendOptions;
}

/** The selection of a batch of `rows` rows, as the handle of its backend; null for all tokens. */
export function selectionOf<Own extends Selection>(
  handle: Selection | null,
  own: (handle: Selection) => Own,
  rows: number,
): Own | null {
  if (handle === null) return null;
  const selection = own(handle);
  checkSelectionRows(selection, rows);
  return selection;
}

export interface AttentionOps {
  /** True if many rows of a sequence attend faster with expanded keys and values than absorbed. */
  expandsFaster(shape: HeadShape): boolean;
  /**
   * Absorbed attention (one shared kv head) of the batch's rows over their selected tokens, or
   * over all that they see when `selection` is null. q [rows, heads * (latent + rope)], out [rows,
   * heads * latent]; `lse` [rows, heads] in `f32` takes the natural log-sum-exp of the scaled
   * scores if given.
   */
  attend(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    selection: Selection | null,
    options: AttendOptions,
    lse?: Tensor,
  ): void;
  /**
   * The same attention without absorption: keys and values are expanded from the latents by `kvB`,
   * a `wholeKv`. q [rows, heads * (nope + rope)], out [rows, heads * value].
   */
  attendExpanded(
    out: Tensor,
    q: Tensor,
    cache: LayerCache,
    kvB: Matrix,
    selection: Selection | null,
    options: ExpandedAttendOptions,
  ): void;
}
