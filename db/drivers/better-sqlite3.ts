/** The database files of Node: one file per tenant and one for the directory, or ':memory:'. */
import Database from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { nameDatabase } from '../identity.ts';
import * as directorySchema from '../schema/directory.ts';
import * as tenantSchema from '../schema/tenant.ts';
import type { DirectoryDb, SyncDb } from '../types.ts';
import { DatabaseUnavailable } from '../unavailable.ts';
import { LogSync } from './log-sync.ts';

/**
 * The log grows to this many pages, 16 MiB, before they go to their places. Requests write the same
 * few pages again and again, so a longer log saves most of those writes.
 */
const checkpointPages = 4_000;

/**
 * Each connection keeps this much of its pages. better-sqlite3 is built with 16 MiB, for each
 * tenant that is open; a page that is not here comes from the system's cache of files, in
 * microseconds.
 */
const cacheKiB = 1_024;

const checkpointSchema = z.tuple([z.object({ busy: z.int() })]);

export interface Opened<Db> {
  readonly db: Db;
  close(): void;
}

export interface OpenOptions {
  /**
   * FULL (default): a commit is on the disk when it returns. NORMAL may lose the last ones with the
   * power.
   */
  readonly synchronous?: 'FULL' | 'NORMAL';
}

export interface TenantOpenOptions extends OpenOptions {
  /** Written into a database that carries no name yet. */
  readonly tenant?: string;
  /** Looks at a database that exists, before anything is written. With it none is made. */
  readonly checkFirst?: (client: Database.Database) => void;
}

export interface OpenedTenantDb extends Opened<SyncDb> {
  /** From now on commits do not wait for the disk; whoever needs them there syncs the log. */
  leaveToLog(): LogSync;
  /**
   * Moves all of the log to its places on the disk, and empties it.
   * @throws DatabaseUnavailable if the disk fails, or another process reads the log.
   */
  bringLogHome(): void;
}

/**
 * Opens and migrates a tenant's database. Throws when the file is none of ours or cannot be opened.
 */
export function openTenantDb(path: string, options: TenantOpenOptions = {}): OpenedTenantDb {
  const log = new LogSync(path);
  let leaveToLog: OpenedTenantDb['leaveToLog'] = () => log;
  let bringLogHome: OpenedTenantDb['bringLogHome'] = () => {};
  const { db, close } = opened(path, options, (client) => {
    leaveToLog = () => {
      client.pragma('synchronous = NORMAL');
      return log;
    };
    bringLogHome = () => checkpoint(client, path);
    const tenantDb = drizzle(client, { schema: tenantSchema });
    migrate(tenantDb, { migrationsFolder: migrationsOf('tenant') });
    if (options.tenant !== undefined) nameDatabase(tenantDb, options.tenant);
    return tenantDb;
  });
  return {
    db,
    leaveToLog,
    bringLogHome,
    close() {
      close();
      log.close();
    },
  };
}

function checkpoint(client: Database.Database, path: string): void {
  const [result] = checkpointSchema.parse(client.pragma('wal_checkpoint(TRUNCATE)'));
  if (result.busy === 0) return;
  throw new DatabaseUnavailable('failing', `the log of ${path} is read by another process`);
}

/** Opens and migrates the directory. */
export function openDirectoryDb(path: string, options: OpenOptions = {}): Opened<DirectoryDb> {
  return opened(path, options, (client) => {
    const db = drizzle(client, { schema: directorySchema });
    migrate(db, { migrationsFolder: migrationsOf('directory') });
    // Its queries are thenable like D1's, and the directory only ever awaits them.
    return db as unknown as DirectoryDb;
  });
}

function opened<Db>(
  path: string,
  options: TenantOpenOptions,
  use: (client: Database.Database) => Db,
): Opened<Db> {
  // To wait for a lock here would hold up the event loop, and with it all tenants: whoever meets
  // one tries again later.
  const { checkFirst } = options;
  const client = new Database(path, { timeout: 0, fileMustExist: checkFirst !== undefined });
  try {
    checkFirst?.(client);
    client.pragma('journal_mode = WAL');
    client.pragma(`wal_autocheckpoint = ${checkpointPages}`);
    client.pragma(`cache_size = -${cacheKiB}`);
    client.pragma(`synchronous = ${options.synchronous ?? 'FULL'}`);
    return { db: use(client), close: () => client.close() };
  } catch (error) {
    client.close();
    throw error;
  }
}

function migrationsOf(schema: 'tenant' | 'directory'): string {
  return fileURLToPath(new URL(`../migrations/${schema}`, import.meta.url));
}
