/**
 * A tenant's database as a file that carries its tenant's name. It is made once, when the tenant
 * is, and never by opening it: a file that is missing, empty or another's is told apart from a new
 * one.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname } from 'node:path';
import type Database from 'better-sqlite3';
import { DatabaseUnavailable, unavailable } from '../unavailable.ts';
import { openTenantDb } from './better-sqlite3.ts';
import type { OpenedTenantDb } from './better-sqlite3.ts';
import { copyDatabase } from './copy-database.ts';
import type { LogSync } from './log-sync.ts';

export interface TenantFile extends Omit<OpenedTenantDb, 'leaveToLog'> {
  /** Commits do not wait for the disk; whoever needs them there syncs it. */
  readonly log: LogSync;
  /** false: it was removed, emptied or replaced while it was open, or the disk failed its log. */
  isCurrent(): boolean;
}

/** Makes the file; it stands there whole or not at all. One that is there is left alone. */
export function createTenantFile(path: string, tenant: string): void {
  if (existsSync(path)) return;
  const made = `${path}.new`;
  try {
    for (const end of ['', '-wal', '-shm', '-journal']) rmSync(made + end, { force: true });
    closeSync(openSync(made, 'ax', 0o600));
    openTenantDb(made, { tenant }).close();
    renameSync(made, path);
    syncPath(dirname(path));
  } catch (error) {
    throw describeFault(path, error);
  }
}

/** @throws DatabaseUnavailable that says what is wrong with the file. */
export function openTenantFile(path: string, tenant: string): TenantFile {
  const stats = requireFile(path);
  try {
    const opened = openTenantDb(path, { tenant, checkFirst: (client) => check(client, tenant) });
    const log = opened.leaveToLog();
    return { ...opened, log, isCurrent: () => log.failure === null && isStill(path, stats) };
  } catch (error) {
    throw describeFault(path, error);
  }
}

function requireFile(path: string): Stats {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw new DatabaseUnavailable('missing', `${path} is missing`);
  if (!stats.isFile()) throw new DatabaseUnavailable('damaged', `${path} is no file`);
  if (stats.size === 0) throw new DatabaseUnavailable('damaged', `${path} is empty`);
  return stats;
}

/** @throws DatabaseUnavailable as `openTenantFile` does. */
export async function copyTenantFile(from: string, to: string, tenant: string): Promise<void> {
  requireFile(from);
  try {
    await copyDatabase(from, to, (client) => check(client, tenant));
  } catch (error) {
    throw describeFault(from, error);
  }
}

/** Checks before anything is written that the file is a database of this tenant. */
function check(client: Database.Database, tenant: string): void {
  const tables = client
    .prepare(`SELECT name FROM sqlite_schema WHERE type = 'table'`)
    .pluck()
    .all();
  const lacking = ['account', 'entry', 'hold'].filter((table) => !tables.includes(table));
  if (lacking.length > 0) {
    throw new DatabaseUnavailable('damaged', `it has no table ${lacking[0]}`);
  }
  // One that was made before databases carried a name gets its name when it is opened.
  if (!tables.includes('identity')) return;
  const named = client.prepare('SELECT tenant FROM identity').pluck().get();
  if (named !== undefined && named !== tenant) {
    throw new DatabaseUnavailable('foreign', `it is the database of the tenant ${String(named)}`);
  }
}

function isStill(path: string, opened: { readonly ino: number; readonly dev: number }): boolean {
  const now = statSync(path, { throwIfNoEntry: false });
  return now !== undefined && now.ino === opened.ino && now.dev === opened.dev && now.size > 0;
}

/** Below this SQLite may find no place for the files that stand beside a database. */
const freeBytesMin = 1024 * 1024;

function describeFault(path: string, error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  const found = unavailable(error);
  if (found === null && code !== 'ENOSPC') return error;
  const isFull =
    code === 'ENOSPC' || (found?.reason === 'damaged' && freeBytes(path) < freeBytesMin);
  const message = `the database ${path} cannot be opened (${String(error)})`;
  return new DatabaseUnavailable(isFull ? 'full' : (found?.reason ?? 'full'), message, error);
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(dirname(path));
  return bavail * bsize;
}

/** Makes a file's content, or the names in a folder, survive a loss of power from then on. */
export function syncPath(path: string): void {
  const opened = openSync(path, 'r');
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}
