/** Copies of databases that are in use, by SQLite's online backup, for another process to make. */
import { createRequire } from 'node:module';
import Database from 'better-sqlite3';

/** This process can wait this long for a lock, since it serves nobody. */
const lockMsMax = 10_000;
/**
 * Copying all pages in one step makes the copy one moment of the database; writers beside a log do
 * not wait for that.
 */
const allPages = 2 ** 31 - 1;

/** The copy is one file, of one moment, that needs no log beside it. It must not be there yet. */
export async function copyDatabase(
  from: string,
  to: string,
  checkFirst: (client: Database.Database) => void = () => {},
): Promise<void> {
  const client = new Database(from, { timeout: lockMsMax, fileMustExist: true });
  try {
    checkFirst(client);
    await client.backup(to, { progress: () => allPages });
  } finally {
    client.close();
  }
  const copy = new Database(to);
  copy.pragma('journal_mode = DELETE');
  copy.close();
}

/** Sentences about pages and indexes that do not agree; none when all do. */
export function findCorruption(path: string): string[] {
  const client = new Database(path, { fileMustExist: true });
  try {
    const lines = client.pragma('integrity_check(10)', { simple: false });
    // SQLite's documentation says that it is one row with `ok`, or a row for each fault.
    const rows = lines as { readonly integrity_check: string }[];
    return rows.map((row) => row.integrity_check).filter((line) => line !== 'ok');
  } finally {
    client.close();
  }
}

/** Tenants whose databases belong to that copy of a directory. */
export function createdTenants(directoryPath: string): string[] {
  const client = new Database(directoryPath, { fileMustExist: true });
  try {
    const query = `SELECT id FROM tenant WHERE status <> 'creating' ORDER BY id`;
    return client
      .prepare<[], { id: string }>(query)
      .all()
      .map(({ id }) => id);
  } finally {
    client.close();
  }
}

/** Counts the migrations that a database has had. */
export function migrationsIn(path: string): number {
  const client = new Database(path, { fileMustExist: true });
  try {
    const count = client.prepare('SELECT count(*) FROM __drizzle_migrations').pluck().get();
    return Number(count);
  } finally {
    client.close();
  }
}

/**
 * Counts the migrations that this program knows; a database that has had more was written by a
 * newer one.
 */
export function migrationsKnown(schema: 'tenant' | 'directory'): number {
  const journal = createRequire(import.meta.url)(`../migrations/${schema}/meta/_journal.json`);
  // drizzle-kit writes it.
  return (journal as { readonly entries: readonly unknown[] }).entries.length;
}
