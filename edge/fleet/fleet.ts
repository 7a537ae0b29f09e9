/**
 * The live workers of all models and what is in flight on each: one state machine over a clock,
 * held in process on Node and in a Durable Object on Cloudflare. Requests wait here for their turn;
 * nothing here fetches.
 */
import { strict as assert } from 'node:assert';
import { heartbeatSchema } from '../../gpu-worker/protocol/heartbeat.ts';
import { announcementOf } from './announcement-of.ts';
import type { Accepted, Fleet } from './fleet-contract.ts';
import { newestThatFit } from './fleet-snapshot.ts';
import type { FleetSnapshot } from './fleet-snapshot.ts';
import type { Computed, NotPlaced, PlaceInput, PlaceResult, Turn } from './placement-contract.ts';
import { Places } from './places.ts';
import { Refusals } from './refusals.ts';
import { isOlderStart, isSameStart } from './starts.ts';
import { steadyClock } from './steady-clock.ts';
import { WaitingRequests } from './waiting-requests.ts';
import type {
  RefusedAnnouncement,
  ServedModel,
  StaticWorker,
  WorkerStatus,
} from './worker-contract.ts';
import {
  backoffMs,
  learnRate,
  learnRefusal,
  newEntry,
  regainSlots,
  servedBy,
  stateAt,
  statusAt,
} from './worker-entry.ts';
import type { Announcement, WorkerEntry } from './worker-entry.ts';
import { refuseWorkerUrl } from './worker-url.ts';

/** Ids of workers that a fleet remembers, live or lost; the lost ones are forgotten first. */
const workersMax = 1_000;
const forgetLostAfterMs = 60 * 60_000;
/** Workers that the operator may add; each is probed every few seconds. */
const addedMax = 100;
/** While requests wait, those that have waited too long are looked for this often. */
const tickMs = 250;

export interface FleetOptions {
  readonly clock: { nowMs(): number };
  readonly snapshot?: FleetSnapshot;
  /** Static workers of the settings; the operator may add others. */
  readonly configured?: readonly StaticWorker[];
  /** Patterns of the hosts that workers may have; any host where there is none. */
  readonly hosts?: readonly string[];
  /**
   * Called when the snapshot changes, which heartbeats alone do not do. `soon` allows a second of
   * delay, so that many new workers make no more work than one; the snapshot is then made late too.
   */
  readonly save?: (snapshot: () => FleetSnapshot, urgency: 'now' | 'soon') => void;
  /** Called with the number of requests that wait, whenever that changes. */
  readonly onWaiting?: (count: number) => void;
  /** Called whenever a worker has said what it serves. */
  readonly onAnnounced?: (worker: string, served: readonly ServedModel[]) => void;
}

/** The fleet in this process; beside `Fleet` it takes what probes of static workers found. */
export class LocalFleet implements Fleet {
  readonly #options: FleetOptions;
  readonly #clock: ReturnType<typeof steadyClock>;
  readonly #workers = new Map<string, WorkerEntry>();
  readonly #drained: Set<string>;
  /** Static workers that the operator added; what the settings say of one goes before. */
  #added: readonly StaticWorker[];
  readonly #refusals = new Refusals();
  readonly #places: Places;
  readonly #waiting: WaitingRequests;
  readonly #ticks: { start(): void };
  #closed = false;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#clock = steadyClock(options.clock);
    const { snapshot } = options;
    this.#drained = new Set(snapshot?.drained);
    this.#added = (snapshot?.added ?? []).filter(({ id }) => !isIn(this.#configured, id));
    this.#restore(snapshot?.workers ?? []);
    this.#places = new Places({
      workers: this.#workers,
      clock: this.#clock,
      staticWorkers: () => this.staticWorkers(),
    });
    const waiting = new WaitingRequests(this.#places, this.#clock, options.onWaiting);
    this.#waiting = waiting;
    this.#ticks = ticksWhile(
      () => waiting.size > 0,
      () => waiting.tick(),
    );
  }

  get #configured(): readonly StaticWorker[] {
    return this.#options.configured ?? [];
  }

  get #hosts(): readonly string[] {
    return this.#options.hosts ?? [];
  }

  /** A worker of the settings may be configured no longer; its probe brings it back if it is. */
  #restore(announcements: readonly Announcement[]): void {
    for (const announcement of announcements) {
      const { id, url } = announcement;
      if (announcement.static || refuseWorkerUrl(url, this.#hosts) !== null) continue;
      this.#workers.set(id, newEntry(announcement, this.#drained.has(id), this.#clock.nowMs()));
    }
  }

  /** The static workers of the settings and of the operator. */
  staticWorkers(): readonly StaticWorker[] {
    return [...this.#configured, ...this.#added];
  }

  /** Takes what a heartbeat or a probe says of a worker. */
  announce(announcement: Announcement): Accepted {
    const nowMs = this.#clock.nowMs();
    const { id } = announcement;
    const known = this.#workers.get(id);
    // A start that seems older may be of a worker whose clock was set back: the younger one
    // counts only as long as it is heard of.
    const isAlive = known !== undefined && stateAt(known, nowMs) !== 'lost';
    if (isAlive && !announcement.static && isOlderStart(announcement, known.announcement)) {
      return refused(`a younger worker ${id} has announced itself`);
    }
    if (known === undefined) return this.#welcome(announcement, nowMs);
    if (!isSameStart(announcement, known.announcement)) known.flights.clear();
    else if (announcement.state === 'ready') regainSlots(known);
    const changed = JSON.stringify(known.announcement) !== JSON.stringify(announcement);
    known.announcement = announcement;
    known.seenAtMs = nowMs;
    known.flights.forgetOld(nowMs);
    if (changed) this.#save('soon');
    this.#options.onAnnounced?.(id, servedBy(known));
    return accepted;
  }

  #welcome(announcement: Announcement, nowMs: number): Accepted {
    const { id } = announcement;
    forgetLost(this.#workers, nowMs);
    if (this.#workers.size >= workersMax) return refused('the fleet is full');
    const entry = newEntry(announcement, this.#drained.has(id), nowMs);
    this.#workers.set(id, entry);
    this.#save('soon');
    this.#options.onAnnounced?.(id, servedBy(entry));
    return accepted;
  }

  async place(input: PlaceInput): Promise<PlaceResult> {
    const { turn } = input;
    this.#noteRefusals(input, this.#clock.nowMs());
    if (this.#closed) return { kind: 'overloaded', reason: 'closing', retryAfterSeconds: 1 };
    if (turn === null) return this.#places.placeNow(input);
    const placing = this.#waiting.add({ ...input, turn });
    this.#ticks.start();
    return await placing;
  }

  /** Passes over the workers that refused the request, or had no slot for it after all. */
  #noteRefusals({ requestId, exclude, turn }: PlaceInput, nowMs: number): void {
    for (const id of exclude) {
      const refusing = this.#workers.get(id);
      refusing?.flights.finish(requestId);
      if (refusing) refusing.backoffUntilMs = nowMs + backoffMs;
    }
    const busy = turn?.busyWorker ? this.#workers.get(turn.busyWorker) : undefined;
    if (busy === undefined) return;
    busy.flights.finish(requestId);
    busy.fullUntilMs = nowMs + backoffMs;
    learnRefusal(busy);
  }

  async expectedRefusal(input: {
    readonly model: string;
    readonly turn: Turn;
  }): Promise<NotPlaced | null> {
    return this.#waiting.expectedRefusal(input);
  }

  async refusing(input: {
    readonly models: readonly string[];
    readonly turn: Turn;
  }): Promise<readonly string[]> {
    const { models, turn } = input;
    const smallest = { requestId: '', promptTokens: 0, outputTokensMax: 0, prefixHits: [] };
    return models.filter(
      (model) => !this.#waiting.couldTake({ ...smallest, exclude: [], model, turn }),
    );
  }

  async withdraw(requestId: string): Promise<void> {
    this.#waiting.withdraw(requestId);
  }

  /** Acts on the passing of time; the fleet calls it by itself while requests wait. */
  tick(): void {
    this.#waiting.tick();
  }

  /** Refuses all that wait, and all that would have to from now on. */
  close(): void {
    this.#closed = true;
    this.#waiting.refuseAll();
  }

  async started(requestId: string, worker: string): Promise<void> {
    const entry = this.#workers.get(worker);
    const sample = entry?.flights.start(requestId, this.#clock.nowMs());
    if (entry && sample) learnRate(entry, sample);
  }

  async finished(requestId: string, worker: string, computed: Computed | null): Promise<void> {
    const entry = this.#workers.get(worker);
    const flight = entry?.flights.finish(requestId) ?? null;
    if (entry === undefined || flight === null) return;
    const { model, tenant, cost, slots, placedAtMs } = flight;
    if (tenant !== null && computed !== null) {
      const { promptTokens, outputTokens } = computed;
      const tokens = promptTokens + outputTokens;
      const elapsedMs = this.#clock.nowMs() - placedAtMs;
      entry.rate.add({ tokens, outputTokens, slots, elapsedMs });
      this.#waiting.correct({ model, tenant, charged: cost, computed: tokens });
    }
    this.#waiting.goOn();
  }

  async heartbeat(body: unknown): Promise<Accepted> {
    const parsed = heartbeatSchema.safeParse(body);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      assert(issue !== undefined, 'what fits no schema has an issue');
      return this.#refuse(body, `${issue.path.join('.')}: ${issue.message}`);
    }
    const { id, load, url } = parsed.data;
    const refusal = refuseWorkerUrl(url, this.#hosts);
    if (refusal !== null) return this.#refuse(body, refusal);
    if (isIn(this.staticWorkers(), id) || this.#workers.get(id)?.announcement.static) {
      return this.#refuse(body, `${id} is the name of a configured worker`);
    }
    const answer = this.announce(announcementOf(parsed.data));
    if (answer.reason !== null) return this.#refuse(body, answer.reason);
    this.#refusals.forget(parsed.data);
    if (load !== null) {
      const { tokens_in_flight: tokens, waiting_sequences: queued } = load;
      const counts = { tokens, requests: load.running_sequences + queued, waiting: queued };
      this.#workers.get(id)?.flights.reconcile(counts, this.#clock.nowMs());
    }
    this.#waiting.goOn();
    return answer;
  }

  /** Refuses a heartbeat and keeps why, for the operator. */
  #refuse(heartbeat: unknown, reason: string): Accepted {
    this.#refusals.note(heartbeat, { reason, nowMs: this.#options.clock.nowMs() });
    return refused(reason);
  }

  /** Requests that wait for their turn, of all models. */
  waitingRequests(): number {
    return this.#waiting.size;
  }

  async status(): Promise<WorkerStatus[]> {
    const nowMs = this.#clock.nowMs();
    const wallMs = this.#options.clock.nowMs();
    return [...this.#workers.values()].map((entry) => {
      const status = statusAt(entry, nowMs);
      return { ...status, seenAtMs: wallMs - (nowMs - status.seenAtMs) };
    });
  }

  async refusals(): Promise<readonly RefusedAnnouncement[]> {
    return this.#refusals.newestFirst();
  }

  async drain(worker: string, draining: boolean): Promise<boolean> {
    const entry = this.#workers.get(worker);
    if (entry === undefined) return false;
    entry.drained = draining;
    if (draining) this.#drained.add(worker);
    else this.#drained.delete(worker);
    this.#save('now');
    this.#waiting.tick();
    return true;
  }

  async addStatic(worker: StaticWorker): Promise<Accepted> {
    const { id } = worker;
    const refusal = refuseWorkerUrl(worker.url, this.#hosts);
    if (refusal !== null) return refused(refusal);
    if (isIn(this.#configured, id)) return refused(`${id} is in EDGE_STATIC_WORKERS`);
    if (this.#workers.get(id)?.announcement.static === false) {
      return refused(`${id} is the name of a worker that announces itself`);
    }
    const others = this.#added.filter((each) => each.id !== id);
    if (others.length >= addedMax) return refused('the fleet is full');
    this.#added = [...others, worker];
    this.#save('now');
    return accepted;
  }

  async removeStatic(id: string): Promise<boolean> {
    if (!isIn(this.#added, id)) return false;
    this.#added = this.#added.filter((each) => each.id !== id);
    this.#workers.delete(id);
    this.#drained.delete(id);
    this.#save('now');
    return true;
  }

  #save(urgency: 'now' | 'soon'): void {
    const snapshot = (): FleetSnapshot => ({
      workers: newestThatFit(this.#workers),
      drained: [...this.#drained],
      added: this.#added,
    });
    this.#options.save?.(snapshot, urgency);
  }
}

const accepted: Accepted = { accepted: true, reason: null };

function refused(reason: string): Accepted {
  return { accepted: false, reason };
}

/**
 * An interval that is there only while it is needed: it would keep a process and an object awake.
 */
function ticksWhile(isNeeded: () => boolean, act: () => void): { start(): void } {
  let timer: ReturnType<typeof setInterval> | undefined;
  const tick = (): void => {
    act();
    if (isNeeded()) return;
    clearInterval(timer);
    timer = undefined;
  };
  return {
    start() {
      if (timer === undefined && isNeeded()) timer = setInterval(tick, tickMs);
    },
  };
}

function isIn(workers: readonly StaticWorker[], id: string): boolean {
  return workers.some((worker) => worker.id === id);
}

function forgetLost(workers: Map<string, WorkerEntry>, nowMs: number): void {
  for (const [id, entry] of workers) {
    const full = workers.size >= workersMax;
    const silentMs = nowMs - entry.seenAtMs;
    if (silentMs > forgetLostAfterMs || (full && stateAt(entry, nowMs) === 'lost'))
      workers.delete(id);
  }
}
