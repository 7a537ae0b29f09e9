/**
 * The live workers of all models and what is in flight on each: one state machine over a clock,
 * held in process on Node and in a Durable Object on Cloudflare. Requests wait here for their turn;
 * nothing here fetches.
 */
import { heartbeatSchema } from '../../gpu-worker/protocol/heartbeat.ts';
import type { Heartbeat } from '../../gpu-worker/protocol/heartbeat.ts';
import type { Fleet } from './fleet-contract.ts';
import type { ServedModel, StaticWorker, WorkerStatus } from './worker-contract.ts';
import { createPlaces } from './places.ts';
import { Refusals } from './refusals.ts';
import { isOlderStart, isSameStart } from './starts.ts';
import { steadyClock } from './steady-clock.ts';
import { WaitingRequests } from './waiting-requests.ts';
import { refuseWorkerUrl } from './worker-url.ts';
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

/** Ids that a fleet remembers, live or lost; the lost ones are forgotten first. */
const workersMax = 1_000;
const forgetLostAfterMs = 60 * 60_000;
/** Each is probed every few seconds. */
const addedMax = 100;
/** Of the workers in a snapshot, as JSON: 1,000 usual ones fit, and an object's value may have 2 MB. */
const snapshotCharactersMax = 400_000;
/** While requests wait, those whose time is over are looked for this often. */
const tickMs = 250;

/**
 * What outlives the process: who was there and who is drained. After a restart the last known
 * workers serve at once instead of after their next heartbeat; one that is gone refuses the
 * connection, and the next is tried.
 */
export interface FleetSnapshot {
  readonly workers: readonly Announcement[];
  readonly drained: readonly string[];
  /** With their tokens: keep it where secrets are kept. Absent before there were any. */
  readonly added?: readonly StaticWorker[];
}

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
  /** Called whenever a worker has said what it serves. */
  readonly onAnnounced?: (worker: string, served: readonly ServedModel[]) => void;
}

/** `Fleet` and the door for workers that do not announce themselves. */
export interface LocalFleet extends Fleet {
  announce(announcement: Announcement): { accepted: boolean; reason: string | null };
  /** Of the settings and of the operator. */
  staticWorkers(): readonly StaticWorker[];
  /** Sees to what time alone changes; does so by itself while requests wait. */
  tick(): void;
  /** Refuses all that wait, and all that would have to from now on. */
  close(): void;
}

export function createFleet(options: FleetOptions): LocalFleet {
  const clock = steadyClock(options.clock);
  const workers = new Map<string, WorkerEntry>();
  const drained = new Set(options.snapshot?.drained ?? []);
  const { configured = [], hosts = [] } = options;
  // What the settings say of a worker goes before what the operator once added.
  let added = (options.snapshot?.added ?? []).filter(({ id }) => !isIn(configured, id));
  for (const announcement of options.snapshot?.workers ?? []) {
    // A configured worker may be configured no longer; its probe brings it back if it is.
    if (announcement.static || refuseWorkerUrl(announcement.url, hosts) !== null) continue;
    workers.set(
      announcement.id,
      newEntry(announcement, drained.has(announcement.id), clock.nowMs()),
    );
  }

  const snapshot = (): FleetSnapshot => ({
    workers: newestThatFit(workers),
    drained: [...drained],
    added,
  });
  const save = (urgency: 'now' | 'soon'): void => options.save?.(snapshot, urgency);

  const staticWorkers = (): readonly StaticWorker[] => [...configured, ...added];
  const refusals = new Refusals();
  const places = createPlaces({ workers, clock, staticWorkers });
  const waiting = new WaitingRequests(places, clock);
  const ticks = ticksWhile(
    () => waiting.size > 0,
    () => waiting.tick(),
  );
  let closed = false;

  const announce: LocalFleet['announce'] = (announcement) => {
    const nowMs = clock.nowMs();
    const known = workers.get(announcement.id);
    // A start that seems older may be of a worker whose clock was set back: the younger one counts
    // only as long as it is heard of.
    const isAlive = known !== undefined && stateAt(known, nowMs) !== 'lost';
    if (isAlive && !announcement.static && isOlderStart(announcement, known.announcement)) {
      return {
        accepted: false,
        reason: `a younger worker ${announcement.id} has announced itself`,
      };
    }
    if (known === undefined) {
      forgetLost(workers, nowMs);
      if (workers.size >= workersMax) return { accepted: false, reason: 'the fleet is full' };
      const entry = newEntry(announcement, drained.has(announcement.id), nowMs);
      workers.set(announcement.id, entry);
      save('soon');
      options.onAnnounced?.(announcement.id, servedBy(entry));
      return { accepted: true, reason: null };
    }
    if (!isSameStart(announcement, known.announcement)) known.flights.clear();
    else if (announcement.state === 'ready') regainSlots(known);
    const changed = JSON.stringify(known.announcement) !== JSON.stringify(announcement);
    known.announcement = announcement;
    known.seenAtMs = nowMs;
    known.flights.forgetOld(nowMs);
    if (changed) save('soon');
    options.onAnnounced?.(announcement.id, servedBy(known));
    return { accepted: true, reason: null };
  };

  return {
    announce,
    staticWorkers,

    async place(input) {
      const { turn, requestId } = input;
      const nowMs = clock.nowMs();
      for (const id of input.exclude) {
        const refused = workers.get(id);
        refused?.flights.finish(requestId);
        if (refused) refused.backoffUntilMs = nowMs + backoffMs;
      }
      const busy = turn?.busyWorker ? workers.get(turn.busyWorker) : undefined;
      if (busy) {
        busy.flights.finish(requestId);
        busy.fullUntilMs = nowMs + backoffMs;
        learnRefusal(busy);
      }
      if (closed) return { kind: 'overloaded', reason: 'closing', retryAfterSeconds: 1 };
      if (turn === null) return places.placeNow(input);
      const placing = waiting.add({ ...input, turn });
      ticks.start();
      return await placing;
    },

    async expectedRefusal(input) {
      return waiting.expectedRefusal(input);
    },

    async withdraw(requestId) {
      waiting.withdraw(requestId);
    },

    tick: () => waiting.tick(),

    close() {
      closed = true;
      waiting.refuseAll();
    },

    async started(requestId, worker) {
      const entry = workers.get(worker);
      const sample = entry?.flights.start(requestId, clock.nowMs());
      if (entry && sample) learnRate(entry, sample);
    },

    async finished(requestId, worker, computed) {
      const entry = workers.get(worker);
      const flight = entry?.flights.finish(requestId) ?? null;
      if (entry === undefined || flight === null) return;
      const { model, tenant, cost, slots, placedAtMs } = flight;
      if (tenant !== null && computed !== null) {
        const { promptTokens, outputTokens } = computed;
        const tokens = promptTokens + outputTokens;
        entry.rate.add({ tokens, outputTokens, slots, elapsedMs: clock.nowMs() - placedAtMs });
        waiting.correct({ model, tenant, charged: cost, computed: tokens });
      }
      waiting.goOn();
    },

    async heartbeat(body) {
      const refuse = (reason: string) => {
        refusals.note(body, { reason, nowMs: options.clock.nowMs() });
        return { accepted: false, reason };
      };
      const parsed = heartbeatSchema.safeParse(body);
      if (!parsed.success) {
        const [issue] = parsed.error.issues;
        return refuse(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
      }
      const { id, load, url } = parsed.data;
      const refusal = refuseWorkerUrl(url, hosts);
      if (refusal !== null) return refuse(refusal);
      if (isIn(staticWorkers(), id) || workers.get(id)?.announcement.static) {
        return refuse(`${id} is the name of a configured worker`);
      }
      const answer = announce(announcementOf(parsed.data));
      if (answer.reason !== null) return refuse(answer.reason);
      refusals.forget(parsed.data);
      if (load !== null) {
        const { tokens_in_flight: tokens, waiting_sequences: queued } = load;
        const requests = load.running_sequences + queued;
        workers.get(id)?.flights.reconcile({ tokens, requests, waiting: queued }, clock.nowMs());
      }
      waiting.goOn();
      return answer;
    },

    async status(): Promise<WorkerStatus[]> {
      const nowMs = clock.nowMs();
      const wallMs = options.clock.nowMs();
      return [...workers.values()].map((entry) => {
        const status = statusAt(entry, nowMs);
        return { ...status, seenAtMs: wallMs - (nowMs - status.seenAtMs) };
      });
    },

    refusals: async () => refusals.newestFirst(),

    async drain(worker, draining) {
      const entry = workers.get(worker);
      if (entry === undefined) return false;
      entry.drained = draining;
      if (draining) drained.add(worker);
      else drained.delete(worker);
      save('now');
      waiting.tick();
      return true;
    },

    async addStatic(worker) {
      const { id } = worker;
      const refusal = refuseWorkerUrl(worker.url, hosts);
      if (refusal !== null) return { accepted: false, reason: refusal };
      if (isIn(configured, id)) {
        return { accepted: false, reason: `${id} is in EDGE_STATIC_WORKERS` };
      }
      if (workers.get(id)?.announcement.static === false) {
        return { accepted: false, reason: `${id} is the name of a worker that announces itself` };
      }
      const others = added.filter((each) => each.id !== id);
      if (others.length >= addedMax) return { accepted: false, reason: 'the fleet is full' };
      added = [...others, worker];
      save('now');
      return { accepted: true, reason: null };
    },

    async removeStatic(id) {
      if (!isIn(added, id)) return false;
      added = added.filter((each) => each.id !== id);
      workers.delete(id);
      drained.delete(id);
      save('now');
      return true;
    },
  };
}

/** An interval that is there only while it is needed: it would keep a process and an object awake. */
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

function announcementOf(heartbeat: Heartbeat): Announcement {
  const { id, url, epoch, start, models, state, capacity } = heartbeat;
  return {
    id,
    url: url.replace(/\/+$/, ''),
    epoch,
    ...(start !== undefined && { start }),
    state: state === 'ready' || state === 'draining' ? state : 'failing',
    models: models.map((model) => model.id),
    served: models.map((model) => ({
      id: model.id,
      contextLength: model.context_length,
      revision: model.revision,
      tokenizer: model.tokenizer,
    })),
    static: false,
    ...(capacity && { slots: capacity.sequences, waiting: capacity.waiting }),
    hasJournal: true,
    noDiscountReason: null,
  };
}

/** Announcements as long as there is room for them, those of the latest heartbeats first. */
function newestThatFit(workers: ReadonlyMap<string, WorkerEntry>): Announcement[] {
  const fitting: Announcement[] = [];
  let characters = 0;
  for (const { announcement } of [...workers.values()].toSorted(
    (a, b) => b.seenAtMs - a.seenAtMs,
  )) {
    characters += JSON.stringify(announcement).length;
    if (characters > snapshotCharactersMax) break;
    fitting.push(announcement);
  }
  return fitting;
}

function forgetLost(workers: Map<string, WorkerEntry>, nowMs: number): void {
  for (const [id, entry] of workers) {
    const full = workers.size >= workersMax;
    const silentMs = nowMs - entry.seenAtMs;
    if (silentMs > forgetLostAfterMs || (full && stateAt(entry, nowMs) === 'lost'))
      workers.delete(id);
  }
}
