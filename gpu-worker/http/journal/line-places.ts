/**
 * Keeps in memory where the journal's newest lines lie, not what they say: some 60 bytes for each
 * request that has ended, at most so many, the one put longest ago forgotten first.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { fileNameAt, hourMs, readEntryAt } from './journal-file.ts';
import type { JournalEntry } from './journal-file.ts';

/** An hour and an offset share one number, which has 53 bits: 20 for the hour since 1970. */
const fileBytesMax = 2 ** 33;

export class LinePlaces {
  /** Lines have been forgotten, so that a request without a place may still have one. */
  forgotten = false;
  /** By a hash of the request's id; a line says itself whose it is. */
  readonly #places = new Map<number, number>();
  readonly #directory: string;
  readonly #max: number;

  constructor(directory: string, max: number) {
    this.#directory = directory;
    this.#max = max;
  }

  get count(): number {
    return this.#places.size;
  }

  /** @param hour of the file, since 1970 */
  put(id: string, { hour, offset }: { readonly hour: number; readonly offset: number }): void {
    const hash = crc32(id);
    this.#places.delete(hash);
    if (offset < fileBytesMax) this.#places.set(hash, hour * fileBytesMax + offset);
    else this.forgotten = true;
    if (this.#places.size <= this.#max) return;
    const [oldest] = this.#places.keys();
    if (oldest !== undefined) this.#places.delete(oldest);
    this.forgotten = true;
  }

  /** False only for requests that have no place. */
  mayHave(id: string): boolean {
    return this.#places.has(crc32(id));
  }

  /** Reads the newest line of the request; null where its place is not known. */
  read(id: string): JournalEntry | null {
    const place = this.#places.get(crc32(id));
    if (place === undefined) return null;
    const hour = Math.floor(place / fileBytesMax);
    const path = join(this.#directory, fileNameAt(hour * hourMs));
    const entry = readEntryAt(path, place % fileBytesMax);
    return entry?.id === id ? entry : null;
  }
}
