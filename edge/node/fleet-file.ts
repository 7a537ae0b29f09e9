/** The file in which the edge on Node keeps what it knows of its fleet over a restart. */
import { existsSync, readFileSync } from 'node:fs';
import type { Log } from '../../infra/log.ts';
import { UserError } from '../../infra/user-error.ts';
import type { FleetSnapshot } from '../fleet/fleet-snapshot.ts';
import { messageOf, replaceFile } from './data-folder.ts';

export interface FleetFile {
  /** The fleet as it was written last; null when it never was. */
  readonly snapshot: FleetSnapshot | null;
  readonly save: (snapshot: () => FleetSnapshot, urgency: 'now' | 'soon') => void;
  /**
   * Writes the changes that are not written yet: those without urgency, or without room on the
   * disk.
   */
  saveAgain(): Promise<void>;
}

/** @throws UserError if the file cannot be read. */
export function openFleetFile(path: string, log: Log): FleetFile {
  let unsaved: (() => FleetSnapshot) | null = null;
  const saveAgain = async (): Promise<void> => {
    if (unsaved === null) return;
    try {
      replaceFile(path, JSON.stringify(unsaved()));
      unsaved = null;
    } catch (error) {
      log('warn', 'fleet-save-failed', { reason: messageOf(error) });
    }
  };
  return {
    snapshot: readSnapshot(path),
    save(snapshot, urgency) {
      unsaved = snapshot;
      if (urgency === 'now') void saveAgain();
    },
    saveAgain,
  };
}

function readSnapshot(path: string): FleetSnapshot | null {
  if (!existsSync(path)) return null;
  try {
    // Written by `saveAgain` alone, whole or not at all.
    return JSON.parse(readFileSync(path, 'utf8')) as FleetSnapshot;
  } catch (cause) {
    throw new UserError(`${path} cannot be read (${messageOf(cause)}); remove it`, { cause });
  }
}
