/** A disk of a few megabytes that a test fills up, where this machine lets a test mount one. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { testFolder } from './edge/runtime-node.ts';

export interface SmallDisk {
  readonly path: string;
  /** Leaves no byte free. */
  fill(): void;
  /** Frees what `fill` has taken. */
  empty(): void;
}

/** Null where nothing can be mounted. It goes when the test file is done. */
export function smallDisk(bytes: number): SmallDisk | null {
  const folder = testFolder();
  const { path } = folder;
  const options = ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path];
  const mounted = spawnSync('mount', options).status === 0;
  afterAll(() => {
    if (mounted) execFileSync('umount', [path]);
    folder.remove();
  });
  const filler = join(path, 'filler');
  const empty = (): void => rmSync(filler, { force: true });
  return mounted ? { path, fill: () => fill(filler), empty } : null;
}

function fill(path: string): void {
  const file = openSync(path, 'w');
  try {
    for (const bytes of [65_536, 1]) {
      const piece = Buffer.alloc(bytes);
      // The loop ends when the disk says that it has no space.
      for (;;) {
        try {
          if (writeSync(file, piece) < bytes) break;
        } catch {
          break;
        }
      }
    }
  } finally {
    closeSync(file);
  }
}
