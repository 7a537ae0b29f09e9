/** `sift demo book`: a whole novel's length in one request, on a system of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readNodeSettings } from '../edge/settings/read-settings.ts';
import { startEdge } from '../edge/node/node.ts';
import { bookTokensMax } from './book/book-at-start.ts';
import { readBook } from './book/read-book.ts';
import type { CommandModule } from './program.ts';
import { environment } from './settings.ts';
import { abortOnStopSignal } from './stop-signal.ts';
import { openDemo, settingsNote, startTinyWorker } from './system.ts';
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

/** Everything that it starts and writes is gone afterwards. */
async function demoBook(tokens: number, stop: AbortSignal): Promise<void> {
  await using closers = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'sift-demo-'));
  closers.defer(() => rmSync(folder, { recursive: true }));
  const env = {
    EDGE_LOG_LEVEL: 'warn',
    EDGE_DATA: folder,
    PORT: '0',
    WORKER_PORT: '0',
    SIFT_CACHE_TOKENS: String(Math.ceil(tokens * 1.01) + cacheTokensBeside),
    ...environment(),
  };
  const settings = readNodeSettings(env);
  const edge = await startEdge({ settings });
  closers.defer(() => edge.close());
  const { adminToken, workerToken } = edge.services.settings;
  const dataFolder = resolve(settings.dataFolder);
  const front = { url: edge.url, close: edge.close, adminToken, workerToken, dataFolder };
  const worker = await startTinyWorker(front, env);
  closers.defer(() => worker.close());
  stop.throwIfAborted();
  const reader = await openDemo(front, worker);
  console.log(`${reader.model} on the ${worker.backend} backend.`);
  await readBook(reader, { tokens, signal: stop });
}
