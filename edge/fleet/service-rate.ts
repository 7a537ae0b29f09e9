/**
 * A worker's rate of service, learned from the answers that ended: tokens that a slot serves in a
 * time, over all that was in its way (other answers in the batch, prompts computed between). So it
 * falls as the worker fills, and an estimate of a wait made from it is of the load as it is.
 */

/** About this many answers count; older ones fade. */
const answersRemembered = 32;

export class ServiceRate {
  #tokens = 0;
  #slotMs = 0;
  #outputTokens = 0;
  #answers = 0;

  add(answer: {
    /** Tokens computed for the answer: its prompt without what was cached, and its output. */
    readonly tokens: number;
    readonly outputTokens: number;
    readonly slots: number;
    readonly elapsedMs: number;
  }): void {
    const fade = 1 - 1 / answersRemembered;
    this.#tokens = this.#tokens * fade + answer.tokens;
    this.#slotMs = this.#slotMs * fade + answer.slots * Math.max(1, answer.elapsedMs);
    this.#outputTokens = this.#outputTokens * fade + answer.outputTokens;
    this.#answers = this.#answers * fade + answer.slots;
  }

  /** Tokens that one slot serves in a millisecond; null before the first answer. */
  get tokensPerMs(): number | null {
    return this.#answers === 0 ? null : this.#tokens / this.#slotMs;
  }

  /** The time that an answer keeps its slot; null before the first. */
  get answerMs(): number | null {
    return this.#answers === 0 ? null : this.#slotMs / this.#answers;
  }

  /** Output tokens of one answer; null before the first. */
  get outputTokens(): number | null {
    return this.#answers === 0 ? null : this.#outputTokens / this.#answers;
  }
}
