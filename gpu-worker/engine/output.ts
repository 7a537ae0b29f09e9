/**
 * Turns the tokens of one choice into text by channel, and finds the reason to stop. Text goes out
 * as soon as it can't change any more: a character whose bytes are incomplete and a possible
 * beginning of a stop string are held back. Stop strings are looked for in the answer, not in the
 * reasoning before it; stop tokens and the end token count in both.
 */
import type { EngineRequest, FinishReason } from './request.ts';
import { StopScanner } from './stop-strings.ts';

/** The part of a tokenizer that the engine needs. */
export interface TokenText {
  createDetokenizer(options: { skipSpecial: boolean }): {
    /** Text that is complete with this token. */
    push(token: number): string;
    /** Gives the text that is left, broken characters included. */
    flush(): string;
  };
  tokenBytes(token: number): Uint8Array;
  /** Tokens that no text is made of, by their strings. */
  readonly controlTokens: ReadonlyMap<string, number>;
}

export interface Finish {
  readonly reason: Exclude<FinishReason, 'aborted'>;
  readonly stopMatch: string | number | null;
}

export interface OutputPiece {
  readonly channel: 'reasoning' | 'text';
  readonly text: string;
  readonly finish: Finish | null;
}

export class ChoiceOutput {
  readonly #request: EngineRequest;
  readonly #endTokens: readonly number[];
  readonly #tokenText: TokenText;
  readonly #scanner: StopScanner;
  #detokenizer: ReturnType<TokenText['createDetokenizer']>;
  #channel: 'reasoning' | 'text';
  #tokens = 0;

  constructor(
    request: EngineRequest,
    model: { tokenText: TokenText; endTokens: readonly number[] },
  ) {
    this.#request = request;
    this.#endTokens = request.ignoreEnd ? [] : model.endTokens;
    this.#tokenText = model.tokenText;
    this.#scanner = new StopScanner(request.stopStrings);
    this.#detokenizer = model.tokenText.createDetokenizer({ skipSpecial: true });
    this.#channel = request.reasoningEndToken === null ? 'text' : 'reasoning';
  }

  /** Takes the next token. Not to be called after a piece with a finish. */
  push(token: number): OutputPiece {
    const request = this.#request;
    const channel = this.#channel;
    this.#tokens++;
    if (request.stopTokens.includes(token)) {
      return this.#finish({ reason: 'stop', stopMatch: token }, '');
    }
    if (this.#endTokens.includes(token)) {
      return this.#finish({ reason: 'stop', stopMatch: null }, '');
    }
    const isLast = this.#tokens === request.outputTokensMax;
    if (channel === 'reasoning' && token === request.reasoningEndToken) {
      const text = this.#detokenizer.flush();
      this.#detokenizer = this.#tokenText.createDetokenizer({ skipSpecial: true });
      this.#channel = 'text';
      return { channel, text, finish: isLast ? { reason: 'length', stopMatch: null } : null };
    }
    const piece = this.#detokenizer.push(token);
    if (isLast) return this.#finish({ reason: 'length', stopMatch: null }, piece);
    if (channel === 'reasoning') return { channel, text: piece, finish: null };
    const { text, match } = this.#scanner.push(piece);
    const finish = match === null ? null : { reason: 'stop' as const, stopMatch: match };
    return { channel, text, finish };
  }

  /** Sends what was held back, unless it turns out to end in a stop string after all. */
  #finish(finish: Finish, piece: string): OutputPiece {
    const channel = this.#channel;
    const rest = piece + this.#detokenizer.flush();
    if (channel === 'reasoning') return { channel, text: rest, finish };
    const { text, match } = this.#scanner.push(rest);
    if (match !== null) return { channel, text, finish: { reason: 'stop', stopMatch: match } };
    return { channel, text: text + this.#scanner.flush(), finish };
  }
}
