/**
 * Keeps which parts of one stored object were fetched and verified, a line each, appended once the
 * part is safe in the cache. A load that was killed goes on from here. Several workers may append
 * to one journal; each line begins with its own newline, so that a torn one spoils no other.
 */
import { createHash } from 'node:crypto';
import { appendFile, readFile, rm } from 'node:fs/promises';
import { z } from 'zod';
import { isDiskFull } from '../../../infra/disk-watch.ts';
import type { ByteRange } from '../parts.ts';

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const offset = z.int().min(0);
const lineSchema = z.union([
  z.strictObject({ start: offset, end: offset, sha256: hash }),
  /** The file as a whole has the store's checksum, made of the parts that `hashOf` names. */
  z.strictObject({ whole: hash }),
]);

export class PartJournal {
  readonly #path: string;
  readonly #hashes = new Map<string, string>();
  readonly #ends = new Map<number, number>();
  readonly #written = new Set<string>();
  #whole: string | null = null;
  readonly #onDiskFull: () => void;
  #isForgotten = false;

  private constructor(path: string, onDiskFull: () => void) {
    this.#path = path;
    this.#onDiskFull = onDiskFull;
  }

  /** @param onDiskFull called when a line finds no room; later loads then verify its part again. */
  static async open(path: string, onDiskFull: () => void): Promise<PartJournal> {
    const journal = new PartJournal(path, onDiskFull);
    const text = await readFile(path, 'utf8').catch(() => '');
    for (const line of text.split('\n')) journal.#take(line);
    return journal;
  }

  /** The SHA-256 that the part was verified to have, or null. */
  sha256(part: ByteRange): string | null {
    return this.#hashes.get(keyOf(part)) ?? null;
  }

  /** Gives the end of the verified part that begins at `start`, or null. */
  endOf(start: number): number | null {
    return this.#ends.get(start) ?? null;
  }

  isWhole(parts: readonly ByteRange[]): boolean {
    return this.#whole !== null && this.#whole === this.#hashOf(parts);
  }

  /** Notes for this load only that the part is verified, and not yet safe in the cache. */
  learn(part: ByteRange, sha256: string): void {
    this.#hashes.set(keyOf(part), sha256);
  }

  /** Notes the part for later loads too. */
  async add(part: ByteRange, sha256: string): Promise<void> {
    if (this.#isForgotten || this.#written.has(`${keyOf(part)} ${sha256}`)) return;
    await this.#append({ start: part.start, end: part.end, sha256 });
  }

  /** The parts together have the checksum that the store recorded for the object. */
  async addWhole(parts: readonly ByteRange[]): Promise<void> {
    const whole = this.#hashOf(parts);
    if (whole !== null) await this.#append({ whole });
  }

  /**
   * Forgets all parts: after a mismatch nobody knows which is wrong, so none is kept or added any
   * more.
   */
  async forget(): Promise<void> {
    this.#isForgotten = true;
    this.#hashes.clear();
    this.#ends.clear();
    this.#whole = null;
    await rm(this.#path, { force: true });
  }

  async #append(line: z.infer<typeof lineSchema>): Promise<void> {
    const text = JSON.stringify(line);
    try {
      await appendFile(this.#path, `\n${text}\n`);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      this.#onDiskFull();
      return;
    }
    this.#take(text);
  }

  #take(text: string): void {
    const line = parseLine(text);
    if (line === null) return;
    if ('whole' in line) {
      this.#whole = line.whole;
      return;
    }
    this.#hashes.set(keyOf(line), line.sha256);
    this.#ends.set(line.start, line.end);
    this.#written.add(`${keyOf(line)} ${line.sha256}`);
  }

  #hashOf(parts: readonly ByteRange[]): string | null {
    const hashes = parts.map((part) => this.sha256(part));
    if (hashes.includes(null)) return null;
    return createHash('sha256').update(hashes.join('\n')).digest('hex');
  }
}

function keyOf({ start, end }: ByteRange): string {
  return `${start}-${end}`;
}

/** Null for what is not a whole line: a kill -9 can tear the last one. */
function parseLine(text: string): z.infer<typeof lineSchema> | null {
  try {
    return lineSchema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
