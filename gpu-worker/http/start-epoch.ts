/**
 * The number of this start of a worker: larger than that of every start before that had the same
 * data folder, also when the machine's clock was set back between them.
 */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';

const fileName = 'epoch';

/**
 * The time of the start where the clock has not gone back; kept in `directory`. A disk that does
 * not take it is no reason not to start: an edge believes an older epoch once the younger one is
 * silent.
 */
export async function nextEpoch(options: {
  directory: string;
  nowMs: number;
  logger: Pick<Logger, 'warn'>;
}): Promise<number> {
  const { directory, nowMs, logger } = options;
  const path = join(directory, fileName);
  const epoch = Math.max(nowMs, (await readEpoch(path)) + 1);
  try {
    await writeEpoch(directory, epoch);
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    logger.warn({ path, problem }, 'the epoch of this start is not kept');
  }
  return epoch;
}

/** Whole or not at all. */
async function writeEpoch(directory: string, epoch: number): Promise<void> {
  const path = join(directory, fileName);
  await mkdir(directory, { recursive: true });
  const temporary = `${path}.${process.pid}.new`;
  await using file = await open(temporary, 'w');
  await file.writeFile(`${epoch}\n`);
  await file.sync();
  await rename(temporary, path);
}

/** 0 where there is none, or something that no worker wrote. */
async function readEpoch(path: string): Promise<number> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return /^\d{1,15}\n$/.test(text) ? Number(text) : 0;
}
