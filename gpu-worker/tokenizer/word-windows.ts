/**
 * Pre-tokenises a long text window by window, so that neither time nor memory goes by its whole
 * length before the first word is there. A pre-tokenizer reads from left to right and looks hardly
 * further than a word's end: words that lie well within a window are those of the whole text. That
 * is checked at each seam, where two windows have to agree on some words; where they don't, the
 * text is read whole.
 */

/** Characters of a window. A word that is longer makes its window grow. */
const windowCharacters = 16_384;
/** Words at the end of a window that the next one reads again. */
const overlapWords = 16;
/** The last of those words, whose ends the cut may have moved. */
const doubtfulWords = 4;

/** The words of some text in the byte alphabet, one character a byte. */
type PreTokenize = (text: string) => readonly string[];

/**
 * Calls `take` with the words of the text in their order, some at a time; with a whole text's if
 * its windows disagree, after `restart`.
 */
export function eachWords(
  text: string,
  preTokenize: PreTokenize,
  { take, restart }: { take(words: readonly string[]): void; restart(): void },
): void {
  let from = 0;
  let size = windowCharacters;
  let expected: readonly string[] = [];
  while (from + size < text.length) {
    const words = preTokenize(text.slice(from, from + size));
    if (!beginsWith(words, expected)) {
      restart();
      return take(preTokenize(text));
    }
    const kept = words.slice(0, -overlapWords);
    if (kept.length === 0) {
      size *= 2;
      continue;
    }
    take(kept);
    expected = words.slice(kept.length, -doubtfulWords);
    from += charactersOf(text.slice(from, from + size), kept);
    size = windowCharacters;
  }
  const words = preTokenize(text.slice(from));
  if (beginsWith(words, expected)) return take(words);
  restart();
  take(preTokenize(text));
}

function beginsWith(words: readonly string[], expected: readonly string[]): boolean {
  return expected.every((word, index) => words[index] === word);
}

/** Counts the UTF-16 code units of the first words of the text. */
function charactersOf(text: string, words: readonly string[]): number {
  const bytes = words.reduce((sum, word) => sum + word.length, 0);
  return Buffer.from(text).toString('utf8', 0, bytes).length;
}
