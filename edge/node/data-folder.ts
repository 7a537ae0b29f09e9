/**
 * The folder in which an edge on Node keeps everything: made for its user alone, and held by one
 * edge at a time, because what one edge knows of suspensions, prices and holds another would not
 * see.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { holdFile } from '../../db/drivers/exclusive-file.ts';
import { UserError } from '../../infra/user-error.ts';

export interface DataFolder {
  readonly path: string;
  /** Lets another edge use it. */
  release(): void;
}

const ownerSchema = z.object({ pid: z.int(), host: z.string(), since: z.string() });

/** @throws UserError if it cannot be written, or is held by another edge, which it names. */
export function openDataFolder(path: string): DataFolder {
  const folder = resolve(path);
  try {
    mkdirSync(join(folder, 'tenants'), { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
    // SQLite gives what stands beside a file the mode of the file, so these settle all of them.
    for (const file of ['edge.lock', 'directory.db']) makeFile(join(folder, file));
  } catch (cause) {
    throw new UserError(
      `the data folder ${folder} cannot be written (${messageOf(cause)}); set EDGE_DATA to another one`,
      { cause },
    );
  }
  return { path: folder, release: holdFolder(folder) };
}

function holdFolder(folder: string): () => void {
  const held = holdFile(join(folder, 'edge.lock'));
  // The name stands in another file: to read or write the locked one would release the lock.
  const ownerFile = join(folder, 'edge.owner.json');
  if (held === null) {
    throw new UserError(
      `the data folder ${folder} is in use by ${ownerText(ownerFile)}; ` +
        'stop that one, or set EDGE_DATA to another folder',
    );
  }
  const owner = { pid: process.pid, host: hostname(), since: new Date().toISOString() };
  replaceFile(ownerFile, JSON.stringify(owner));
  return () => {
    rmSync(ownerFile, { force: true });
    held.release();
  };
}

/** Names the edge that holds the folder; null if none does. */
export function holderOf(folder: string): string | null {
  const path = join(folder, 'edge.lock');
  if (!existsSync(path)) return null;
  const held = holdFile(path);
  held?.release();
  return held === null ? ownerText(join(folder, 'edge.owner.json')) : null;
}

function ownerText(ownerFile: string): string {
  try {
    const { pid, host, since } = ownerSchema.parse(JSON.parse(readFileSync(ownerFile, 'utf8')));
    return `another edge, process ${pid} on ${host} since ${since}`;
  } catch {
    // The name is written just after the lock is taken.
    return 'another edge, which has just started';
  }
}

/**
 * Makes an empty file that only its user can read, unless it is there. One that is there is not
 * opened: a process that closes a file loses all of its locks on it.
 */
export function makeFile(path: string): void {
  try {
    closeSync(openSync(path, 'ax', 0o600));
  } catch (error) {
    if (!isThere(error)) throw error;
  }
}

function isThere(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST';
}

/** Replaces a file so that a reader sees the old text or the new one, whenever the process dies. */
export function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
