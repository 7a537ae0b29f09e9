/**
 * A process of its own that holds a database as a backup program does: it takes the write lock of
 * the file that its argument names, says so, and lets go when its input ends.
 */
import { writeSync } from 'node:fs';
import Database from 'better-sqlite3';

const client = new Database(process.argv[2], { fileMustExist: true, timeout: 10_000 });
// In this mode even readers are kept out, which a transaction alone does not do beside a log.
if (process.argv[3] === 'readers-too') client.pragma('locking_mode = EXCLUSIVE');
client.exec('BEGIN EXCLUSIVE');
writeSync(1, 'locked\n');
process.stdin.resume();
process.stdin.once('end', () => client.close());
