/**
 * The live workers of all models and what is in flight on each: one state machine over a clock,
 * held in process on Node and in a Durable Object on Cloudflare. Nothing here waits or fetches.
 */
import { heartbeatSchema } from '../../gpu-worker/protocol.ts';
import type { Heartbeat } from '../../gpu-worker/protocol.ts';
import type {
  Fleet,
  PlaceInput,
  PlaceResult,
  ServedModel,
  StaticWorker,
  WorkerStatus,
} from '../services.ts';
import { chooseWorker } from './placement.ts';
import { cacheEpochOf, isOlderStart, isSameStart } from './starts.ts';
import { steadyClock } from './steady-clock.ts';
import { refuseWorkerUrl } from './worker-url.ts';
import {
  backoffMs,
  heartbeatMs,
  learnRate,
  newEntry,
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
  /** Called when the snapshot changes, which heartbeats alone do not do. */
  readonly save?: (snapshot: FleetSnapshot) => void;
  /** Called whenever a worker has said what it serves. */
  readonly onAnnounced?: (worker: string, served: readonly ServedModel[]) => void;
}

/** `Fleet` and the door for workers that do not announce themselves. */
export interface LocalFleet extends Fleet {
  announce(said: Announcement): { accepted: boolean; reason: string | null };
  /** Of the settings and of the operator. */
  staticWorkers(): readonly StaticWorker[];
}

export function createFleet(options: FleetOptions): LocalFleet {
  const clock = steadyClock(options.clock);
  const workers = new Map<string, WorkerEntry>();
  const drained = new Set(options.snapshot?.drained ?? []);
  const { configured = [], hosts = [] } = options;
  // What the settings say of a worker goes before what the operator once added.
  let added = (options.snapshot?.added ?? []).filter(({ id }) => !isIn(configured, id));
  for (const said of options.snapshot?.workers ?? []) {
    // A configured worker may be configured no longer; its probe brings it back if it is.
    if (said.static || refuseWorkerUrl(said.url, hosts) !== null) continue;
    workers.set(said.id, newEntry(said, drained.has(said.id), clock.nowMs()));
  }

  const save = (): void =>
    options.save?.({
      workers: [...workers.values()].map((entry) => entry.said),
      drained: [...drained],
      added,
    });

  const staticWorkers = (): readonly StaticWorker[] => [...configured, ...added];

  const announce: LocalFleet['announce'] = (said) => {
    const nowMs = clock.nowMs();
    const known = workers.get(said.id);
    // A start that seems older may be of a worker whose clock was set back: the younger one counts
    // only as long as it is heard of.
    const isAlive = known !== undefined && stateAt(known, nowMs) !== 'lost';
    if (isAlive && !said.static && isOlderStart(said, known.said)) {
      return { accepted: false, reason: `a younger worker ${said.id} has announced itself` };
    }
    if (known === undefined) {
      forgetLost(workers, nowMs);
      if (workers.size >= workersMax) return { accepted: false, reason: 'the fleet is full' };
      const entry = newEntry(said, drained.has(said.id), nowMs);
      workers.set(said.id, entry);
      save();
      options.onAnnounced?.(said.id, servedBy(entry));
      return { accepted: true, reason: null };
    }
    if (!isSameStart(said, known.said)) known.flights.clear();
    const changed = JSON.stringify(known.said) !== JSON.stringify(said);
    known.said = said;
    known.seenAtMs = nowMs;
    known.flights.forgetOld(nowMs);
    if (changed) save();
    options.onAnnounced?.(said.id, servedBy(known));
    return { accepted: true, reason: null };
  };

  return {
    announce,
    staticWorkers,

    async place(input) {
      const nowMs = clock.nowMs();
      for (const id of input.exclude) {
        const refused = workers.get(id);
        refused?.flights.finish(input.requestId);
        if (refused) refused.backoffUntilMs = nowMs + backoffMs;
      }
      const placed = place(workers, input, nowMs);
      if (placed.kind !== 'placed') return placed;
      const known = staticWorkers().find(({ id }) => id === placed.worker);
      return { ...placed, ownToken: known?.ownToken ?? null };
    },

    async started(requestId, worker) {
      const entry = workers.get(worker);
      const sample = entry?.flights.start(requestId, clock.nowMs());
      if (entry && sample) learnRate(entry, sample);
    },

    async finished(requestId, worker) {
      workers.get(worker)?.flights.finish(requestId);
    },

    async heartbeat(body) {
      const parsed = heartbeatSchema.safeParse(body);
      if (!parsed.success) {
        const [issue] = parsed.error.issues;
        return {
          accepted: false,
          reason: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
        };
      }
      const { id, load, url } = parsed.data;
      const refusal = refuseWorkerUrl(url, hosts);
      if (refusal !== null) return { accepted: false, reason: refusal };
      if (isIn(staticWorkers(), id) || workers.get(id)?.said.static) {
        return { accepted: false, reason: `${id} is the name of a configured worker` };
      }
      const answer = announce(announcementOf(parsed.data));
      if (answer.accepted && load !== null) {
        const requests = load.running_sequences + load.waiting_sequences;
        workers
          .get(id)
          ?.flights.reconcile({ tokens: load.tokens_in_flight, requests }, clock.nowMs());
      }
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

    async drain(worker, draining) {
      const entry = workers.get(worker);
      if (entry === undefined) return false;
      entry.drained = draining;
      if (draining) drained.add(worker);
      else drained.delete(worker);
      save();
      return true;
    },

    async addStatic(worker) {
      const { id } = worker;
      const refusal = refuseWorkerUrl(worker.url, hosts);
      if (refusal !== null) return { accepted: false, reason: refusal };
      if (isIn(configured, id)) {
        return { accepted: false, reason: `${id} is in EDGE_STATIC_WORKERS` };
      }
      if (workers.get(id)?.said.static === false) {
        return { accepted: false, reason: `${id} is the name of a worker that announces itself` };
      }
      const others = added.filter((each) => each.id !== id);
      if (others.length >= addedMax) return { accepted: false, reason: 'the fleet is full' };
      added = [...others, worker];
      save();
      return { accepted: true, reason: null };
    },

    async removeStatic(id) {
      if (!isIn(added, id)) return false;
      added = added.filter((each) => each.id !== id);
      workers.delete(id);
      drained.delete(id);
      save();
      return true;
    },
  };
}

function isIn(workers: readonly StaticWorker[], id: string): boolean {
  return workers.some((worker) => worker.id === id);
}

type Placed = Extract<PlaceResult, { kind: 'placed' }>;
type Chosen = Omit<Placed, 'ownToken'> | Exclude<PlaceResult, Placed>;

function place(workers: Map<string, WorkerEntry>, input: PlaceInput, nowMs: number): Chosen {
  const serving = [...workers.values()].filter((entry) => entry.said.models.includes(input.model));
  const ready = serving.filter(
    (entry) => stateAt(entry, nowMs) === 'ready' && !input.exclude.includes(entry.said.id),
  );
  const rested = ready.filter((entry) => entry.backoffUntilMs <= nowMs);
  const candidates = (rested.length > 0 ? rested : ready).map((entry) => ({
    entry,
    worker: entry.said.id,
    tokensInFlight: entry.flights.tokens,
    cachedTokens: cachedTokens(entry, input),
    tokensPerSecond: entry.tokensPerSecond,
  }));
  const chosen = chooseWorker(candidates, {
    promptTokens: input.promptTokens,
    tieKey: input.prefixKey ?? input.requestId,
  });
  if (chosen === null) {
    const reason = whyNone(serving, input, nowMs);
    const waitMs = reason === 'all-refused' ? backoffMs : heartbeatMs;
    return { kind: 'no-worker', reason, retryAfterSeconds: Math.ceil(waitMs / 1_000) };
  }
  const { said, flights } = chosen.entry;
  const uncached = Math.max(0, input.promptTokens - chosen.cachedTokens);
  flights.place(input.requestId, uncached, nowMs);
  return {
    kind: 'placed',
    worker: said.id,
    url: said.url,
    epoch: cacheEpochOf(said),
    reportsCachedTokens: said.noDiscountReason === null,
    hasJournal: said.hasJournal,
  };
}

function whyNone(serving: readonly WorkerEntry[], input: PlaceInput, nowMs: number) {
  if (serving.some((entry) => input.exclude.includes(entry.said.id))) return 'all-refused';
  return serving.some((entry) => stateAt(entry, nowMs) !== 'lost') ? 'none-ready' : 'none-serves';
}

/** What was cached under another start is gone. */
function cachedTokens(entry: WorkerEntry, input: PlaceInput): number {
  const hit = input.prefixHits.find((each) => each.worker === entry.said.id);
  return hit?.epoch === cacheEpochOf(entry.said) ? Math.min(hit.tokens, input.promptTokens) : 0;
}

function announcementOf(heartbeat: Heartbeat): Announcement {
  const { id, url, epoch, start, models, state } = heartbeat;
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
    hasJournal: true,
    noDiscountReason: null,
  };
}

function forgetLost(workers: Map<string, WorkerEntry>, nowMs: number): void {
  for (const [id, entry] of workers) {
    const full = workers.size >= workersMax;
    const silentMs = nowMs - entry.seenAtMs;
    if (silentMs > forgetLostAfterMs || (full && stateAt(entry, nowMs) === 'lost'))
      workers.delete(id);
  }
}
