/** Looks at how much of a disk is left, so that its operator hears of it before requests do. */
import { statfsSync } from 'node:fs';
import type { Log } from './log.ts';

export interface DiskWatch {
  /** Looks now; logs when the disk has become too full, and when it has room again. */
  look(): Promise<void>;
  /** Sentences for whoever watches over the program; none when there is room. */
  warnings(): readonly string[];
}

export interface Disk {
  readonly bytes: number;
  readonly freeBytes: number;
}

export function createDiskWatch(options: {
  readonly freePercentMin: number;
  readonly log: Log;
  readonly readDisk: () => Disk;
}): DiskWatch {
  const { freePercentMin, log, readDisk } = options;
  let isLow = false;
  return {
    async look() {
      const { bytes, freeBytes } = readDisk();
      const freePercent = Math.floor((freeBytes / bytes) * 1_000) / 10;
      const wasLow = isLow;
      isLow = freePercent < freePercentMin;
      if (isLow === wasLow) return;
      if (isLow) log('warn', 'disk-low', { freePercent });
      else log('info', 'disk-has-room', { freePercent });
    },
    warnings: () =>
      isLow ? [`Less than ${freePercentMin}% of the disk that keeps the records is left.`] : [],
  };
}

/** The disk on which the folder lies; what only root may fill does not count as free. */
export function diskOf(folder: string): Disk {
  const { bsize, blocks, bavail } = statfsSync(folder);
  return { bytes: blocks * bsize, freeBytes: bavail * bsize };
}

/** Tells whether a write failed because its disk, or its user's share of it, has no room. */
export function isDiskFull(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  return code === 'ENOSPC' || code === 'EDQUOT';
}
