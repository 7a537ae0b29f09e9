/** The rows that one sequence has in the batch of a step: what the scheduler planned for it. */
import { strict as assert } from 'node:assert';
import type { Sequence } from './sequence.ts';

export interface ScheduledRows {
  readonly sequence: Sequence;
  /** The first of its rows in the batch; the others follow it in order of position. */
  readonly firstRow: number;
  /** The number of tokens that the step computes, from the sequence's `computed` on. */
  readonly count: number;
  /** Rows of the batch whose logits score the next prompt token. */
  readonly scoreRows: Int32Array;
  /**
   * Rows of the batch whose logits give the tokens to come, in order: the last row once all tokens
   * of the sequence are computed, and none before. With drafted tokens it would be several, and the
   * row of a draft stands only if that token is what the row before it gives.
   */
  readonly sampleRows: Int32Array;
}

/**
 * Describes the rows of sequences that stand in a batch in this order, before they are accepted.
 */
export function scheduledRows(sequences: readonly Sequence[]): ScheduledRows[] {
  let nextRow = 0;
  return sequences.map((sequence) => {
    const firstRow = nextRow;
    const count = sequence.scheduled;
    nextRow += count;
    const scoreCount = sequence.scoresPrompt ? scoredCount(sequence, count) : 0;
    const firstScore = firstRow + Math.max(0, sequence.scored - sequence.computed);
    const isComplete = count === sequence.pending && sequence.outputTokensMax > 0;
    return {
      sequence,
      firstRow,
      count,
      scoreRows: Int32Array.from({ length: scoreCount }, (_, index) => firstScore + index),
      sampleRows: isComplete ? Int32Array.of(nextRow - 1) : new Int32Array(0),
    };
  });
}

/** Counts the rows of a chunk that are to be scored: the unscored ones but the prompt's last. */
export function scoredCount(sequence: Sequence, count: number): number {
  const end = Math.min(sequence.computed + count, sequence.promptLength - 1);
  return Math.max(0, end - Math.max(sequence.computed, sequence.scored));
}

/**
 * Counts the leading rows whose own token stands once `sampled` tokens of `sampleRows` were kept:
 * each kept token confirms the row that it was drawn from.
 */
export function standingCount(rows: ScheduledRows, sampled: number): number {
  assert(sampled <= rows.sampleRows.length, 'a row gives at most one token');
  assert(sampled > 0 || rows.sampleRows.length === 0, 'rows that sample give at least one token');
  return rows.count - rows.sampleRows.length + sampled;
}
