/**
 * Brings a database's write-ahead log onto the disk without holding up the event loop. SQLite
 * commits without waiting (synchronous=NORMAL), and the wait takes place in the system's threads.
 * Commits that come during a sync share the next one. A commit is in the log in order, so a sync
 * takes all that were made before it to the disk.
 *
 * The log has no locks of its own (they are on the database and on its index in shared memory), so
 * a descriptor of ours beside SQLite's is harmless. The file stays the same one for as long as the
 * database is open.
 */
import { closeSync, fdatasync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { DatabaseUnavailable } from '../unavailable.ts';

/** A commit that nobody waits for is on the disk this soon. */
const soonMs = 200;

const syncFile = promisify(fdatasync);

export class LogSync {
  readonly #path: string;
  #descriptor: number | null = null;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #soon: NodeJS.Timeout | undefined;
  /**
   * The system may forget what it could not write, and call the next sync a success: so nothing is
   * trusted any more after a failure. Whoever opens the database anew brings the log home first.
   */
  #failure: DatabaseUnavailable | null = null;

  /** @param path the database's; it has a log already. */
  constructor(path: string) {
    this.#path = path;
  }

  /** The reason why commits no longer reach the disk by this log; null while they do. */
  get failure(): DatabaseUnavailable | null {
    return this.#failure;
  }

  /** Resolves once all commits before the call are on the disk. */
  async sync(): Promise<void> {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    if (this.#running === null) {
      this.#running = this.#syncNow().finally(() => (this.#running = null));
      return this.#running;
    }
    // The sync under way may have missed the newest commit.
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.sync();
      });
    return this.#next;
  }

  /** Sees to it that the commits so far are on the disk before long. */
  syncSoon(): void {
    this.#soon ??= setTimeout(() => void this.sync().catch(() => {}), soonMs).unref();
  }

  /** The database is closed, which brought all of it to the disk. */
  close(): void {
    clearTimeout(this.#soon);
    const descriptor = this.#descriptor;
    this.#descriptor = null;
    if (descriptor === null) return;
    if (this.#running === null) closeSync(descriptor);
    else void this.#running.catch(() => {}).then(() => closeSync(descriptor));
  }

  async #syncNow(): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    try {
      if (this.#descriptor === null) {
        await syncFolder(dirname(this.#path));
        this.#descriptor = openSync(`${this.#path}-wal`, 'r');
      }
      await syncFile(this.#descriptor);
    } catch (cause) {
      const message = `what was written to ${this.#path} may not be on the disk`;
      this.#failure = new DatabaseUnavailable('failing', message, cause);
      throw this.#failure;
    }
  }
}

/** The log is a file of a name from then on. */
async function syncFolder(path: string): Promise<void> {
  const descriptor = openSync(path, 'r');
  try {
    await syncFile(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
