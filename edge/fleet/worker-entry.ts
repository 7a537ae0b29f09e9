/** One worker as the fleet knows it, and what follows from that at a given moment. */
import type { ServedModel, WorkerStatus } from './worker-contract.ts';
import { Flights } from './flights.ts';
import type { SpeedSample } from './flights.ts';
import { ServiceRate } from './service-rate.ts';

/** Workers announce themselves at this interval. */
export const heartbeatMs = 5_000;
/** Three missed heartbeats take a worker out. */
export const lostAfterMs = 3 * heartbeatMs;

/**
 * A worker that did not take a request is passed over for this long, unless nobody else is there.
 */
export const backoffMs = 1_000;

/** Prompt tokens per second, until the first answers have shown the worker's own rate. */
export const tokensPerSecondDefault = 8_000;
const tokensPerSecondMin = 10;
const tokensPerSecondMax = 10_000_000;

/** Answers at a time of an engine that does not say how many it runs. */
export const slotsDefault = 128;
/**
 * A worker of ours is given one answer more for each so many slots, so that none is empty between
 * two answers.
 */
const slotsPerReady = 4;
/** One slot more in so many is kept for tenants that have no answer under way. */
const slotsPerSpare = 8;
/** A worker loses this part of its slots when it refuses, and wins it back while it does not. */
const slotsStep = 0.1;

/** The statements of a worker about itself, by heartbeat or when it is probed. */
export interface Announcement {
  readonly id: string;
  readonly url: string;
  /** Orders the starts of a worker, as far as its clock can be trusted. */
  readonly epoch: number;
  /** A random id of this start; older workers have none. */
  readonly start?: string;
  readonly state: 'ready' | 'draining' | 'failing';
  readonly models: readonly string[];
  /** The worker's statements about each model, if it makes any. */
  readonly served?: readonly ServedModel[];
  readonly static: boolean;
  /** Answers that it runs at a time; absent if it does not say. */
  readonly slots?: number;
  /** Further ones that it takes and lets wait; absent if it does not say. */
  readonly waiting?: number;
  /** true if it keeps the final usage of a request for those who ask later. */
  readonly hasJournal: boolean;
  /** null when it reports cached tokens. */
  readonly noDiscountReason: string | null;
}

export interface WorkerEntry {
  announcement: Announcement;
  seenAtMs: number;
  /** true if the operator drained it: it finishes what it has and gets nothing new. */
  drained: boolean;
  backoffUntilMs: number;
  /**
   * The worker answered that it has no slot; until then it gets nothing, even if nobody else is
   * there.
   */
  fullUntilMs: number;
  tokensPerSecond: number;
  /** Slots after refusals, fewer than the worker states; null if it has not refused. */
  slotsLearned: number | null;
  readonly flights: Flights;
  readonly rate: ServiceRate;
}

export function newEntry(announcement: Announcement, drained: boolean, nowMs: number): WorkerEntry {
  return {
    announcement,
    seenAtMs: nowMs,
    drained,
    backoffUntilMs: 0,
    fullUntilMs: 0,
    tokensPerSecond: tokensPerSecondDefault,
    slotsLearned: null,
    flights: new Flights(),
    rate: new ServiceRate(),
  };
}

/** Answers that the edge gives the worker at a time. */
export function slotsOf({ announcement, slotsLearned }: WorkerEntry): number {
  return slotsLearned ?? Math.max(1, announcement.slots ?? slotsDefault);
}

/**
 * Tells if the worker may be given so many answers more: while it has a slot for one, or few wait
 * there to take the next. A tenant that is `owed` a slot, having none here and having used little
 * lately, finds some beyond: our workers interrupt another's answer for it. One free slot will do
 * for a request of many answers: the worker lets the others wait, as far as it can.
 */
export function hasRoom(
  entry: WorkerEntry,
  wanted: { readonly slots: number; readonly isOwed: boolean },
): boolean {
  const slots = slotsOf(entry);
  const { waiting } = entry.announcement;
  const used = entry.flights.slots;
  if (used === 0) return true;
  const ready = waiting === undefined ? 0 : Math.min(waiting, Math.floor(slots / slotsPerReady));
  const spare = Math.ceil(slots / slotsPerSpare);
  const limit = slots + ready + (wanted.isOwed ? spare : 0);
  if (used >= limit) return false;
  if (waiting === undefined) return true;
  return used + wanted.slots <= slots + waiting - (wanted.isOwed ? 0 : spare);
}

/** Takes slots from a worker that refused although we counted a free one. */
export function learnRefusal(entry: WorkerEntry): void {
  const { slots } = entry.flights;
  entry.slotsLearned = Math.max(1, Math.floor(Math.min(slotsOf(entry), slots) * (1 - slotsStep)));
}

/** Gives slots back; to be called at each of the worker's announcements. */
export function regainSlots(entry: WorkerEntry): void {
  const { slotsLearned, announcement } = entry;
  if (slotsLearned === null) return;
  const slotsStated = announcement.slots ?? slotsDefault;
  const more = slotsLearned + Math.ceil(slotsLearned * slotsStep);
  entry.slotsLearned = more >= slotsStated ? null : more;
}

export function stateAt(entry: WorkerEntry, nowMs: number): WorkerStatus['state'] {
  if (nowMs - entry.seenAtMs > lostAfterMs) return 'lost';
  if (entry.announcement.state === 'failing') return 'failing';
  return entry.drained ? 'draining' : entry.announcement.state;
}

export function statusAt(entry: WorkerEntry, nowMs: number): WorkerStatus {
  const { announcement, flights } = entry;
  return {
    id: announcement.id,
    url: announcement.url,
    epoch: announcement.epoch,
    state: stateAt(entry, nowMs),
    static: announcement.static,
    models: [...announcement.models],
    served: servedBy(entry),
    tokensInFlight: flights.tokens,
    requestsInFlight: flights.requests,
    slotsInFlight: flights.slots,
    slots: slotsOf(entry),
    seenAtMs: entry.seenAtMs,
    noDiscountReason: announcement.noDiscountReason,
  };
}

export function servedBy({ announcement }: WorkerEntry): ServedModel[] {
  const unknown = { contextLength: null, revision: null, tokenizer: null };
  return announcement.models.map(
    (id) => announcement.served?.find((each) => each.id === id) ?? { id, ...unknown },
  );
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
