/** Finds the entries of requests in the journal's files once memory keeps no places of theirs. */
import { ApiError } from '../api-error.ts';
import { listFiles, readEntries } from './journal-file.ts';
import type { JournalEntry } from './journal-file.ts';

/** Scans that may wait for one another. */
const scansMax = 32;

/** Scans go one at a time, because each reads up to a day of lines. */
export class JournalScans {
  readonly #directory: string;
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Finds the newest entry of a request. @throws ApiError 429 while too many scans wait. */
  async find(id: string): Promise<JournalEntry | null> {
    if (this.#count >= scansMax) {
      throw new ApiError('engine_busy', 'Too many old requests are being looked up.', {
        headers: { 'retry-after': '1' },
      });
    }
    this.#count++;
    const scan = this.#last.then(() => this.#scan(id)).finally(() => this.#count--);
    this.#last = scan.catch(() => {});
    return scan;
  }

  async #scan(id: string): Promise<JournalEntry | null> {
    const newestFirst = (await listFiles(this.#directory)).toReversed();
    for (const path of newestFirst) {
      let found: JournalEntry | null = null;
      for await (const { entry } of readEntries(path)) if (entry?.id === id) found = entry;
      if (found) return found;
    }
    return null;
  }
}
