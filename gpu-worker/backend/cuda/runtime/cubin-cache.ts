/**
 * Compiled kernels on disk. A key is the hash of everything that a cubin depends on, so a file is
 * right or absent; it is written beside, flushed and renamed, so a crash leaves no half of one.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

export function cubinKey(parts: readonly string[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:${part}`);
  return hash.digest('hex').slice(0, 40);
}

/** The cached cubin of `key`, or what `compile` makes, stored for the next start. */
export function cachedCubin(folder: string, key: string, compile: () => Uint8Array): Uint8Array {
  const file = join(folder, `${key}.cubin`);
  try {
    return readFileSync(file);
  } catch (cause) {
    // Any reason not to read it is a reason to compile; writing below meets a broken disk again.
    if (!(cause instanceof Error)) throw cause;
  }
  const cubin = compile();
  try {
    mkdirSync(folder, { recursive: true });
    const temporary = `${file}.${process.pid}`;
    const descriptor = openSync(temporary, 'w');
    // writeSync would leave a part of it where the disk takes no more.
    writeFileSync(descriptor, cubin);
    fsyncSync(descriptor);
    closeSync(descriptor);
    renameSync(temporary, file);
  } catch (cause) {
    // A cache that can't be written costs time at the next start, nothing else.
    process.emitWarning(`the cubin cache ${folder} can't be written: ${String(cause)}`);
  }
  return cubin;
}
