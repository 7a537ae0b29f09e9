/** Appends lines to the usage journal's file of the current hour, and brings them onto the disk. */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Logger } from 'pino';
import { isDiskFull } from '../../../infra/disk-watch.ts';
import type { Clock } from '../clock.ts';
import { fileNameAt, formatLine, pruneFiles } from './journal-file.ts';
import type { JournalEntry } from './journal-file.ts';

export interface JournalWriterOptions {
  readonly directory: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

const fdatasyncFile = promisify(fdatasync);

/** Requests that run when a disk fills up, and some that are cancelled; no others begin then. */
const unwrittenMax = 20_000;

/**
 * Errors are counted, and logged when they begin and end: an answer that has begun is not held back
 * by them. Lines that could not be written are kept and written before the next one that can be.
 */
export class JournalWriter {
  errors = 0;
  /** The newest unwritten line of each request. */
  readonly #unwritten = new Map<string, JournalEntry>();
  /** The reason why the last write failed; null: it did not. */
  #failure: string | null = null;
  readonly #options: JournalWriterOptions;
  #name = '';
  /** The last write left part of a line, which the next one must end. */
  #torn = false;
  #descriptor: number | null = null;
  #syncing: Promise<boolean> | null = null;
  #nextSync: Promise<boolean> | null = null;

  constructor(options: JournalWriterOptions) {
    this.#options = options;
    this.#roll();
  }

  append(entry: JournalEntry): void {
    // Lines of one request stay in order: a younger one says all that an older one did.
    this.#unwritten.delete(entry.id);
    this.#unwritten.set(entry.id, entry);
    this.#writeUnwritten();
    const [oldest] = this.#unwritten.keys();
    if (this.#unwritten.size > unwrittenMax && oldest !== undefined) this.#unwritten.delete(oldest);
  }

  /** Appends a line without which its request may not begin: it is written now, or not at all. */
  appendNow(entry: JournalEntry): boolean {
    const before = this.#unwritten.get(entry.id);
    this.append(entry);
    if (!this.#unwritten.delete(entry.id)) return true;
    if (before) this.#unwritten.set(entry.id, before);
    return false;
  }

  /** Tells why lines can't be written, in words for anybody; null if they can. A write is tried. */
  problem(): string | null {
    if (this.#failure === null || this.#descriptor === null) return this.#failure;
    this.#writeUnwritten();
    return this.#failure;
  }

  #writeUnwritten(): void {
    try {
      this.#roll();
      // Readers skip empty lines. One shows whether a disk that was full has room again.
      if (this.#failure !== null) this.#write('\n');
      for (const [id, entry] of this.#unwritten) {
        this.#write(formatLine(entry));
        this.#unwritten.delete(id);
      }
      if (this.#failure !== null) this.#options.logger.info('the usage journal is written again');
      this.#failure = null;
    } catch (error) {
      this.#failed(error);
    }
  }

  #write(text: string): void {
    if (this.#descriptor === null) throw new Error('the journal is closed');
    const bytes = Buffer.from((this.#torn ? '\n' : '') + text);
    // A disk that fills up takes part of a line, and tells why when it is given the rest.
    for (let done = 0; done < bytes.length;) {
      const written = writeSync(this.#descriptor, bytes, done);
      if (written === 0) throw new Error('the disk takes no bytes');
      done += written;
      this.#torn = done < bytes.length;
    }
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
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
    this.#name = 'closed';
  }

  async #syncNow(): Promise<boolean> {
    if (this.#descriptor === null || this.#unwritten.size > 0) return false;
    try {
      await fdatasyncFile(this.#descriptor);
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  /** Opens the hour's file if the hour is a new one, and deletes what is older than a day. */
  #roll(): void {
    const { directory, clock, logger } = this.#options;
    const name = fileNameAt(clock.wallMs());
    if (this.#name === name || this.#name === 'closed') return;
    const previous = this.#descriptor;
    this.#descriptor = openForAppend(join(directory, name));
    this.#name = name;
    if (previous === null) return;
    // A wait for a sync that begins now is for that of the new file. Once an hour this blocks.
    try {
      fdatasyncSync(previous);
    } finally {
      void Promise.resolve(this.#syncing).finally(() => closeSync(previous));
    }
    pruneFiles(directory, clock.wallMs()).catch((error: unknown) =>
      logger.error({ err: error }, 'could not delete old files of the usage journal'),
    );
  }

  #failed(error: unknown): void {
    this.errors++;
    const reason = isDiskFull(error) ? 'its disk is full' : 'its disk fails';
    if (this.#failure !== reason) {
      this.#options.logger.error({ err: error }, 'the usage journal could not be written');
    }
    this.#failure = reason;
  }
}

/** A line torn by a crash is ended here, so that it does not swallow the next one. */
function openForAppend(path: string): number {
  const descriptor = openSync(path, 'a+');
  try {
    const { size } = fstatSync(descriptor);
    const last = Buffer.alloc(1);
    if (size > 0 && readSync(descriptor, last, 0, 1, size - 1) === 1 && last[0] !== 0x0a) {
      writeSync(descriptor, '\n');
    }
    return descriptor;
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}
