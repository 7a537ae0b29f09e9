/**
 * The two kinds of database, free of any driver. A tenant's is synchronous in both runtimes: code
 * on a `SyncDb` contains no `await`, so a transaction is one straight run that nothing can
 * interleave. The directory's is awaited everywhere, because D1 is remote.
 */
import type { BaseSQLiteDatabase } from 'drizzle-orm/sqlite-core';
import type * as directorySchema from './schema/directory.ts';
import type * as tenantSchema from './schema/tenant.ts';

/**
 * Run results differ between the drivers (a Durable Object reports none), hence `unknown`: code
 * that must know whether an UPDATE met a row uses RETURNING. Nested transactions are savepoints
 * when opened on the database itself, and prepared statements take part in the open transaction.
 */
export type SyncDb = BaseSQLiteDatabase<'sync', unknown, typeof tenantSchema>;

/** No `transaction()` on D1: each change to the directory is one statement. */
export type DirectoryDb = BaseSQLiteDatabase<'async', unknown, typeof directorySchema>;
