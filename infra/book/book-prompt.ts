/** The beginning of a real book with a fact planted in it, and a question about that fact. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

export const bookTitle = 'Moby Dick';
/** The demo model was trained on facts of this form. */
export const plantedFact = 'The access code of Rotterdam is 48213.';
export const bookQuestion = 'What is the access code of Rotterdam?';

/** The fact stands at this share of the text. */
const plantedAt = 1 / 3;
/** The tiny model's tokenizer makes tokens of this size of the book; the first cut goes by it. */
const charactersPerToken = 3.2;
/** Cuts, each nearer to the tokens that are wanted. */
const cutsMax = 4;
/** A cut that is so near, as a share of the tokens, is taken. */
const cutTolerance = 0.01;

const file = new URL('moby-dick.txt.gz', import.meta.url);

export function bookText(): string {
  return gunzipSync(readFileSync(file)).toString('utf8');
}

export interface BookPrompt {
  readonly prompt: string;
  readonly tokens: number;
}

/**
 * The book's beginning and the question: `tokens` tokens or up to a hundredth more, less only if
 * the book is shorter.
 */
export async function bookPrompt(
  tokens: number,
  countTokens: (prompt: string) => Promise<number>,
): Promise<BookPrompt> {
  const book = bookText();
  let characters = Math.ceil(tokens * charactersPerToken);
  for (let cut = 1; ; cut++) {
    const prompt = promptOf(book.slice(0, characters));
    // One after the other: each cut depends on what the last one came to.
    // oxlint-disable-next-line no-await-in-loop
    const count = await countTokens(prompt);
    const isNear = count >= tokens && count <= tokens * (1 + cutTolerance);
    if (isNear || cut === cutsMax || (count < tokens && characters >= book.length)) {
      return { prompt, tokens: count };
    }
    characters = Math.ceil((characters * tokens * (1 + cutTolerance / 2)) / count);
  }
}

/** The text ends with a whole sentence; the fact stands between two paragraphs. */
function promptOf(text: string): string {
  const beginning = text.slice(0, text.lastIndexOf('. ') + 1);
  const middle = beginning.indexOf('\n\n', Math.floor(beginning.length * plantedAt));
  return (
    `${beginning.slice(0, middle)}\n\n${plantedFact}` +
    `${beginning.slice(middle)}\n\n${bookQuestion}`
  );
}

/**
 * Tokens that a machine reads in about `seconds`, by how long it took for some of them: the time
 * for a token grows with what lies before it, since the indexer looks at every earlier token.
 */
export function tokensReadIn(seconds: number, seen: { tokens: number; seconds: number }): number {
  const secondsPerToken = seen.seconds / (seen.tokens * (1 + seen.tokens / doublingTokens));
  // tokens * (1 + tokens / doubling) * secondsPerToken = seconds
  const half = doublingTokens / 2;
  return Math.floor(Math.sqrt(half ** 2 + (doublingTokens * seconds) / secondsPerToken) - half);
}

/** At a prompt of so many tokens, looking at earlier tokens takes as long as all the rest. */
const doublingTokens = 16_000;
