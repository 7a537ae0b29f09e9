/** The name of the tenant that a database belongs to, written in the database. */
import { identity } from './schema/tenant.ts';
import type { SyncDb } from './types.ts';

/** Names a database that has no name yet, and tells whose it is. */
export function nameDatabase(db: SyncDb, tenant: string): string {
  const named = (): string | undefined => db.select().from(identity).get()?.tenant;
  const before = named();
  if (before !== undefined) return before;
  db.insert(identity).values({ id: 1, tenant }).run();
  return named() ?? tenant;
}
