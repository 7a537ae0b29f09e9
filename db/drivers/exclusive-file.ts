/**
 * One process at a time: a lock on a file that the operating system releases when its holder dies,
 * however it dies. Node has none of its own, and SQLite's is such a lock.
 */
import Database from 'better-sqlite3';
import { unavailable } from '../unavailable.ts';

/**
 * Makes the file if need be and holds it until `release` or the end of the process; null when
 * another has it. Nobody may open the file in any other way: to close it would release the lock.
 */
export function holdFile(path: string): { release(): void } | null {
  const client = new Database(path, { timeout: 0 });
  try {
    client.exec('BEGIN EXCLUSIVE');
    return { release: () => client.close() };
  } catch (error) {
    client.close();
    if (unavailable(error)?.reason === 'locked') return null;
    throw error;
  }
}
