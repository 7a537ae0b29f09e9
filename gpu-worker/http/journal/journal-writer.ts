/** Appends lines to the usage journal's file of the current hour, and brings them onto the disk. */
import { closeSync, fdatasync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Logger } from 'pino';
import { isDiskFull } from '../../../infra/disk-watch.ts';
import type { Clock } from '../clock.ts';
import { fileNameAt, formatLine, hourMs, pruneFiles } from './journal-file.ts';
import type { JournalEntry } from './journal-file.ts';

export interface JournalWriterOptions {
  readonly directory: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told where each line begins, once it is in a file. */
  readonly onWritten: (
    entry: JournalEntry,
    place: { readonly hour: number; readonly offset: number },
  ) => void;
  /** Brings a file onto the disk; by default fdatasync(2) does. */
  readonly datasync?: (descriptor: number) => Promise<void>;
}

const fdatasyncFile = promisify(fdatasync);

/** Requests that run when a disk fails, and some that are cancelled; no others begin then. */
const unwrittenMax = 20_000;

/** The file that lines go to now. */
interface OpenFile {
  readonly hour: number;
  readonly descriptor: number;
  bytes: number;
}

/**
 * Errors are counted, and logged when they begin and end: an answer that has begun is not held back
 * by them. Lines that could not be written, or not be brought onto the disk, are kept and written
 * before the next one that can be: after a failed sync the system forgets that it owes the disk
 * their pages, so that a later sync which succeeds says nothing of them.
 */
export class JournalWriter {
  errors = 0;
  /** The newest line of each request that is in no file. */
  readonly #unwritten = new Map<string, JournalEntry>();
  /** The newest line of each request that is in a file, and maybe not on the disk. */
  #unsynced = new Map<string, JournalEntry>();
  /** The reasons why the last write failed, and the last sync; null: it did not. */
  readonly #failures: Record<'write' | 'sync', string | null> = { write: null, sync: null };
  readonly #options: JournalWriterOptions;
  readonly #datasync: (descriptor: number) => Promise<void>;
  /** The last write left part of a line, which the next one must end. */
  #torn = false;
  #isClosed = false;
  #file: OpenFile | null = null;
  /** Files of earlier hours that were written after the last sync began. */
  #earlier: OpenFile[] = [];
  #syncing: Promise<boolean> | null = null;
  #nextSync: Promise<boolean> | null = null;

  constructor(options: JournalWriterOptions) {
    this.#options = options;
    this.#datasync = options.datasync ?? fdatasyncFile;
    this.#roll();
  }

  append(entry: JournalEntry): void {
    // Lines of one request stay in order: a younger one says all that an older one did.
    this.#unwritten.delete(entry.id);
    this.#unwritten.set(entry.id, entry);
    this.#writeUnwritten();
    forgetOldest(this.#unwritten);
  }

  /** Appends a line without which its request may not begin: it is written now, or not at all. */
  appendNow(entry: JournalEntry): boolean {
    // A line is not counted as written on a disk that takes it and can't keep it.
    if (this.#failures.sync !== null) return false;
    const before = this.#unwritten.get(entry.id);
    this.append(entry);
    if (!this.#unwritten.delete(entry.id)) return true;
    if (before) this.#unwritten.set(entry.id, before);
    return false;
  }

  /** The line of a request that is kept until it can be written; null if there is none. */
  unwritten(id: string): JournalEntry | null {
    return this.#unwritten.get(id) ?? null;
  }

  /**
   * Tells why lines can't be written, in words for anybody; null if they can. A write is tried at
   * once; a sync takes its time, and what it finds is told by a later call.
   */
  problem(): string | null {
    if (this.#isClosed) return this.#problem;
    if (this.#failures.write !== null) this.#writeUnwritten();
    if (this.#failures.sync !== null && this.#syncing === null) void this.sync();
    return this.#problem;
  }

  get #problem(): string | null {
    return this.#failures.write ?? this.#failures.sync;
  }

  #writeUnwritten(): void {
    try {
      this.#roll();
      // Readers skip empty lines. One shows whether a disk that was full has room again, and keeps
      // what follows apart from lines that the disk may have lost.
      if (this.#problem !== null) this.#write('\n');
      for (const [id, entry] of this.#unwritten) {
        const place = this.#write(formatLine(entry));
        this.#unwritten.delete(id);
        this.#unsynced.delete(id);
        this.#unsynced.set(id, entry);
        this.#options.onWritten(entry, place);
      }
      forgetOldest(this.#unsynced);
      this.#succeeded('write');
    } catch (error) {
      this.#failed('write', error);
    }
  }

  /** Returns where the text begins. */
  #write(text: string): { readonly hour: number; readonly offset: number } {
    const file = this.#file;
    if (file === null) throw new Error('the journal is closed');
    const start = this.#torn ? '\n' : '';
    const bytes = Buffer.from(start + text);
    const place = { hour: file.hour, offset: file.bytes + start.length };
    // A disk that fills up takes part of a line, and tells why when it is given the rest.
    for (let done = 0; done < bytes.length;) {
      const written = writeSync(file.descriptor, bytes, done);
      if (written === 0) throw new Error('the disk takes no bytes');
      done += written;
      file.bytes += written;
      this.#torn = done < bytes.length;
    }
    return place;
  }

  /** Resolves once everything appended before the call is on disk; with false if it is not. */
  sync(): Promise<boolean> {
    if (!this.#syncing) {
      this.#syncing = this.#syncNow().finally(() => (this.#syncing = null));
      return this.#syncing;
    }
    // The sync under way may have missed our line; all who wait for it share the next one.
    this.#nextSync ??= this.#syncing.then(() => {
      this.#nextSync = null;
      return this.sync();
    });
    return this.#nextSync;
  }

  async close(): Promise<void> {
    if (this.#unwritten.size > 0) this.#writeUnwritten();
    await this.sync();
    this.#isClosed = true;
    if (this.#file !== null) closeSync(this.#file.descriptor);
    this.#file = null;
  }

  async #syncNow(): Promise<boolean> {
    if (this.#failures.sync !== null) this.#writeUnwritten();
    if (this.#file === null || this.#unwritten.size > 0) return false;
    const lines = this.#unsynced;
    this.#unsynced = new Map();
    const earlier = this.#earlier;
    this.#earlier = [];
    try {
      for (const { descriptor } of [...earlier, this.#file]) await this.#datasync(descriptor);
      this.#succeeded('sync');
      return true;
    } catch (error) {
      this.#failed('sync', error);
      for (const [id, entry] of lines) {
        if (!this.#unwritten.has(id) && !this.#unsynced.has(id)) this.#unwritten.set(id, entry);
      }
      forgetOldest(this.#unwritten);
      return false;
    } finally {
      for (const { descriptor } of earlier) closeSync(descriptor);
    }
  }

  /** Opens the hour's file if the hour is a new one, and deletes what is older than a day. */
  #roll(): void {
    const { directory, clock, logger } = this.#options;
    const hour = Math.floor(clock.wallMs() / hourMs);
    const previous = this.#file;
    if (previous?.hour === hour || this.#isClosed) return;
    this.#file = openForAppend(join(directory, fileNameAt(hour * hourMs)), hour);
    // The rest of a torn line is in the file before.
    this.#torn = false;
    if (previous === null) return;
    this.#earlier.push(previous);
    // One that failed is tried again by whoever asks for the problem.
    if (this.#failures.sync === null) void this.sync();
    pruneFiles(directory, clock.wallMs()).catch((error: unknown) =>
      logger.error({ err: error }, 'could not delete old files of the usage journal'),
    );
  }

  #failed(step: 'write' | 'sync', error: unknown): void {
    this.errors++;
    const reason = isDiskFull(error) ? 'its disk is full' : 'its disk fails';
    if (this.#failures[step] !== reason) {
      this.#options.logger.error({ err: error }, failureLines[step]);
    }
    this.#failures[step] = reason;
  }

  #succeeded(step: 'write' | 'sync'): void {
    if (this.#failures[step] !== null) this.#options.logger.info(recoveryLines[step]);
    this.#failures[step] = null;
  }
}

const failureLines = {
  write: 'the usage journal could not be written',
  sync: 'the usage journal could not be brought onto the disk',
};
const recoveryLines = {
  write: 'the usage journal is written again',
  sync: 'the usage journal is on the disk again',
};

function forgetOldest(lines: Map<string, JournalEntry>): void {
  const [oldest] = lines.keys();
  if (lines.size > unwrittenMax && oldest !== undefined) lines.delete(oldest);
}

/** A line torn by a crash is ended here, so that it does not swallow the next one. */
function openForAppend(path: string, hour: number): OpenFile {
  const descriptor = openSync(path, 'a+');
  try {
    const { size } = fstatSync(descriptor);
    const last = Buffer.alloc(1);
    if (size > 0 && readSync(descriptor, last, 0, 1, size - 1) === 1 && last[0] !== 0x0a) {
      writeSync(descriptor, '\n');
    }
    return { hour, descriptor, bytes: fstatSync(descriptor).size };
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}
