/**
 * Puts a backup in the place of a data folder: every file is copied beside that place, compared
 * with its hash, checked and audited there, and only then renamed into it, all at once.
 */
import { UserError } from '../../infra/user-error.ts';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import {
  createdTenants,
  findCorruption,
  migrationsIn,
  migrationsKnown,
} from '../../db/drivers/copy-database.ts';
import { openTenantFile, syncPath } from '../../db/drivers/tenant-file.ts';
import { openDirectoryDb } from '../../db/drivers/better-sqlite3.ts';
import { createDirectory } from '../directory/directory.ts';
import { auditLedger } from '../ledger/audit.ts';
import { Credits } from '../ledger/credits.ts';
import { lostPayments } from '../payments/lost-payments.ts';
import type { Directory } from '../directory/directory-contract.ts';
import { describeFile, readManifest, tenantOf } from './backup-manifest.ts';
import type { BackupManifest } from './backup-manifest.ts';
import { holderOf, makeFile, messageOf } from './data-folder.ts';

export interface Restored {
  readonly tenants: number;
  /** Tenants that the backup lacks: they stay unavailable. */
  readonly unavailable: BackupManifest['unavailable'];
  /** The findings of the audit; with any, nothing is put back unless that was asked for. */
  readonly findings: readonly string[];
}

/** @throws UserError; the data folder is then as it was. */
export async function restore(options: {
  readonly backup: string;
  readonly dataFolder: string;
  readonly despiteFindings: boolean;
}): Promise<Restored> {
  const { backup } = options;
  const dataFolder = resolve(options.dataFolder);
  const manifest = readManifest(backup);
  refuseUsedFolder(dataFolder);
  const staging = `${dataFolder}.restoring-${process.pid}`;
  mkdirSync(dirname(dataFolder), { recursive: true });
  mkdirSync(join(staging, 'tenants'), { recursive: true, mode: 0o700 });
  try {
    await copyFiles(manifest, { backup, staging });
    const findings = await checkDatabases(manifest, staging);
    if (findings.length > 0 && !options.despiteFindings) {
      const advice = 'to put it back all the same, say --despite-findings';
      throw new UserError(`the audit of the backup says: ${findings.join('; ')}; ${advice}`);
    }
    putInPlace(staging, dataFolder);
    const tenants = manifest.files.filter(({ path }) => tenantOf(path) !== null).length;
    return { tenants, unavailable: manifest.unavailable, findings };
  } catch (cause) {
    rmSync(staging, { recursive: true, force: true });
    if (cause instanceof UserError) throw cause;
    throw new UserError(`the backup ${backup} is not put back: ${messageOf(cause)}`, { cause });
  }
}

function refuseUsedFolder(dataFolder: string): void {
  if (!existsSync(dataFolder)) return;
  const holder = holderOf(dataFolder);
  if (holder !== null) throw new UserError(`${dataFolder} is in use by ${holder}; stop that one`);
  if (readdirSync(dataFolder).length > 0) {
    throw new UserError(`${dataFolder} is not empty; move it away, or name a new folder`);
  }
}

async function copyFiles(
  manifest: BackupManifest,
  { backup, staging }: { readonly backup: string; readonly staging: string },
): Promise<void> {
  for (const file of manifest.files) {
    if (!existsSync(join(backup, file.path))) throw new UserError(`${file.path} is missing in it`);
    makeFile(join(staging, file.path));
    copyFileSync(join(backup, file.path), join(staging, file.path));
    const { bytes, sha256 } = await describeFile(staging, file.path);
    if (bytes !== file.bytes || sha256 !== file.sha256) {
      throw new UserError(`${file.path} is not as it was written: its SHA-256 is ${sha256}`);
    }
  }
}

/**
 * Checks the databases.
 * @throws what makes the backup useless.
 * @returns the findings of the audit of its books.
 */
async function checkDatabases(manifest: BackupManifest, staging: string): Promise<string[]> {
  const directoryPath = join(staging, 'directory.db');
  refuseNewer('directory', directoryPath);
  refuseCorrupt(directoryPath, 'directory.db');
  const opened = openDirectoryDb(directoryPath);
  try {
    const directory = createDirectory(opened.db);
    return await checkTenants({ manifest, staging, directory });
  } finally {
    opened.close();
  }
}

async function checkTenants(options: {
  readonly manifest: BackupManifest;
  readonly staging: string;
  readonly directory: Directory;
}): Promise<string[]> {
  const { manifest, staging, directory } = options;
  const left = new Set(manifest.unavailable.map(({ tenant }) => tenant));
  const findings: string[] = [];
  for (const tenant of createdTenants(join(staging, 'directory.db'))) {
    const name = `tenants/${tenant}.db`;
    const path = join(staging, name);
    if (!manifest.files.some((file) => file.path === name)) {
      if (left.has(tenant)) continue;
      throw new UserError(`it lacks the database of the tenant ${tenant}`);
    }
    refuseNewer('tenant', path);
    refuseCorrupt(path, name);
    const { db, close } = openTenantFile(path, tenant);
    try {
      const uncredited = async (sources: readonly string[]) => new Credits(db).uncredited(sources);
      const found = [
        ...auditLedger(db),
        ...(await lostPayments({ directory, tenant, uncredited })),
      ];
      findings.push(...found.map((finding) => `tenant ${tenant}: ${finding}`));
    } finally {
      close();
    }
  }
  return findings;
}

function refuseNewer(schema: 'tenant' | 'directory', path: string): void {
  if (migrationsIn(path) > migrationsKnown(schema)) {
    throw new UserError('it was written by a newer version, which has to put it back');
  }
}

function refuseCorrupt(path: string, name: string): void {
  const [fault] = findCorruption(path);
  if (fault !== undefined) throw new UserError(`${name} is damaged: ${fault}`);
}

function putInPlace(staging: string, dataFolder: string): void {
  for (const file of readdirSync(staging, { recursive: true, withFileTypes: true })) {
    syncPath(join(file.parentPath, file.name));
  }
  syncPath(staging);
  if (existsSync(dataFolder)) rmdirSync(dataFolder);
  renameSync(staging, dataFolder);
  syncPath(dirname(dataFolder));
}
