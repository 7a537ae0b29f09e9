/** A checkpoint in a directory of this machine, given as a path or as a file:// URL. */
import { open, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CheckpointError, reasonOf } from './source.ts';
import type { SourceFile, WeightSource } from './source.ts';

/** Rejects with a CheckpointError if `location` isn't a readable directory. */
export async function openDirectory(location: string): Promise<WeightSource> {
  const path = directoryPath(location);
  const files = await listFiles(path);
  return {
    location: path,
    files,
    partBytes: 8 * 2 ** 20,
    // While one part is handed over, the disk reads the next ones; a thread of Node's pool each.
    parallelParts: 4,
    async read(name, start, into) {
      const file = join(path, name);
      const bytesRead = await fill(file, start, into).catch((cause: unknown) => {
        throw new CheckpointError(`${file} can't be read: ${reasonOf(cause)}`, { cause });
      });
      if (bytesRead < into.length) {
        throw new CheckpointError(
          `${file} ends at byte ${start + bytesRead}, before byte ${start + into.length}`,
        );
      }
    },
    // A directory says nothing of its files beyond what was read.
    async verify() {},
    async [Symbol.asyncDispose]() {},
  };
}

/** Returns how many bytes the file had from `start` on, at most `into.length`. */
async function fill(file: string, start: number, into: Uint8Array): Promise<number> {
  // Opened for each read: reads are large and few, and so nothing is left to be closed.
  await using handle = await open(file, 'r');
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await handle.read(into, done, into.length - done, start + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

function directoryPath(location: string): string {
  if (!location.startsWith('file:')) return resolve(location);
  try {
    return fileURLToPath(location);
  } catch (cause) {
    throw new CheckpointError(`${location} is not a local file URL: ${reasonOf(cause)}`, { cause });
  }
}

/** Links are followed: download caches keep a model as links to its files. */
async function listFiles(path: string): Promise<SourceFile[]> {
  const names = await readdir(path).catch((cause: unknown) => {
    throw new CheckpointError(`${path} is not a readable directory: ${reasonOf(cause)}`, { cause });
  });
  const files: SourceFile[] = [];
  for (const name of names.toSorted()) {
    // A link that leads nowhere is no file: if it is needed, it is reported as missing.
    const status = await stat(join(path, name)).catch(() => null);
    if (status?.isFile() === true) files.push({ name, bytes: status.size });
  }
  return files;
}
