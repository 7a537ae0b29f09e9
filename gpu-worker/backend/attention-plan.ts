/**
 * Plans in which form a batch's rows attend: absorbed, or with keys and values expanded, with the
 * tokens masked that a row does not select. Both backends follow this plan, as one is the reference
 * of the other; its costs are those of an H200 at V3.2's widths.
 */
import { at } from '../at.ts';
import type { Batch } from './batch.ts';

/**
 * Rows whose attention is absorbed: all of them, only those that do not attend faster with expanded
 * keys and values (decode), or none.
 */
export type Absorption = 'always' | 'decode' | 'never';

/**
 * Rows of a sequence in one batch from which on expanding keys and values pays. Per token of
 * context it costs 2 * 512 * 32,768 operations at V3.2's widths, and saves 2 * 128 * (1,088 - 320)
 * a row.
 */
export const expandedRowsMin = 128;

/**
 * Tokens of a sequence up to which rows attend expanded with a mask: so much memory is set aside
 * for masks.
 */
export const maskedTokensMax = 16_384;

/**
 * The costs of expanding a token and of attending to a selected one absorbed, in tokens that a row
 * attends to expanded: 33.5 MFLOP and 278.5 KFLOP against 81.9 KFLOP at V3.2's widths. The latter
 * is more than 3.4, because the rate is lower and the row's queries and outputs go through kv_b as
 * well. `npm run bench:gpu -- masked` measures both.
 */
const expansionCost = 450;
const absorbedCost = 4.5;

export interface AttentionPlan {
  /**
   * The batch's first rows, whose attention is absorbed. The others' keys and values are expanded.
   */
  readonly absorbedRows: number;
  /** True if some expanded rows select fewer tokens than they see, and so mask the others. */
  readonly masked: boolean;
}

/**
 * Tokens of a sequence up to which so many of its rows attend faster expanded to all that they see,
 * with what they do not select masked, than absorbed to their `topK` selected tokens. Rows see
 * `tokens - rows / 2` on average, and so break even where
 * `expansionCost * tokens + rows * (tokens - rows / 2) = rows * absorbedCost * topK`.
 */
export function limitMaskedTokens({ rows, topK }: { rows: number; topK: number }): number {
  const tokens = (rows * (absorbedCost * topK + rows / 2)) / (expansionCost + rows);
  return Math.min(Math.floor(tokens), maskedTokensMax);
}

/**
 * Rows are absorbed up to the first of the batch's last sequences that all have many rows and few
 * enough tokens. Schedulers put decoding sequences first.
 * @param topK tokens that a row selects at most; null if rows attend to all that they see
 */
export function planAttention(
  { positions, sequences }: Pick<Batch, 'positions' | 'sequences'>,
  { absorption, topK }: { absorption: Absorption; topK: number | null },
): AttentionPlan {
  const rowCount = positions.length;
  if (absorption === 'always') return { absorbedRows: rowCount, masked: false };
  if (absorption === 'never') return { absorbedRows: 0, masked: topK !== null };
  let absorbedRows = rowCount;
  let masked = false;
  while (absorbedRows > 0) {
    const last = absorbedRows - 1;
    let first = last;
    while (first > 0 && sequences[first - 1] === sequences[last]) first--;
    const rows = absorbedRows - first;
    const tokens = at(positions, last) + 1;
    if (rows < expandedRowsMin) break;
    if (topK !== null && tokens > topK) {
      if (tokens > limitMaskedTokens({ rows, topK })) break;
      masked = true;
    }
    absorbedRows = first;
  }
  return { absorbedRows, masked };
}
