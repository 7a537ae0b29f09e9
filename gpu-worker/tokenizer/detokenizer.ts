/** Turns tokens into text as they arrive; a token may end in the middle of a character. */

export interface Detokenizer {
  /** The text that this token completes; empty while a character still lacks bytes. */
  push(token: number): string;
  /** Gives the text that is left: a replacement character if the last character is incomplete. */
  flush(): string;
}

/** Bytes that can't be UTF-8 become U+FFFD, as one decoding of the whole would make them. */
export function createDetokenizer(options: {
  tokenBytes: (token: number) => Uint8Array;
  skips: (token: number) => boolean;
}): Detokenizer {
  // The decoder would drop the U+FEFF that a text begins with, but for ignoreBOM.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push(token) {
      if (options.skips(token)) return '';
      return decoder.decode(options.tokenBytes(token), { stream: true });
    },
    flush() {
      return decoder.decode();
    },
  };
}
