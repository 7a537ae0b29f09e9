/** The book of `sift start`: as much of it as this machine reads in half a minute, or none. */
import type { ReadingTime } from '../demo-questions.ts';
import { tokensReadIn } from './book-prompt.ts';
import { readBook } from './read-book.ts';
import type { BookReader } from './read-book.ts';

const readingSeconds = 30;
export const bookTokensMin = 16_000;
/** The length of a whole novel. */
export const bookTokensMax = 138_000;
/** The question's turn and the answer take no more of the context. */
const answerTokensMax = 1_000;

/**
 * Resolves once it has read, or Enter skipped it; what goes wrong is told and ends the reading
 * alone.
 * @throws the reason of `stop` once that is aborted.
 */
export async function readBookAtStart(
  reader: BookReader,
  options: {
    readonly seen: ReadingTime;
    readonly tokensMax: number;
    readonly stop: AbortSignal;
  },
): Promise<void> {
  const { seen, stop } = options;
  const tokensMax = Math.min(bookTokensMax, options.tokensMax - answerTokensMax);
  if (tokensMax < bookTokensMin) return;
  const tokens = Math.min(tokensMax, Math.max(bookTokensMin, tokensReadIn(readingSeconds, seen)));
  const skip = new AbortController();
  const unlisten = onEnter(() => skip.abort(new Error('the book was skipped')));
  const how = process.stdin.isTTY ? 'Enter skips it' : '--no-book leaves it out';
  console.log(`Meanwhile it reads a book, which sparse attention is for (${how}).`);
  try {
    await readBook(reader, { tokens, signal: AbortSignal.any([stop, skip.signal]) });
  } catch (error) {
    stop.throwIfAborted();
    console.log(`  ${error instanceof Error ? error.message : String(error)}\n`);
  } finally {
    unlisten();
  }
}

/** Returns a function that listens no more; without a terminal nobody presses Enter. */
function onEnter(act: () => void): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) return () => {};
  stdin.once('data', act);
  return () => {
    stdin.off('data', act);
    stdin.pause();
  };
}
