/** The database files of the edge on Node: one for the directory, and one for each tenant. */
import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { openDirectoryDb } from '../../db/drivers/better-sqlite3.ts';
import type { LogSync } from '../../db/drivers/log-sync.ts';
import { createTenantFile, openTenantFile } from '../../db/drivers/tenant-file.ts';
import type { TenantFile } from '../../db/drivers/tenant-file.ts';
import { commitInGroups } from '../../db/group-commit.ts';
import { whenUnlocked } from '../../db/unavailable.ts';
import { UserError } from '../../infra/user-error.ts';
import { tenantIdPattern } from '../auth/api-key.ts';
import type { Services } from '../services.ts';
import { createTenant } from '../tenant/tenant.ts';
import { makeFile, messageOf } from './data-folder.ts';
import { createOpenTenants } from './open-tenants.ts';
import type { OpenTenants } from './open-tenants.ts';

/**
 * A commit gathers what arrives in so many turns of the event loop. Waiting for the disk holds all
 * requests up, so fewer and larger groups serve more of them; an idle loop turns in microseconds.
 */
const turnsPerCommit = 3;

export interface Databases {
  readonly directoryDb: ReturnType<typeof openDirectoryDb>['db'];
  readonly openTenants: OpenTenants;
  /** Makes the database of a tenant that is being created, unless it is there. */
  createDatabase(tenant: string): Promise<void>;
  /** Waits for the calls that are under way. */
  close(): Promise<void>;
}

/** @throws UserError if the directory cannot be opened. */
export async function openDatabases(
  folder: string,
  options: {
    readonly openTenantsMax: number;
    readonly clock: Services['clock'];
    /** Webhooks of the tenant may be due from that time on. */
    readonly onWebhooksDue: (tenant: string, atMs: number) => void;
  },
): Promise<Databases> {
  const directory = await whenUnlocked(async () => openDirectory(join(folder, 'directory.db')));
  const pathOf = (id: string): string => {
    assert(tenantIdPattern.test(id), 'a tenant id is a file name');
    return join(folder, 'tenants', `${id}.db`);
  };
  const openTrusted = openAfterFailures();
  const openTenants = createOpenTenants({
    openMax: options.openTenantsMax,
    open(id) {
      const { db, log, isCurrent, close } = openTrusted(id, pathOf(id));
      const committer = commitInGroups(db, afterTurns, { log });
      const onWebhooksDue = (atMs: number) => options.onWebhooksDue(id, atMs);
      const tenant = createTenant(db, { clock: options.clock, committer, onWebhooksDue });
      return { tenant, isCurrent, close };
    },
  });
  return {
    directoryDb: directory.db,
    openTenants,
    async createDatabase(id) {
      createTenantFile(pathOf(id), id);
      await openTenants.tenant(id).limits();
    },
    async close() {
      await openTenants.close();
      directory.close();
    },
  };
}

/** A disk that failed is tried again this often: each try holds up the event loop. */
const failedRetryMs = 1_000;

/**
 * Opens tenants' files. After a sync that failed, frames of the log may be in the system's memory
 * alone, where a later sync passes them over. So the log is brought home whole, by a checkpoint
 * that succeeds, before anything is told as kept again.
 */
function openAfterFailures(): (id: string, path: string) => TenantFile {
  const logs = new Map<string, { readonly log: LogSync; retryAtMs: number }>();
  return (id, path) => {
    const before = logs.get(id);
    const failure = before?.log.failure ?? null;
    if (before !== undefined && failure !== null) {
      if (performance.now() < before.retryAtMs) throw failure;
      before.retryAtMs = performance.now() + failedRetryMs;
    }
    const file = openTenantFile(path, id);
    try {
      if (failure !== null) file.bringLogHome();
    } catch (error) {
      file.close();
      throw error;
    }
    logs.set(id, { log: file.log, retryAtMs: 0 });
    return {
      ...file,
      close() {
        file.close();
        if (file.log.failure === null && logs.get(id)?.log === file.log) logs.delete(id);
      },
    };
  };
}

function openDirectory(path: string): ReturnType<typeof openDirectoryDb> {
  try {
    // SQLite gives its log the mode of the database, so this settles all of its files.
    makeFile(path);
    return openDirectoryDb(path);
  } catch (cause) {
    throw new UserError(
      `the database ${path} cannot be opened (${messageOf(cause)}); put back a copy of it`,
      { cause },
    );
  }
}

function afterTurns(flush: () => void, turns = turnsPerCommit): void {
  setImmediate(turns === 1 ? flush : () => afterTurns(flush, turns - 1));
}
