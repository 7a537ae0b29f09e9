/** Announces the workers that do not do so themselves to the fleet, as their probes show them. */
import type { StaticWorker } from '../services.ts';
import type { Announcement } from './worker-entry.ts';
import { probeCachedTokens, probeHealth } from './probe.ts';

/** Must stay below the time after which a silent worker counts as lost. */
export const probeEveryMs = 5_000;

export interface StaticWorkers {
  /** Probes each worker once and announces the result. Does not throw. */
  probe(): Promise<void>;
}

export function createStaticWorkers(options: {
  /** Those of now: the operator may add and remove some. */
  readonly workers: () => readonly StaticWorker[];
  /** For those without a token of their own. */
  readonly workerToken: string;
  readonly clock: { nowMs(): number };
  readonly fetch: typeof fetch;
  readonly announce: (said: Announcement) => void;
  readonly log: (event: Readonly<Record<string, unknown>>) => void;
}): StaticWorkers {
  const last = new Map<string, Announcement>();

  const probeOne = async (worker: StaticWorker): Promise<void> => {
    const { url, ownToken } = worker;
    const token = ownToken === null ? options.workerToken : ownToken.bearer;
    const target = { url, token, fetch: options.fetch };
    const health = await probeHealth(target);
    const known = last.get(worker.id);
    const before = known?.url === url ? known : undefined;
    const base = { id: worker.id, url: worker.url, static: true, hasJournal: false };
    let said: Announcement;
    if (health.kind === 'failing') {
      said = {
        ...base,
        state: 'failing',
        epoch: before?.epoch ?? options.clock.nowMs(),
        models: before?.models ?? [],
        noDiscountReason: health.reason,
      };
    } else if (before?.state === 'ready' && sameNames(before.models, health.models)) {
      said = before;
    } else {
      // It is new, or it comes back: whatever it had cached before is not to be relied upon.
      const [model] = health.models;
      said = {
        ...base,
        state: 'ready',
        epoch: options.clock.nowMs(),
        models: health.models,
        noDiscountReason:
          model === undefined ? 'it serves no model' : await probeCachedTokens(target, model),
      };
    }
    // It may have been removed or changed while it was asked.
    if (!options.workers().includes(worker)) return;
    last.set(worker.id, said);
    options.announce(said);
    if (before?.state !== said.state || before.noDiscountReason !== said.noDiscountReason) {
      const { id, state, models, noDiscountReason } = said;
      options.log({ event: 'static-worker', id, state, models, noDiscountReason });
    }
  };

  return {
    async probe() {
      const workers = options.workers();
      for (const id of last.keys()) if (!workers.some((each) => each.id === id)) last.delete(id);
      await Promise.all(workers.map((worker) => probeOne(worker)));
    },
  };
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}
