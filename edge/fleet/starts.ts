/**
 * Tells the starts of one worker apart. Epochs order them as far as the clocks of workers can be
 * trusted; a worker's random start id is what makes two of them different.
 */
import { createHash } from 'node:crypto';
import type { Announcement } from './worker-entry.ts';

type Started = Pick<Announcement, 'epoch' | 'start'>;

export function isSameStart(a: Started, b: Started): boolean {
  return a.epoch === b.epoch && idOf(a) === idOf(b);
}

/** The ids decide between two starts with one epoch, so that every edge decides alike. */
export function isOlderStart(a: Started, b: Started): boolean {
  return a.epoch < b.epoch || (a.epoch === b.epoch && idOf(a) < idOf(b));
}

/**
 * Names the caches of one start, the same on every edge and after every restart of an edge. Workers
 * without start ids have their epoch alone.
 */
export function cacheEpochOf({ epoch, start }: Started): number {
  if (start === undefined) return epoch;
  // 52 bits of a hash: exact in a double and in an integer of SQLite.
  return Number.parseInt(createHash('sha256').update(start).digest('hex').slice(0, 13), 16);
}

function idOf({ start = '' }: Started): string {
  return start;
}
