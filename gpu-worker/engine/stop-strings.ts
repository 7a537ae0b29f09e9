/**
 * Finds stop strings in text that arrives in pieces. Knuth-Morris-Pratt per stop string, one code
 * unit at a time, so that the result doesn't depend on where the pieces were cut, and a step costs
 * the length of its text, not of the stop strings.
 */
import { at } from '../at.ts';

interface Pattern {
  readonly text: string;
  /** [length] of the longest proper prefix of the pattern that ends at each of its characters. */
  readonly fallback: Int32Array;
  /** The text so far ends with so many of its characters. */
  matched: number;
}

export interface StopScan {
  /** Text that can be sent: all that came so far and was not sent, but for a possible beginning. */
  readonly text: string;
  /** The stop string that is complete; the scanner is not to be used after it. */
  readonly match: string | null;
}

/**
 * The first stop string to be complete wins; of two that are complete at the same character, the
 * longer one. Text that could be the beginning of a stop string is held back until it is decided.
 */
export class StopScanner {
  readonly #patterns: readonly Pattern[];
  #held = '';

  constructor(stopStrings: readonly string[]) {
    this.#patterns = stopStrings.map((text) => ({ text, fallback: fallbacks(text), matched: 0 }));
  }

  push(piece: string): StopScan {
    const text = this.#held + piece;
    for (let index = this.#held.length; index < text.length; index++) {
      const complete = this.#advance(text.charAt(index));
      if (complete === null) continue;
      this.#held = '';
      return { text: text.slice(0, index + 1 - complete.length), match: complete };
    }
    const undecided = this.#patterns.reduce((most, { matched }) => Math.max(most, matched), 0);
    this.#held = text.slice(text.length - undecided);
    return { text: text.slice(0, text.length - undecided), match: null };
  }

  /** The text held back, once it is known that nothing follows. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }

  #advance(character: string): string | null {
    let complete: string | null = null;
    for (const pattern of this.#patterns) {
      const { text, fallback } = pattern;
      while (pattern.matched > 0 && text[pattern.matched] !== character)
        pattern.matched = at(fallback, pattern.matched - 1);
      if (text[pattern.matched] === character) pattern.matched++;
      const isComplete = pattern.matched === text.length;
      if (isComplete && (complete === null || text.length > complete.length)) complete = text;
    }
    return complete;
  }
}

function fallbacks(text: string): Int32Array {
  const fallback = new Int32Array(text.length);
  let matched = 0;
  for (let index = 1; index < text.length; index++) {
    while (matched > 0 && text[matched] !== text[index]) matched = at(fallback, matched - 1);
    if (text[matched] === text[index]) matched++;
    fallback[index] = matched;
  }
  return fallback;
}
