/** What the fleet knows of one worker, and what follows from it at a given moment. */
import type { ServedModel, WorkerStatus } from '../services.ts';
import { Flights } from './flights.ts';
import type { SpeedSample } from './flights.ts';

/** Workers announce themselves at this interval. */
export const heartbeatMs = 5_000;
/** Three missed heartbeats take a worker out. */
export const lostAfterMs = 3 * heartbeatMs;

/** A worker that answered 429 is passed over for this long, unless nobody else is there. */
export const backoffMs = 1_000;

/** Prompt tokens per second, until the first answers have shown what the worker does. */
export const tokensPerSecondDefault = 8_000;
const tokensPerSecondMin = 10;
const tokensPerSecondMax = 10_000_000;

/** What a worker says of itself, by heartbeat or when it is probed. */
export interface Announcement {
  readonly id: string;
  readonly url: string;
  /** Orders the starts of a worker, as far as its clock can be trusted. */
  readonly epoch: number;
  /** Random, of this start; workers of before have none. */
  readonly start?: string;
  readonly state: 'ready' | 'draining' | 'failing';
  readonly models: readonly string[];
  /** What it says of them, if anything. */
  readonly served?: readonly ServedModel[];
  readonly static: boolean;
  /** Whether it keeps the final usage of a request for those who ask later. */
  readonly hasJournal: boolean;
  /** null when it reports cached tokens. */
  readonly noDiscountReason: string | null;
}

export interface WorkerEntry {
  said: Announcement;
  seenAtMs: number;
  /** By the operator: it finishes what it has and gets nothing new. */
  drained: boolean;
  backoffUntilMs: number;
  tokensPerSecond: number;
  readonly flights: Flights;
}

export function newEntry(said: Announcement, drained: boolean, nowMs: number): WorkerEntry {
  return {
    said,
    seenAtMs: nowMs,
    drained,
    backoffUntilMs: 0,
    tokensPerSecond: tokensPerSecondDefault,
    flights: new Flights(),
  };
}

export function stateAt(entry: WorkerEntry, nowMs: number): WorkerStatus['state'] {
  if (nowMs - entry.seenAtMs > lostAfterMs) return 'lost';
  if (entry.said.state === 'failing') return 'failing';
  return entry.drained ? 'draining' : entry.said.state;
}

export function statusAt(entry: WorkerEntry, nowMs: number): WorkerStatus {
  const { said, flights } = entry;
  return {
    id: said.id,
    url: said.url,
    epoch: said.epoch,
    state: stateAt(entry, nowMs),
    static: said.static,
    models: [...said.models],
    served: servedBy(entry),
    tokensInFlight: flights.tokens,
    requestsInFlight: flights.requests,
    seenAtMs: entry.seenAtMs,
    noDiscountReason: said.noDiscountReason,
  };
}

export function servedBy({ said }: WorkerEntry): ServedModel[] {
  const unknown = { contextLength: null, revision: null, tokenizer: null };
  return said.models.map((id) => said.served?.find((each) => each.id === id) ?? { id, ...unknown });
}

/**
 * Moves the worker's learned rate towards what a first token showed. A short prompt is mostly fixed
 * latency and says little about the rate, so a sample weighs by its tokens, up to one in five.
 */
export function learnRate(entry: WorkerEntry, sample: SpeedSample): void {
  if (sample.tokens <= 0 || sample.elapsedMs <= 0) return;
  const shown = (sample.tokens * 1_000) / sample.elapsedMs;
  const weight = 0.2 * Math.min(1, sample.tokens / 1_024);
  const learned = entry.tokensPerSecond + weight * (shown - entry.tokensPerSecond);
  entry.tokensPerSecond = Math.min(tokensPerSecondMax, Math.max(tokensPerSecondMin, learned));
}
