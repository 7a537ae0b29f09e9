/**
 * Byte-level BPE writes each byte as one printable character (the GPT-2 alphabet): printable
 * Latin-1 stands for itself, the other bytes for the characters from U+0100 on, in order.
 */

/** [256] the character of each byte. */
export const byteAlphabet: readonly string[] = alphabet();

const byteOf: ReadonlyMap<string, number> = new Map(
  byteAlphabet.map((character, byte) => [character, byte]),
);

/** The bytes that a token of the vocabulary stands for. */
export function bytesOfToken(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = byteOf.get(character);
    // A character outside the alphabet can't come from BPE, and so it stands for itself.
    if (byte === undefined) bytes.push(...Buffer.from(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

function alphabet(): string[] {
  const characters: string[] = [];
  let moved = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    characters.push(String.fromCharCode(printable ? byte : 0x100 + moved++));
  }
  return characters;
}
