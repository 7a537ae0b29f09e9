/** Announces the workers that do not do so themselves to the fleet, as their probes show them. */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { StaticWorker } from './worker-contract.ts';
import { steadyClock } from './steady-clock.ts';
import type { Announcement } from './worker-entry.ts';
import { probeCachedTokens, probeHealth } from './probe.ts';
import type { CacheReport, ProbeTarget } from './probe.ts';
import type { Log } from '../../infra/log.ts';

/** Must stay below the time after which a silent worker counts as lost. */
export const probeEveryMs = 5_000;

/** A worker whose report of cached tokens could not be had is asked again after this long. */
const askAgainMs = 60_000;

export interface StaticWorkers {
  /**
   * Asks each worker once how it is and announces it. Finding out if a new one reports cached
   * tokens takes long, so that is done beside it and announced then: nobody else waits for it. Does
   * not throw.
   */
  probe(): Promise<void>;
}

export interface StaticWorkersOptions {
  /** Lists the workers of now: the operator may add and remove some. */
  readonly workers: () => readonly StaticWorker[];
  /** Shown to workers without a token of their own. */
  readonly workerToken: string;
  readonly clock: { nowMs(): number };
  readonly fetch: typeof fetch;
  readonly announce: (announcement: Announcement) => void;
  readonly log: Log;
}

export function createStaticWorkers(options: StaticWorkersOptions): StaticWorkers {
  return new ProbedWorkers(options);
}

class ProbedWorkers implements StaticWorkers {
  readonly #options: StaticWorkersOptions;
  readonly #clock: { nowMs(): number };
  readonly #last = new Map<string, Announcement>();
  /** Ids of workers that are being asked for cached tokens. */
  readonly #learning = new Set<string>();
  readonly #askAgainAtMs = new Map<string, number>();

  constructor(options: StaticWorkersOptions) {
    this.#options = options;
    this.#clock = steadyClock(options.clock);
  }

  async probe(): Promise<void> {
    const workers = this.#options.workers();
    for (const id of this.#last.keys()) {
      if (!workers.some((each) => each.id === id)) this.#last.delete(id);
    }
    await Promise.all(workers.map((worker) => this.#probeOne(worker)));
  }

  async #probeOne(worker: StaticWorker): Promise<void> {
    const { id, url, slots } = worker;
    const health = await probeHealth(targetOf(worker, this.#options));
    // It may have been removed or changed while it was asked.
    if (!this.#options.workers().includes(worker)) return;
    const nowMs = this.#clock.nowMs();
    const known = this.#last.get(id);
    const before = known?.url === url ? known : undefined;
    const own = { id, url, static: true, hasJournal: false, ...(slots !== undefined && { slots }) };
    const base = { ...own, state: 'failing' as const };
    if (health.kind === 'failing') {
      const { epoch = nowMs, start = randomUUID(), models = [], served = [] } = before ?? {};
      this.#say({ ...base, epoch, start, models, served, noDiscountReason: health.reason });
      return;
    }
    const models = health.served.map((model) => model.id);
    const same =
      before !== undefined &&
      sameNames(before.models, models) &&
      isDeepStrictEqual(before.served, health.served);
    const isKnown = same && (before.state === 'ready' || before.noDiscountReason === beingAsked);
    // The worker is new, or it comes back: earlier cached tokens are not to be relied upon.
    const announcement: Announcement = isKnown
      ? withSlots(before, slots)
      : {
          ...base,
          epoch: nowMs,
          start: randomUUID(),
          models,
          served: health.served,
          noDiscountReason: beingAsked,
        };
    this.#say(announcement);
    const due = nowMs >= (this.#askAgainAtMs.get(id) ?? Infinity);
    if (announcement.state === 'failing' || due) void this.#learn(worker, announcement);
  }

  /**
   * Finds out whether the worker reports cached tokens, and announces it if it is still what it
   * was.
   */
  async #learn(worker: StaticWorker, asked: Announcement): Promise<void> {
    const { id } = worker;
    if (this.#learning.has(id)) return;
    this.#learning.add(id);
    const [model] = asked.models;
    const report: CacheReport =
      model === undefined
        ? { kind: 'unreported', reason: 'it serves no model' }
        : await probeCachedTokens(targetOf(worker, this.#options), model);
    this.#learning.delete(id);
    if (!this.#options.workers().includes(worker) || this.#last.get(id) !== asked) return;
    this.#askAgainAtMs.delete(id);
    if (report.kind === 'failed') this.#askAgainAtMs.set(id, this.#clock.nowMs() + askAgainMs);
    const noDiscountReason = report.kind === 'reported' ? null : report.reason;
    this.#say({ ...asked, state: 'ready', noDiscountReason });
  }

  #say(announcement: Announcement): void {
    const { id, state, models, noDiscountReason } = announcement;
    const before = this.#last.get(id);
    this.#last.set(id, announcement);
    this.#options.announce(announcement);
    if (before?.state === state && before.noDiscountReason === noDiscountReason) return;
    this.#options.log('info', 'static-worker', { id, state, models, noDiscountReason });
  }
}

/** Returns the announcement itself where the operator has not changed its slots. */
function withSlots(announcement: Announcement, slots: number | undefined): Announcement {
  if (announcement.slots === slots) return announcement;
  const { slots: _before, ...others } = announcement;
  return { ...others, ...(slots !== undefined && { slots }) };
}

const beingAsked = 'it is being asked whether it reports cached tokens';

function targetOf(
  { url, ownToken }: StaticWorker,
  options: { readonly workerToken: string; readonly fetch: typeof fetch },
): ProbeTarget {
  const token = ownToken === null ? options.workerToken : ownToken.bearer;
  return { url, token, fetch: options.fetch };
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}
