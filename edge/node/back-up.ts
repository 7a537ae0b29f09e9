/**
 * Copies everything that an edge on Node keeps, while it serves. It runs in the operator's own
 * process beside the edge's, on the same machine: so it writes only where the operator may, holds
 * up no request, and works as well while no edge runs.
 *
 * The directory is copied before the tenants. A payment that comes in between is then in the
 * tenant's ledger and not in the directory, and its ledger refuses it when it is told again; the
 * other way round the directory would know of a credit that the copy lacks.
 */
import { UserError } from '../../infra/user-error.ts';
import { copyFileSync, existsSync, mkdirSync, realpathSync, rmSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { copyDatabase, createdTenants, migrationsKnown } from '../../db/drivers/copy-database.ts';
import { copyTenantFile, syncPath } from '../../db/drivers/tenant-file.ts';
import { unavailable } from '../../db/unavailable.ts';
import { describeFile, manifestName } from './backup-manifest.ts';
import type { BackupManifest } from './backup-manifest.ts';
import { makeFile, messageOf, replaceFile } from './data-folder.ts';

export interface BackupOptions {
  readonly dataFolder: string;
  /** Made here; it must not exist. */
  readonly into: string;
  readonly clock: { nowMs(): number };
}

/** @throws UserError; what it has made by then is recognised by its lack of a manifest. */
export async function backUp({ dataFolder, into, clock }: BackupOptions): Promise<BackupManifest> {
  if (!existsSync(join(dataFolder, 'directory.db'))) {
    throw new UserError(`${resolve(dataFolder)} is no data folder of an edge; set EDGE_DATA`);
  }
  const beganAtMs = clock.nowMs();
  makeFolder(into, dataFolder);
  try {
    const paths = ['directory.db'];
    makeFile(join(into, 'directory.db'));
    await copyDatabase(join(dataFolder, 'directory.db'), join(into, 'directory.db'));
    const { copied, unavailable: missing } = await copyTenants(dataFolder, into);
    paths.push(...copied, ...copyTexts(dataFolder, into));
    const manifest: BackupManifest = {
      format: 1,
      began_at: new Date(beganAtMs).toISOString(),
      ended_at: new Date(clock.nowMs()).toISOString(),
      migrations: { directory: migrationsKnown('directory'), tenant: migrationsKnown('tenant') },
      files: await Promise.all(paths.map((path) => describeFile(into, path))),
      unavailable: missing,
    };
    for (const path of paths) syncPath(join(into, path));
    syncPath(join(into, 'tenants'));
    replaceFile(join(into, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
    syncPath(into);
    return manifest;
  } catch (cause) {
    throw new UserError(`the backup in ${into} is not complete: ${messageOf(cause)}`, { cause });
  }
}

function makeFolder(into: string, dataFolder: string): void {
  const parent = dirname(resolve(into));
  mkdirSync(parent, { recursive: true });
  const inside = relative(realpathSync(dataFolder), realpathSync(parent));
  if (inside === '' || !inside.startsWith('..')) {
    throw new UserError(`${into} lies in the data folder, and would be lost together with it`);
  }
  try {
    mkdirSync(into, { mode: 0o700 });
  } catch (cause) {
    throw new UserError(`${into} cannot be made (${messageOf(cause)}); name a new folder`, {
      cause,
    });
  }
  mkdirSync(join(into, 'tenants'), { mode: 0o700 });
}

async function copyTenants(dataFolder: string, into: string) {
  const copied: string[] = [];
  const missing: { tenant: string; reason: string }[] = [];
  for (const tenant of createdTenants(join(into, 'directory.db'))) {
    const path = `tenants/${tenant}.db`;
    try {
      makeFile(join(into, path));
      await copyTenantFile(join(dataFolder, path), join(into, path), tenant);
      copied.push(path);
    } catch (error) {
      const found = unavailable(error);
      if (found === null || found.reason === 'full') throw error;
      rmSync(join(into, path));
      // Backups of the others are worth the more for it.
      missing.push({ tenant, reason: found.reason });
    }
  }
  return { copied, unavailable: missing };
}

/** Without its secrets no key of a tenant would work. */
function copyTexts(dataFolder: string, into: string): string[] {
  const texts = ['secrets.env', 'fleet.json'].filter((name) => existsSync(join(dataFolder, name)));
  for (const name of texts) {
    makeFile(join(into, name));
    copyFileSync(join(dataFolder, name), join(into, name));
  }
  return texts;
}
