/** Logprobs of the engine in the wire's three shapes: chat, completions, and vLLM's for prompts. */
import { isUtf8 } from 'node:buffer';
import type { TokenLogprob } from '../../engine/request.ts';
import type {
  ChatLogprob,
  ChatTokenLogprob,
  CompletionLogprobs,
  PromptLogprobs,
} from '../../protocol/responses.ts';

/** A token's text, or null if its bytes are not whole characters. */
function wholeText(bytes: readonly number[]): string | null {
  // A decoder that throws takes ten times as long, and an answer may have a million tokens to name.
  const buffer = Buffer.from(bytes);
  return isUtf8(buffer) ? buffer.toString() : null;
}

function escapeBytes(bytes: readonly number[]): string {
  return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
}

/** A token of the chat API; `bytes` says exactly what an escaped one is. */
function chatToken(bytes: readonly number[]): string {
  return wholeText(bytes) ?? escapeBytes(bytes);
}

/** A token of the completions API, which has no `bytes` beside it. */
function completionToken(bytes: readonly number[]): string {
  return wholeText(bytes) ?? `bytes:${escapeBytes(bytes)}`;
}

export function toChatLogprobs(entries: readonly TokenLogprob[]): ChatTokenLogprob[] {
  return entries.map((entry) => ({
    ...toChatLogprob(entry),
    top_logprobs: entry.top.map(toChatLogprob),
  }));
}

function toChatLogprob({ bytes, logprob }: Pick<TokenLogprob, 'bytes' | 'logprob'>): ChatLogprob {
  return { token: chatToken(bytes), bytes, logprob };
}

/** A token of a prompt or an output; the first of a prompt has no logprob. */
export interface PlacedToken {
  readonly bytes: readonly number[];
  readonly entry: TokenLogprob | null;
  /** Not part of the choice's text, such as a begin token that the tokenizer put in front. */
  readonly hidden?: boolean;
}

/** Counts characters as tokens go by, for `text_offset`; one per choice. */
export class TextOffset {
  #characters = 0;

  /** The offset of the token's first character, or of the character that it goes on with. */
  next(token: PlacedToken): number {
    if (token.hidden) return this.#characters;
    const goesOn = token.bytes[0] !== undefined && isContinuation(token.bytes[0]);
    const offset = goesOn ? Math.max(0, this.#characters - 1) : this.#characters;
    this.#characters += token.bytes.filter((byte) => !isContinuation(byte)).length;
    return offset;
  }
}

/** Tells whether a byte of UTF-8 is not the first of its character. */
function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

/** `top_logprobs` holds the `topCount` best and the token itself. */
export function toCompletionLogprobs(
  tokens: readonly PlacedToken[],
  offset: TextOffset,
  topCount: number,
): CompletionLogprobs {
  return {
    tokens: tokens.map((token) => completionToken(token.bytes)),
    token_logprobs: tokens.map((token) => token.entry?.logprob ?? null),
    top_logprobs: tokens.map(({ entry }) => entry && topByText(entry, topCount)),
    text_offset: tokens.map((token) => offset.next(token)),
  };
}

function topByText(entry: TokenLogprob, topCount: number): Record<string, number> {
  const best = new Map<string, number>();
  for (const { bytes, logprob } of [...entry.top.slice(0, topCount), entry]) {
    const text = completionToken(bytes);
    // Two tokens can have the same text; the likelier one comes first and stays.
    if (!best.has(text)) best.set(text, logprob);
  }
  return Object.fromEntries(best);
}

export function toPromptLogprobs(
  entries: readonly (TokenLogprob | null)[],
  topCount: number,
): PromptLogprobs {
  return entries.map((entry) => {
    if (!entry) return null;
    const ranked = entry.top
      .slice(0, topCount)
      .map((each, index) => ({ ...each, rank: index + 1 }));
    const own = ranked.some((each) => each.token === entry.token) ? [] : [{ ...entry, rank: null }];
    return Object.fromEntries(
      [...ranked, ...own].map(({ token, bytes, logprob, rank }) => [
        String(token),
        { logprob, rank, decoded_token: chatToken(bytes) },
      ]),
    );
  });
}
