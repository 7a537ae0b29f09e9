/**
 * One choice of one request while it lives: its tokens, how many of them are computed, and the
 * blocks that hold those. The scheduler moves it between waiting and running; the engine appends
 * the tokens that it samples.
 */
import { strict as assert } from 'node:assert';
import { at } from '../at.ts';
import { blockTokens } from '../backend/batch.ts';
import { createBlockTable } from './block-manager.ts';
import type { BlockTable } from './block-manager.ts';
import type { EngineRequest } from './request.ts';

export type SequenceState = 'held' | 'waiting' | 'running' | 'ended';

export class Sequence {
  readonly requestId: string;
  readonly choice: number;
  /** Order of arrival; kept through preemption. */
  readonly serial: number;
  readonly salt: string;
  /** The fair scope: sequences of one scope share a turn. */
  readonly scope: string;
  readonly promptLength: number;
  readonly outputTokensMax: number;
  /**
   * True of a sequence that scores each prompt token, for its request; it bounds its prefill
   * chunks.
   */
  readonly scoresPrompt: boolean;

  state: SequenceState = 'held';
  /** Prompt and output tokens known so far, of `tokens`. */
  length: number;
  /** Leading accepted tokens whose cache entries stand in the blocks of `table`. */
  computed = 0;
  /** Leading prompt tokens whose rows were scored; only with `scoresPrompt`. */
  scored = 0;
  /** Prompt tokens found cached when the sequence first ran; null before. */
  cachedTokens: number | null = null;
  /**
   * Leading prompt tokens, cached ones included, computed so far; computing them again adds none.
   */
  promptReached = 0;
  /** The first position that the current step computes. */
  stepStart = 0;
  /** Tokens that the current step computes, drafts included. */
  scheduled = 0;
  /** Tokens that may follow the known ones; the next step verifies them, or some of the first. */
  drafts: readonly number[] = [];
  /** The last step that decided about this sequence; each decides once. */
  consideredAt = -1;

  #tokens: Int32Array;
  #table: BlockTable | null = null;

  constructor(request: EngineRequest, options: { choice: number; serial: number }) {
    this.requestId = request.id;
    this.choice = options.choice;
    this.serial = options.serial;
    this.salt = request.cacheSalt;
    this.scope = request.fairScope;
    this.promptLength = request.promptTokens.length;
    this.outputTokensMax = request.outputTokensMax;
    this.scoresPrompt = request.promptLogprobs !== null && options.choice === 0;
    this.length = this.promptLength;
    this.#tokens = request.promptTokens;
  }

  /** [at least length] shared with the request's other choices until the first output token. */
  get tokens(): Int32Array {
    return this.#tokens;
  }

  get table(): BlockTable {
    this.#table ??= createBlockTable({
      salt: this.salt,
      tokensMax: tokensStored(this),
    });
    return this.#table;
  }

  get outputTokens(): number {
    return this.length - this.promptLength;
  }

  /** Tokens to compute before the next one can be sampled; 1 while decoding. */
  get pending(): number {
    return this.length - this.computed;
  }

  /**
   * Tokens that this sequence may still compute, outputs to come included. A choice after the
   * first expects to find its prompt's blocks in the cache when it starts.
   */
  get tokensAhead(): number {
    const total = this.promptLength + this.outputTokensMax;
    if (this.state === 'running' || this.choice === 0) return total - this.computed;
    return total - Math.floor((this.promptLength - 1) / blockTokens) * blockTokens;
  }

  /**
   * Leading tokens that may come out of the prefix cache: never the last one, whose logits are
   * wanted, and none of a prompt that is still to be scored.
   */
  get reusable(): number {
    const isScored = !this.scoresPrompt || this.scored >= this.promptLength - 1;
    return isScored ? this.length - 1 : this.scored;
  }

  /**
   * Counts the `count` tokens that a step has just computed, for the usage; accepts none of them.
   */
  countComputed(count: number): void {
    this.cachedTokens ??= this.computed;
    const reached = Math.min(this.computed + count, this.promptLength);
    this.promptReached = Math.max(this.promptReached, reached);
  }

  /** The token at a position; behind the known ones it is a draft. */
  tokenAt(position: number): number {
    if (position >= this.length) return at(this.drafts, position - this.length);
    return at(this.#tokens, position);
  }

  append(token: number): void {
    const tokensMax = this.promptLength + this.outputTokensMax;
    assert(this.length < tokensMax, 'a sequence ends at its length limit');
    if (this.#tokens.length < tokensMax) {
      const prompt = this.#tokens;
      this.#tokens = new Int32Array(tokensMax);
      this.#tokens.set(prompt);
    }
    this.#tokens[this.length++] = token;
  }
}

/** Tokens that a sequence stores at most: its last output token is never computed. */
export function tokensStored(sizes: { promptLength: number; outputTokensMax: number }): number {
  return sizes.promptLength + Math.max(sizes.outputTokensMax, 1) - 1;
}
