/**
 * Parts of checkpoints on this machine's disk, each under the SHA-256 of its bytes, so that models
 * share what they have in common and a damaged file shows. Any number of workers may use one
 * directory: files appear whole, by rename, and one that is deleted is only fetched again.
 *
 *     sha256/ab/abcd…   the bytes of one part; its mtime is its last use
 *     journal/…         which parts of an object were verified; see part-journal.ts
 *     users/…           one file per open cache, touched while it lives, named for its start
 *     tmp/…             files being written
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDiskFull } from '../../../infra/disk-watch.ts';
import type { PartHasher } from './part-hasher.ts';
import { PartJournal } from './part-journal.ts';
import { Slots } from '../s3/slots.ts';
import { CheckpointError, reasonOf } from '../source.ts';

/** A user whose file was not touched for so long is dead. */
const userTtlMs = 60_000;
const touchEveryMs = 10_000;
/** Clocks of a file system tick coarsely. */
const clockSlackMs = 1000;

/** The disk may be behind by so many bytes; then loads go at its pace. */
const unflushedBytesMax = 2 * 2 ** 30;
/** A flush holds a thread of Node's pool for long, and hashes and reads need some too. */
const parallelFlushes = 2;

interface StoredPart {
  readonly sha256: string;
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
}

export interface CacheOptions {
  readonly directory: string;
  /** Bounds what the parts take together. Parts that find no room are used but not kept. */
  readonly bytesMax: number;
  readonly hasher: PartHasher;
  /** Told once, in a line, when the disk has no room. */
  readonly warn: (line: string) => void;
}

/** A part that is written but not yet flushed and renamed. */
interface Pending {
  readonly temporary: string;
  readonly bytes: number;
  /** Tells whether it was kept; never rejects. */
  readonly kept: Promise<boolean>;
}

/**
 * A full disk is no reason not to load: what is there is read, and what is fetched is used.
 * @throws CheckpointError if the directory can't be written for another reason.
 */
export async function openWeightCache(options: CacheOptions): Promise<WeightCache> {
  const { directory } = options;
  const nowMs = Date.now();
  const userFile = join(directory, 'users', `${nowMs}-${randomUUID()}`);
  try {
    const hasRoom = await foundRoom(async () => {
      for (const folder of ['sha256', 'journal', 'users', 'tmp']) {
        await mkdir(join(directory, folder), { recursive: true });
      }
      await sweepTemporary(join(directory, 'tmp'), nowMs);
      await writeFile(userFile, '');
    });
    const cache = new WeightCache(options, userFile);
    if (!hasRoom) cache.warnOfFullDisk();
    return cache;
  } catch (cause) {
    throw new CheckpointError(
      `the weights' cache can't be kept in ${directory}: ${reasonOf(cause)}`,
      { cause },
    );
  }
}

export class WeightCache implements AsyncDisposable {
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #hasher: PartHasher;
  readonly #userFile: string;
  readonly #warn: (line: string) => void;
  #isWarned = false;
  readonly #flushes = new Slots(parallelFlushes);
  readonly #pending = new Map<string, Pending>();
  readonly #timer: NodeJS.Timeout;
  /** Bytes of all parts as far as this user knows; null until it writes its first. */
  #bytes: Promise<number> | null = null;
  /** Bytes of the parts, by hash, that have room and are not known to be on the disk yet. */
  readonly #writing = new Map<string, number>();

  constructor({ directory, bytesMax, hasher, warn }: CacheOptions, userFile: string) {
    this.#hasher = hasher;
    this.#warn = warn;
    this.#directory = directory;
    this.#bytesMax = bytesMax;
    this.#userFile = userFile;
    this.#timer = setInterval(() => void this.#touchUser(), touchEveryMs);
    this.#timer.unref();
  }

  /** The journal of one stored object; `pin` names the object and its version. */
  journal(pin: readonly string[]): Promise<PartJournal> {
    const name = createHash('sha256').update(JSON.stringify(pin)).digest('hex');
    const path = join(this.#directory, 'journal', `${name}.jsonl`);
    return PartJournal.open(path, () => this.warnOfFullDisk());
  }

  warnOfFullDisk(): void {
    if (this.#isWarned) return;
    this.#isWarned = true;
    this.#warn(
      `the disk of the weights' cache ${this.#directory} is full: ` +
        'weights that do not fit are loaded but not kept, and fetched again at the next start; ' +
        'free space or set --weights-cache',
    );
  }

  /**
   * Fills `into` with the part of this hash and length and tells whether it is there. Bytes that do
   * not have the hash are deleted and count as not there; `into` holds anything then.
   */
  async get(sha256: string, into: Uint8Array): Promise<boolean> {
    const path = this.#path(sha256);
    const pending = this.#pending.get(sha256);
    const isFilled =
      (pending !== undefined && (await fillFrom(pending.temporary, into))) ||
      (await fillFrom(path, into));
    if (!isFilled) return false;
    if ((await this.#hasher.sha256(into)) !== sha256) {
      await rm(path, { force: true });
      return false;
    }
    await this.touch(sha256);
    return true;
  }

  /** Marks a part as used now, if it is there: no user evicts what a live one has touched. */
  async touch(sha256: string): Promise<void> {
    const now = Date.now() / 1000;
    await utimes(this.#path(sha256), now, now).catch(ignoreMissing);
  }

  /**
   * Keeps a part that `sha256` is the hash of. Resolves once `bytes` may be used for something
   * else; flushing and renaming go on, and `onKept` is called after them. Without room, or on a
   * disk that stays full once unused parts are gone, the part is not kept, and `onKept` not called.
   */
  async put(part: { sha256: string; bytes: Uint8Array; onKept(): Promise<void> }): Promise<void> {
    const { sha256, bytes, onKept } = part;
    const path = this.#path(sha256);
    const same = this.#pending.get(sha256);
    if (same !== undefined) {
      void same.kept.then(async (kept) => kept && onKept()).catch(() => {});
      return;
    }
    const present = await stat(path).catch(() => null);
    if (present?.size === bytes.length) {
      await this.touch(sha256);
      return onKept();
    }
    if (!(await this.#makeRoom(sha256, bytes.length))) return;
    const temporary = join(this.#directory, 'tmp', randomUUID());
    try {
      if (!(await this.#writeWhole(temporary, bytes))) {
        this.#writing.delete(sha256);
        return this.warnOfFullDisk();
      }
    } catch (cause) {
      this.#writing.delete(sha256);
      throw new CheckpointError(`the weights' cache can't write ${path}: ${reasonOf(cause)}`, {
        cause,
      });
    }
    const kept = this.#keep({ temporary, path, onKept }).finally(() => {
      this.#writing.delete(sha256);
      this.#pending.delete(sha256);
    });
    this.#pending.set(sha256, { temporary, bytes: bytes.length, kept });
    while (this.#unflushedBytes() > unflushedBytesMax) {
      await Promise.race([...this.#pending.values()].map((pending) => pending.kept));
    }
  }

  /** False if the disk has no room even without the parts that nobody uses. */
  async #writeWhole(path: string, bytes: Uint8Array): Promise<boolean> {
    const write = async (): Promise<void> => {
      try {
        await mkdir(join(path, '..'), { recursive: true });
        await writeFile(path, bytes);
      } catch (error) {
        await rm(path, { force: true }).catch(() => {});
        throw error;
      }
    };
    if (await foundRoom(write)) return true;
    await this.#evict((total) => total - bytes.length);
    return foundRoom(write);
  }

  /** Resolves once every part that was put is kept, or can't be. */
  async settled(): Promise<void> {
    await Promise.all([...this.#pending.values()].map(({ kept }) => kept));
  }

  /** Waits for what is being flushed, then gives up the parts in use: others may evict them now. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.settled();
    clearInterval(this.#timer);
    await rm(this.#userFile, { force: true }).catch(() => {});
  }

  /** The bytes have been used by now; a part that can't be kept costs only another fetch. */
  async #keep(part: {
    temporary: string;
    path: string;
    onKept(): Promise<void>;
  }): Promise<boolean> {
    const { temporary, path, onKept } = part;
    try {
      await this.#flushes.run(() => flush(temporary));
      await mkdir(join(path, '..'), { recursive: true });
      await rename(temporary, path);
      await onKept();
      return true;
    } catch (error) {
      if (isDiskFull(error)) this.warnOfFullDisk();
      await rm(temporary, { force: true }).catch(() => {});
      return false;
    }
  }

  #unflushedBytes(): number {
    return [...this.#pending.values()].reduce((total, { bytes }) => total + bytes, 0);
  }

  #path(sha256: string): string {
    return join(this.#directory, 'sha256', sha256.slice(0, 2), sha256);
  }

  /** Counts `bytes` in and evicts what was used least recently. False if too much is in use. */
  async #makeRoom(sha256: string, bytes: number): Promise<boolean> {
    if (bytes > this.#bytesMax) return false;
    this.#bytes ??= this.#storedParts().then(sumBytes);
    // Each caller chains on the one before, so that parts written side by side are all counted.
    const before = this.#bytes;
    const after = before.then(async (total) => {
      if (total + bytes <= this.#bytesMax) return { total: total + bytes, fits: true };
      const left = await this.#evict(() => this.#bytesMax - bytes);
      const fits = left + bytes <= this.#bytesMax;
      return { total: fits ? left + bytes : left, fits };
    });
    this.#bytes = after.then(({ total, fits }) => {
      if (fits) this.#writing.set(sha256, bytes);
      return total;
    });
    await this.#bytes;
    return (await after).fits;
  }

  /**
   * Deletes the least recently used parts that no live user needs until as little is left of the
   * bytes of all as is said; returns what is left.
   */
  async #evict(leftMaxOf: (total: number) => number): Promise<number> {
    const inUseSinceMs = (await this.#oldestUserMs()) - clockSlackMs;
    // Taken before the files are listed: what is renamed meanwhile is in one of the two, or in
    // both.
    const writing = new Map(this.#writing);
    const parts = await this.#storedParts();
    for (const { sha256 } of parts) writing.delete(sha256);
    let total = sumBytes(parts) + [...writing.values()].reduce((sum, size) => sum + size, 0);
    const leftMax = leftMaxOf(total);
    for (const part of parts.toSorted((a, b) => a.usedMs - b.usedMs)) {
      if (total <= leftMax || part.usedMs >= inUseSinceMs) break;
      await rm(part.path, { force: true });
      total -= part.bytes;
    }
    await deleteOlder(join(this.#directory, 'journal'), inUseSinceMs - journalTtlMs);
    return total;
  }

  async #oldestUserMs(): Promise<number> {
    const folder = join(this.#directory, 'users');
    const nowMs = Date.now();
    let oldestMs = nowMs;
    for (const name of await namesIn(folder)) {
      const touchedMs = (await stat(join(folder, name)).catch(() => null))?.mtimeMs ?? 0;
      if (touchedMs >= nowMs - userTtlMs) oldestMs = Math.min(oldestMs, Number.parseInt(name, 10));
      else await rm(join(folder, name), { force: true });
    }
    return oldestMs;
  }

  async #storedParts(): Promise<StoredPart[]> {
    const root = join(this.#directory, 'sha256');
    const parts: StoredPart[] = [];
    for (const folder of await namesIn(root)) {
      for (const name of await namesIn(join(root, folder))) {
        const path = join(root, folder, name);
        const status = await stat(path).catch(() => null);
        if (status === null) continue;
        parts.push({ sha256: name, path, bytes: status.size, usedMs: status.mtimeMs });
      }
    }
    return parts;
  }

  async #touchUser(): Promise<void> {
    const now = Date.now() / 1000;
    // A directory that was removed meanwhile shows at the next read or write.
    await utimes(this.#userFile, now, now).catch(() => {});
  }
}

/** Journals are small; they go when nothing used them for long. */
const journalTtlMs = 30 * 24 * 3600 * 1000;

/** Only a file of exactly this length is read. */
async function fillFrom(path: string, into: Uint8Array): Promise<boolean> {
  const handle = await open(path, 'r').catch(ignoreMissing);
  if (handle === undefined) return false;
  await using file = handle;
  if ((await file.stat()).size !== into.length) return false;
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, done);
    if (bytesRead === 0) return false;
    done += bytesRead;
  }
  return true;
}

async function flush(path: string): Promise<void> {
  await using file = await open(path, 'r+');
  await file.datasync();
}

/** Removes what a killed worker was writing. */
async function sweepTemporary(folder: string, nowMs: number): Promise<void> {
  await deleteOlder(folder, nowMs - userTtlMs);
}

async function deleteOlder(folder: string, beforeMs: number): Promise<void> {
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const touchedMs = (await stat(path).catch(() => null))?.mtimeMs ?? Infinity;
    if (touchedMs < beforeMs) await rm(path, { force: true });
  }
}

/** None in a folder that a full disk had no room for. */
async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(ignoreMissing)) ?? [];
}

function sumBytes(parts: readonly StoredPart[]): number {
  return parts.reduce((total, part) => total + part.bytes, 0);
}

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT') throw error;
}

/** False if the disk is full; rejects with any other error of the write. */
async function foundRoom(write: () => Promise<void>): Promise<boolean> {
  try {
    await write();
    return true;
  } catch (error) {
    if (isDiskFull(error)) return false;
    throw error;
  }
}

function errorCode(error: unknown): string | null {
  return error instanceof Error && 'code' in error ? String(error.code) : null;
}
