/** `sift demo book`: a whole novel's length in one request, on a system of its own. */
import { bookTokensMax } from './book/book-at-start.ts';
import { readBook } from './book/read-book.ts';
import { openOwnSystem } from './own-system.ts';
import type { CommandModule } from './program.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { settingsNote } from './system.ts';
import { toUserError, UsageError } from './user-error.ts';

/** The cache holds the book, its question and the answer. */
const cacheTokensBeside = 2_048;

export const configure: CommandModule['configure'] = (program) => {
  program
    .command('book')
    .description('reads the beginning of Moby Dick and asks about a fact in it, twice')
    .option('--tokens <count>', 'tokens of it', String(bookTokensMax))
    .addHelpText('after', `\n${settingsNote}`)
    .action(async ({ tokens }) => {
      const stop = abortOnStopSignal();
      await demoBook(tokensOf(tokens), stop).catch((error: unknown) => {
        if (!stop.aborted) throw toUserError(error);
      });
      process.exit(0);
    });
};

function tokensOf(text: string): number {
  const tokens = Number(text);
  if (Number.isInteger(tokens) && tokens >= 1_000) return tokens;
  throw new UsageError(`--tokens is ${text}, not a whole number of at least 1000`);
}

async function demoBook(tokens: number, stop: AbortSignal): Promise<void> {
  const cacheTokens = Math.ceil(tokens * 1.01) + cacheTokensBeside;
  await using system = await openOwnSystem({ SIFT_CACHE_TOKENS: String(cacheTokens) });
  stop.throwIfAborted();
  const { reader, backend } = system;
  console.log(`${reader.model} on the ${backend} backend.`);
  await readBook(reader, { tokens, signal: stop });
}
