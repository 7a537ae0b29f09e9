/**
 * Reasons why a database cannot be used now. Drivers and the committer turn SQLite's codes into
 * these, so that whoever answers a request can tell a fault of the database from a fault of the
 * code.
 */

/**
 * `locked`: another process holds it. `full`: its disk has no space. `failing`: its disk took what
 * was written and then failed to keep it. `missing`, `damaged` and `foreign` (it is another
 * tenant's) last until somebody puts back a copy.
 */
export type UnavailableReason = 'locked' | 'full' | 'failing' | 'missing' | 'damaged' | 'foreign';

export class DatabaseUnavailable extends Error {
  override name = 'DatabaseUnavailable';
  readonly reason: UnavailableReason;

  /** The message is for the operator: it may name the file. */
  constructor(reason: UnavailableReason, message: string, cause?: unknown) {
    super(message, { cause });
    this.reason = reason;
  }

  /**
   * true when the fault passes by itself and nothing was written: the same call may be made again.
   */
  get passes(): boolean {
    return this.reason === 'locked' || this.reason === 'full';
  }
}

/** SQLite's codes, told by how they begin. */
const reasons: readonly (readonly [code: string, reason: UnavailableReason])[] = [
  ['SQLITE_BUSY', 'locked'],
  ['SQLITE_LOCKED', 'locked'],
  ['SQLITE_PROTOCOL', 'locked'],
  ['SQLITE_FULL', 'full'],
  ['SQLITE_CORRUPT', 'damaged'],
  ['SQLITE_NOTADB', 'damaged'],
  ['SQLITE_IOERR_FSYNC', 'failing'],
  ['SQLITE_IOERR_DIR_FSYNC', 'failing'],
  ['SQLITE_IOERR', 'damaged'],
  ['SQLITE_CANTOPEN', 'damaged'],
  ['SQLITE_READONLY', 'damaged'],
];

/** null: the database is not what failed. */
export function unavailable(error: unknown): DatabaseUnavailable | null {
  const message = error instanceof Error ? error.message : String(error);
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof DatabaseUnavailable) return at;
    const code = 'code' in at ? String(at.code) : '';
    const found = reasons.find(([start]) => code.startsWith(start));
    if (found !== undefined) return new DatabaseUnavailable(found[1], message, error);
  }
  return null;
}

/** A lock is tried again after this long; nothing waits for it on the event loop. */
export const lockRetryMs = 25;
/**
 * A lock is tried this often, hence for about two seconds, longer than a checkpoint or a short
 * transaction holds one.
 */
export const lockTriesMax = 80;

/** Repeats a call that met a lock, which is safe: SQLite refused it before it did anything. */
export async function whenUnlocked<Result>(attempt: () => Promise<Result>): Promise<Result> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      const found = unavailable(error);
      if (found?.reason !== 'locked') throw error;
      if (tries >= lockTriesMax) throw found;
      await new Promise((resolve) => setTimeout(resolve, lockRetryMs));
    }
  }
}
