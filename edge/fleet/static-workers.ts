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

export function createStaticWorkers(options: {
  /** Lists the workers of now: the operator may add and remove some. */
  readonly workers: () => readonly StaticWorker[];
  /** Shown to workers without a token of their own. */
  readonly workerToken: string;
  readonly clock: { nowMs(): number };
  readonly fetch: typeof fetch;
  readonly announce: (announcement: Announcement) => void;
  readonly log: Log;
}): StaticWorkers {
  const clock = steadyClock(options.clock);
  const last = new Map<string, Announcement>();
  const learning = new Set<string>();
  const askAgainAtMs = new Map<string, number>();

  const say = (announcement: Announcement): void => {
    const before = last.get(announcement.id);
    last.set(announcement.id, announcement);
    options.announce(announcement);
    if (
      before?.state === announcement.state &&
      before.noDiscountReason === announcement.noDiscountReason
    )
      return;
    const { id, state, models, noDiscountReason } = announcement;
    options.log('info', 'static-worker', { id, state, models, noDiscountReason });
  };

  /**
   * Finds out whether the worker reports cached tokens, and announces it if it is still what it
   * was.
   */
  const learn = async (worker: StaticWorker, asked: Announcement): Promise<void> => {
    const { id } = worker;
    if (learning.has(id)) return;
    learning.add(id);
    const [model] = asked.models;
    const report: CacheReport =
      model === undefined
        ? { kind: 'unreported', reason: 'it serves no model' }
        : await probeCachedTokens(targetOf(worker, options), model);
    learning.delete(id);
    if (!options.workers().includes(worker) || last.get(id) !== asked) return;
    askAgainAtMs.delete(id);
    if (report.kind === 'failed') askAgainAtMs.set(id, clock.nowMs() + askAgainMs);
    const noDiscountReason = report.kind === 'reported' ? null : report.reason;
    say({ ...asked, state: 'ready', noDiscountReason });
  };

  const probeOne = async (worker: StaticWorker): Promise<void> => {
    const { id, url, slots } = worker;
    const health = await probeHealth(targetOf(worker, options));
    // It may have been removed or changed while it was asked.
    if (!options.workers().includes(worker)) return;
    const nowMs = clock.nowMs();
    const known = last.get(id);
    const before = known?.url === url ? known : undefined;
    const own = { id, url, static: true, hasJournal: false, ...(slots !== undefined && { slots }) };
    const base = { ...own, state: 'failing' as const };
    if (health.kind === 'failing') {
      const { epoch = nowMs, start = randomUUID(), models = [], served = [] } = before ?? {};
      say({ ...base, epoch, start, models, served, noDiscountReason: health.reason });
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
    say(announcement);
    const due = nowMs >= (askAgainAtMs.get(id) ?? Infinity);
    if (announcement.state === 'failing' || due) void learn(worker, announcement);
  };

  return {
    async probe() {
      const workers = options.workers();
      for (const id of last.keys()) if (!workers.some((each) => each.id === id)) last.delete(id);
      await Promise.all(workers.map((worker) => probeOne(worker)));
    },
  };
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
