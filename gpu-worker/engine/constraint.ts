/**
 * Decides what the next token of a choice may be, in a request with a grammar. The grammar begins
 * where the reasoning ends; before that the end of the answer and what it alone may hold are ruled
 * out. A choice keeps its constraint while it is preempted: its tokens are computed again, not
 * sampled again.
 */
import { at } from '../at.ts';
import { Matcher } from '../grammar/matcher.ts';
import type { MatcherCursor } from '../grammar/matcher.ts';
import { Vocabulary } from '../grammar/vocabulary.ts';
import type { TokenText } from './output.ts';
import type { EngineRequest } from './request.ts';

export interface ConstraintServices {
  readonly tokenText: TokenText;
  /** The model's, so ids without a token of the tokenizer are included. */
  readonly vocabSize: number;
  readonly endTokens: readonly number[];
}

/** Makes the constraints of an engine's requests; equal grammars share what they computed. */
export class Constraints {
  readonly #services: ConstraintServices;
  readonly #matcher: Matcher;
  readonly #maskWords: number;
  /** Masks of reasoning by the tokens that it must not hold besides those that end an answer. */
  readonly #reasoningMasks = new Map<string, Uint32Array>();

  constructor(services: ConstraintServices) {
    const { tokenText, vocabSize, endTokens } = services;
    const control = new Set(tokenText.controlTokens.values());
    const vocabulary = new Vocabulary({
      size: vocabSize,
      tokenBytes: (token) => tokenText.tokenBytes(token),
      isControl: (token) => control.has(token) || endTokens.includes(token),
    });
    this.#services = services;
    this.#matcher = new Matcher(vocabulary, endTokens);
    this.#maskWords = vocabulary.words;
  }

  /** Null for a request without a grammar. */
  start({ grammar, reasoningEndToken }: EngineRequest): Constraint | null {
    if (grammar === null) return null;
    return new Constraint(this.#matcher.startPacked(grammar), {
      ...this.#services,
      reasoningMask: this.#reasoningMask(grammar.answerTokens),
      reasoningEndToken,
    });
  }

  /** Formats mark their calls in one way each, so that there are few masks. */
  #reasoningMask(answerTokens: readonly number[]): Uint32Array {
    const key = answerTokens.join();
    const known = this.#reasoningMasks.get(key);
    if (known !== undefined) return known;
    const mask = new Uint32Array(this.#maskWords).fill(0xffffffff);
    for (const token of [...this.#services.endTokens, ...answerTokens]) {
      const word = token >>> 5;
      mask[word] = at(mask, word) & ~(1 << (token & 31));
    }
    this.#reasoningMasks.set(key, mask);
    return mask;
  }
}

interface ConstraintOptions extends ConstraintServices {
  readonly reasoningMask: Uint32Array;
  readonly reasoningEndToken: number | null;
}

/** The constraint of one choice. */
export class Constraint {
  readonly #cursor: MatcherCursor;
  readonly #options: ConstraintOptions;
  #isReasoning: boolean;

  constructor(cursor: MatcherCursor, options: ConstraintOptions) {
    this.#cursor = cursor;
    this.#options = options;
    this.#isReasoning = options.reasoningEndToken !== null;
  }

  /** A bit for each token that may come next; null if the grammar can't be followed any further. */
  allowed(): Uint32Array | null {
    return this.#isReasoning ? this.#options.reasoningMask : this.#cursor.mask();
  }

  /** Has to be told of every token of the choice. */
  take(token: number): void {
    const { reasoningEndToken, endTokens, tokenText } = this.#options;
    if (this.#isReasoning) this.#isReasoning = token !== reasoningEndToken;
    else if (!endTokens.includes(token)) this.#cursor.advance(token, tokenText.tokenBytes(token));
  }
}
