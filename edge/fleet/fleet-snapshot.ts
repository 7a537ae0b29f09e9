/** The state that a fleet keeps over a restart of its process or the eviction of its object. */
import type { Announcement, WorkerEntry } from './worker-entry.ts';
import type { StaticWorker } from './worker-contract.ts';

/** JSON characters of the workers in a snapshot: 1,000 usual ones fit; an object may keep 2 MB. */
const snapshotCharactersMax = 400_000;

/**
 * The workers that were there and those that are drained. After a restart the last known workers
 * serve at once instead of after their next heartbeat; one that is gone refuses the connection, and
 * the next is tried.
 */
export interface FleetSnapshot {
  readonly workers: readonly Announcement[];
  readonly drained: readonly string[];
  /** Workers that the operator added, with their tokens: a secret. Absent before there were any. */
  readonly added?: readonly StaticWorker[];
}

/** Announcements as long as there is room for them, those of the latest heartbeats first. */
export function newestThatFit(workers: ReadonlyMap<string, WorkerEntry>): Announcement[] {
  const fitting: Announcement[] = [];
  let characters = 0;
  for (const { announcement } of [...workers.values()].toSorted(
    (a, b) => b.seenAtMs - a.seenAtMs,
  )) {
    characters += JSON.stringify(announcement).length;
    if (characters > snapshotCharactersMax) break;
    fitting.push(announcement);
  }
  return fitting;
}
