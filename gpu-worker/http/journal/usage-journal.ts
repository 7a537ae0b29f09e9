/**
 * Records what each request of the last 24 hours used, in append-only files that survive kill -9,
 * for the edge to settle from when a stream broke. A request has a line when it begins, a
 * checkpoint about every second while it runs, and a final one. A request that was running when the
 * process died is answered as `interrupted`, with its last checkpoint. An id used again after its
 * request has ended replaces the earlier record: the newest wins. The directory belongs to one
 * worker alone.
 *
 * A line reaches the operating system at once, so that kill -9 can't lose it. Against a power cut
 * `finish` waits for fdatasync, which all requests share that end while the previous one runs
 * (group commit). Measured on 2 cores with ext4: 0.2 ms at the median for one request at a time;
 * 54,000 requests/s for 64 side by side, 0.7 ms at the median and 1.9 ms at the 99th percentile.
 */
import { mkdirSync } from 'node:fs';
import type { Logger } from 'pino';
import { nothingComputed } from '../../engine/request.ts';
import type { EngineUsage } from '../../engine/request.ts';
import type { UsageRecord } from '../../protocol/usage.ts';
import type { Clock } from '../clock.ts';
import { notReady } from '../api-error.ts';
import { fileHour, listFiles, pruneFiles, readEntries, retentionMs } from './journal-file.ts';
import type { JournalEntry } from './journal-file.ts';
import { JournalScans } from './journal-scans.ts';
import { JournalWriter } from './journal-writer.ts';
import { LinePlaces } from './line-places.ts';
import { toWireUsage } from '../response/wire-usage.ts';

const checkpointMs = 1_000;
/** Ended requests that are found at once; for an older one the files are looked through. */
const placesMax = 50_000;
/** Requests cancelled before they came; they come within seconds, or never. */
const cancelledMax = 10_000;

export interface UsageJournal {
  /**
   * False if a request with this id is running, or was cancelled before it came.
   * @throws ApiError 503 if it can't be written down: nothing may be computed for it then
   */
  begin(request: JournalStart): boolean;
  /** The counts so far, which `lookup` answers with at once. */
  update(id: string, usage: EngineUsage): void;
  /** Resolves when the final line is on disk; with false if the disk did not take it. */
  finish(id: string, end: JournalEnd): Promise<boolean>;
  /** @throws ApiError 429 if too many lookups wait for the files. */
  lookup(id: string): Promise<UsageRecord | null>;
  /**
   * Stops a request wherever it is: one that runs is stopped, and answered as `running` until it
   * has ended; one that was never seen is answered as `aborted` with nothing used, and never
   * begins.
   */
  cancel(id: string): Promise<UsageRecord>;
  /** Errors of writing or syncing since start; the counts were served, but may not be on disk. */
  errors(): number;
  /**
   * Says why no request may begin; null if they may. After a failure it tries again whether they
   * may.
   */
  problem(): string | null;
  close(): Promise<void>;
}

export interface JournalStart {
  readonly id: string;
  readonly model: string;
  readonly stop?: AbortController;
}

export interface JournalEnd {
  readonly outcome: 'done' | 'aborted' | 'failed';
  readonly usage: EngineUsage;
}

export interface JournalOptions {
  readonly directory: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly placesMax?: number;
  /** Brings a file onto the disk; by default fdatasync(2) does. */
  readonly datasync?: (descriptor: number) => Promise<void>;
}

interface RunningRequest {
  entry: JournalEntry;
  checkpointedMs: number;
  readonly stop: AbortController | null;
}

/** Reads what the files hold of the last 24 hours. @throws if the directory can't be used. */
export async function openUsageJournal(options: JournalOptions): Promise<UsageJournal> {
  const { directory, clock, logger } = options;
  mkdirSync(directory, { recursive: true });
  await pruneFiles(directory, clock.wallMs());
  const places = new LinePlaces(directory, options.placesMax ?? placesMax);
  let damaged = 0;
  for (const path of await listFiles(directory)) {
    const hour = fileHour(path);
    for await (const { offset, entry } of readEntries(path)) {
      if (entry) places.put(entry.id, { hour, offset });
      else damaged++;
    }
  }
  if (damaged > 0)
    logger.warn({ directory, damaged }, 'skipped damaged lines of the usage journal');
  return new FileJournal(options, places);
}

class FileJournal implements UsageJournal {
  readonly #clock: Clock;
  readonly #file: JournalWriter;
  readonly #scans: JournalScans;
  readonly #places: LinePlaces;
  readonly #running = new Map<string, RunningRequest>();
  readonly #cancelled = new Set<string>();

  constructor(options: JournalOptions, places: LinePlaces) {
    this.#clock = options.clock;
    this.#places = places;
    this.#file = new JournalWriter({
      ...options,
      onWritten({ id, kind }, place) {
        // One that runs is looked for among those that run.
        if (kind !== 'running') places.put(id, place);
      },
    });
    this.#scans = new JournalScans(options.directory);
  }

  begin({ id, model, stop }: { id: string; model: string; stop?: AbortController }): boolean {
    if (this.#running.has(id) || this.#cancelled.has(id)) return false;
    const entry = newEntry('running', { id, model, nowMs: this.#clock.wallMs() });
    if (!this.#file.appendNow(entry)) {
      throw notReady('failed', journalProblem(this.#file.problem()));
    }
    this.#running.set(id, { entry, checkpointedMs: entry.startedMs, stop: stop ?? null });
    return true;
  }

  update(id: string, usage: EngineUsage): void {
    const request = this.#running.get(id);
    if (!request) return;
    const nowMs = this.#clock.wallMs();
    request.entry = { ...request.entry, usage, updatedMs: nowMs };
    if (nowMs - request.checkpointedMs < checkpointMs) return;
    request.checkpointedMs = nowMs;
    this.#file.append(request.entry);
  }

  async finish(id: string, { outcome, usage }: JournalEnd): Promise<boolean> {
    const request = this.#running.get(id);
    if (!request) return false;
    const entry = { ...request.entry, kind: outcome, usage, updatedMs: this.#clock.wallMs() };
    this.#running.delete(id);
    this.#file.append(entry);
    return await this.#file.sync();
  }

  async lookup(id: string): Promise<UsageRecord | null> {
    const request = this.#running.get(id);
    if (request) return toRecord(request.entry, 'running');
    const entry = await this.#find(id);
    if (!entry || this.#clock.wallMs() - entry.updatedMs > retentionMs) return null;
    return toRecord(entry, entry.kind === 'running' ? 'interrupted' : entry.kind);
  }

  async #find(id: string): Promise<JournalEntry | null> {
    const found = this.#file.unwritten(id) ?? this.#places.read(id);
    if (found) return found;
    // Ids with one hash share a place, and the older one's line is in the files alone.
    const mayLieInFiles = this.#places.forgotten || this.#places.mayHave(id);
    return mayLieInFiles ? this.#scans.find(id) : null;
  }

  async cancel(id: string): Promise<UsageRecord> {
    this.#running.get(id)?.stop?.abort();
    // Before the files are looked through, so that it can't begin meanwhile.
    const isNew = !this.#running.has(id) && !this.#isKnown(id);
    if (isNew) this.#cancelled.add(id);
    const known = await this.lookup(id);
    if (known) {
      if (isNew) this.#cancelled.delete(id);
      return known;
    }
    this.#cancelled.add(id);
    forgetOldest(this.#cancelled, cancelledMax);
    const entry = newEntry('aborted', { id, model: '', nowMs: this.#clock.wallMs() });
    this.#file.append(entry);
    await this.#file.sync();
    return toRecord(entry, 'aborted');
  }

  #isKnown(id: string): boolean {
    return this.#file.unwritten(id) !== null || this.#places.mayHave(id);
  }

  errors(): number {
    return this.#file.errors;
  }

  problem(): string | null {
    const problem = this.#file.problem();
    return problem === null ? null : journalProblem(problem);
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function journalProblem(problem: string | null): string {
  return `the usage journal can't be written, ${problem ?? 'its disk was full'}`;
}

function newEntry(
  kind: 'running' | 'aborted',
  { nowMs, ...request }: { id: string; model: string; nowMs: number },
): JournalEntry {
  return { kind, ...request, startedMs: nowMs, updatedMs: nowMs, usage: nothingComputed };
}

function forgetOldest(ids: Set<string>, max: number): void {
  const [oldest] = ids;
  if (ids.size > max && oldest !== undefined) ids.delete(oldest);
}

function toRecord(entry: JournalEntry, status: UsageRecord['status']): UsageRecord {
  return {
    object: 'request.usage',
    id: entry.id,
    model: entry.model,
    status,
    created: Math.floor(entry.startedMs / 1000),
    updated: Math.floor(entry.updatedMs / 1000),
    usage: toWireUsage(entry.usage),
  };
}
