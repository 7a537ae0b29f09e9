/**
 * The prompts that were lately answered for a tenant, as trails, in memory: a prompt that misses a
 * cache is compared with them. What is not remembered, after a restart too, is only not explained.
 */
import type { SeenPrompt } from '../tenant/admission-contract.ts';
import { sharedMarks } from './prompt-trail.ts';

/** Prompts, and 128 KiB of marks, that are remembered of a tenant at most. */
const promptsMax = 256;
const marksMax = 32_768;

interface Remembered {
  readonly marks: Int32Array;
  /** The worker that answered. */
  readonly worker: string;
}

export class RecentPrompts {
  /** The oldest first. */
  #prompts: Remembered[] = [];
  #marks = 0;

  /** Finds the one that begins most like it; null if none begins so. */
  find(marks: Int32Array): SeenPrompt | null {
    let best: SeenPrompt | null = null;
    // The newest first: of two that are alike as far, its worker has it rather than the other's.
    for (let index = this.#prompts.length - 1; index >= 0; index--) {
      const prompt = this.#prompts[index];
      if (prompt === undefined || prompt.marks[0] !== marks[0]) continue;
      const shared = sharedMarks(prompt.marks, marks);
      const isWhole = shared === prompt.marks.length;
      const isBetter =
        best === null || shared > best.marks || (shared === best.marks && isWhole && !best.isWhole);
      if (isBetter) best = { marks: shared, isWhole, worker: prompt.worker };
    }
    return best;
  }

  /** A conversation that goes on takes the place of what it was before. */
  remember(prompt: Remembered): void {
    const { marks } = prompt;
    if (marks.length === 0) return;
    this.#prompts = this.#prompts.filter((each) => !isBeginningOf(each.marks, marks));
    this.#prompts.push(prompt);
    this.#marks = this.#prompts.reduce((sum, each) => sum + each.marks.length, 0);
    while (this.#prompts.length > promptsMax || this.#marks > marksMax) {
      this.#marks -= this.#prompts.shift()?.marks.length ?? 0;
    }
  }
}

/** Each mark covers all before it, so the last one of the shorter trail tells. */
function isBeginningOf(shorter: Int32Array, longer: Int32Array): boolean {
  const { length } = shorter;
  return length <= longer.length && shorter[length - 1] === longer[length - 1];
}
