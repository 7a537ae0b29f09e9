/**
 * Tokens and requests in flight on one worker, counted when a request is placed and before it is
 * sent: a figure one second old would send a burst of requests to the worker that was idle then.
 */

/**
 * A request that generates takes its slot of every step without adding to the queue. It counts as
 * one block, so that of two workers without a queue the one with fewer streams takes the next.
 */
export const runningTokens = 64;

/** A request whose end nobody reported is forgotten after this long: no answer takes longer. */
export const flightMsMax = 30 * 60_000;

/** A request placed this recently may be missing from a heartbeat that is on its way. */
const settledMs = 2_000;

/** The room on a worker that a request takes. */
export interface Taken {
  readonly model: string;
  /** Prompt tokens that the worker is expected to compute. */
  readonly promptTokens: number;
  /** The tenant whose slots the request takes; null if it takes none. */
  readonly tenant: string | null;
  readonly slots: number;
  /** Tokens that its tenant was charged for its turn. */
  readonly cost: number;
}

export interface Flight extends Taken {
  readonly placedAtMs: number;
  /**
   * Tokens in front of it and its own, at placement: what the worker computes until its first
   * token.
   */
  readonly queuedTokens: number;
  started: boolean;
}

/** The time to the first token of a request, from which the worker's speed is learned. */
export interface SpeedSample {
  readonly tokens: number;
  readonly elapsedMs: number;
}

/** A worker's own counts. */
export interface WorkerLoad {
  readonly tokens: number;
  /** Requests that run or wait. */
  readonly requests: number;
  readonly waiting: number;
}

export class Flights {
  readonly #flights = new Map<string, Flight>();
  #tokens = 0;
  /**
   * Tokens that the worker counted beyond ours at its last heartbeat; below 0 if it counted fewer.
   */
  #drift = 0;
  #slots = 0;
  /** Slots that the worker counted beyond ours at its last heartbeat. */
  #slotDrift = 0;
  /** Slots that we counted and the worker did not, at its last heartbeat. */
  #unseenSlots = 0;
  readonly #slotsByTenant = new Map<string, number>();

  get requests(): number {
    return this.#flights.size;
  }

  get tokens(): number {
    return Math.max(0, this.#tokens + this.#drift);
  }

  /** Slots taken on the worker, by us and by others. */
  get slots(): number {
    return Math.max(0, this.#slots + this.#slotDrift);
  }

  slotsOf(tenant: string): number {
    return this.#slotsByTenant.get(tenant) ?? 0;
  }

  place(requestId: string, taken: Taken, nowMs: number): void {
    this.finish(requestId);
    const queuedTokens = this.tokens + taken.promptTokens;
    this.#flights.set(requestId, { ...taken, placedAtMs: nowMs, queuedTokens, started: false });
    this.#tokens += taken.promptTokens;
    this.#countSlots(taken, 1);
  }

  /** Notes the first token of a request; null if the request is unknown or had started before. */
  start(requestId: string, nowMs: number): SpeedSample | null {
    const flight = this.#flights.get(requestId);
    if (flight === undefined || flight.started) return null;
    flight.started = true;
    this.#tokens += runningTokens - flight.promptTokens;
    return { tokens: flight.queuedTokens, elapsedMs: nowMs - flight.placedAtMs };
  }

  /**
   * Ends a flight.
   * @returns the flight; null if it had ended before.
   */
  finish(requestId: string): Flight | null {
    const flight = this.#flights.get(requestId);
    if (flight === undefined) return null;
    this.#flights.delete(requestId);
    this.#tokens -= flight.started ? runningTokens : flight.promptTokens;
    this.#countSlots(flight, -1);
    return flight;
  }

  /** Takes the worker's own count, to find what others sent there and what ended unreported. */
  reconcile(load: WorkerLoad, nowMs: number): void {
    let recentTokens = 0;
    let queued = 0;
    let recentSlots = 0;
    // Flights lie in the order of their placement, so the forgotten ones come first.
    for (const [requestId, flight] of this.#flights) {
      const ageMs = nowMs - flight.placedAtMs;
      const unknownToWorker = load.requests === 0 && ageMs > settledMs;
      if (ageMs > flightMsMax || unknownToWorker) this.finish(requestId);
      else if (ageMs <= settledMs) {
        recentTokens += flight.started ? 0 : flight.promptTokens;
        recentSlots += flight.slots;
      } else if (!flight.started) queued += flight.promptTokens;
    }
    this.#reconcileSlots(load, recentSlots);
    // Only the queue is compared: the worker counts a running request as next to nothing.
    this.#drift = Math.max(load.tokens - recentTokens - queued, -queued);
    if (Math.abs(this.#drift) <= runningTokens * this.#flights.size) this.#drift = 0;
  }

  /**
   * Answers that began or ended while the heartbeat was on its way are counted by one side only. So
   * what the worker has beyond ours matters only as far as it has answers waiting, which others
   * sent, and what it lacks only if it lacked as much before: then the end of some was not
   * reported.
   */
  #reconcileSlots({ requests, waiting }: WorkerLoad, recent: number): void {
    const settled = this.#slots - recent;
    const beyond = Math.max(0, requests - this.#slots);
    const unseen = Math.max(0, settled - requests);
    this.#slotDrift = Math.min(beyond, waiting) - Math.min(unseen, this.#unseenSlots);
    this.#unseenSlots = unseen;
  }

  #countSlots({ tenant, slots }: Taken, sign: 1 | -1): void {
    if (tenant === null) return;
    this.#slots += sign * slots;
    const left = this.slotsOf(tenant) + sign * slots;
    if (left > 0) this.#slotsByTenant.set(tenant, left);
    else this.#slotsByTenant.delete(tenant);
  }

  /** Forgets old flights; called for workers that send no counts of their own. */
  forgetOld(nowMs: number): void {
    for (const [requestId, flight] of this.#flights) {
      if (nowMs - flight.placedAtMs <= flightMsMax) return;
      this.finish(requestId);
    }
  }

  clear(): void {
    this.#flights.clear();
    this.#slotsByTenant.clear();
    this.#tokens = 0;
    this.#drift = 0;
    this.#slots = 0;
    this.#slotDrift = 0;
    this.#unseenSlots = 0;
  }
}
