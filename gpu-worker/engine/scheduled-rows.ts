/** The rows that one sequence has in the batch of a step: what the scheduler planned for it. */
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
   * Rows whose logits give the tokens to come, in order: the last known token's and those of its
   * drafts once all known tokens are computed, and none before. The row of a draft stands only if
   * that token is what the row before it gives.
   */
  readonly sampleRows: Int32Array;
  /** The drafts among its tokens: the last rows. */
  readonly drafts: readonly number[];
}

/**
 * Describes the rows of sequences that stand in a batch in this order, before they are accepted.
 */
export function scheduledRows(sequences: readonly Sequence[]): ScheduledRows[] {
  let nextRow = 0;
  return sequences.map((sequence) => {
    const firstRow = nextRow;
    const count = sequence.scheduled;
    sequence.stepStart = sequence.computed;
    nextRow += count;
    const scoreCount = sequence.scoresPrompt ? scoredCount(sequence, count) : 0;
    const firstScore = firstRow + Math.max(0, sequence.scored - sequence.computed);
    const drafted = Math.max(0, count - sequence.pending);
    const isComplete = count >= sequence.pending && sequence.outputTokensMax > 0;
    const sampleCount = isComplete ? drafted + 1 : 0;
    const firstSample = nextRow - sampleCount;
    return {
      sequence,
      firstRow,
      count,
      scoreRows: Int32Array.from({ length: scoreCount }, (_, index) => firstScore + index),
      sampleRows: Int32Array.from({ length: sampleCount }, (_, index) => firstSample + index),
      drafts: sequence.drafts.slice(0, drafted),
    };
  });
}

/** Counts the rows of a chunk that are to be scored: the unscored ones but the prompt's last. */
export function scoredCount(sequence: Sequence, count: number): number {
  const end = Math.min(sequence.computed + count, sequence.promptLength - 1);
  return Math.max(0, end - Math.max(sequence.computed, sequence.scored));
}

/** Counts the leading rows whose tokens were known before the step: all but those of drafts. */
export function knownCount(rows: ScheduledRows): number {
  return rows.count - rows.drafts.length;
}

/** Tells whether the token that row `turn` gave is the draft that the next row has computed. */
export function confirmsDraft({ sequence, drafts }: ScheduledRows, turn: number): boolean {
  const draft = drafts[turn];
  return (
    draft !== undefined &&
    sequence.state === 'running' &&
    sequence.tokenAt(sequence.length - 1) === draft
  );
}
