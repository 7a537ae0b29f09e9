/**
 * The length of context that the workers of a model take, beside what the directory says of it. The
 * smaller of the two bounds a request, its hold and its quote: a worker refuses what is longer than
 * its own, and what is longer than the directory's would be held for too little.
 */
import type { Directory, ModelRecord } from './directory-contract.ts';
import type { Fleet } from '../fleet/fleet-contract.ts';
import type { ServedModel } from '../fleet/worker-contract.ts';
import type { Log } from '../../infra/log.ts';

/** The context that the live workers of a model state; null where none states any. */
export interface ServedContext {
  readonly longest: number | null;
  /** The longest context of foreign engines, which do not know the directory's. */
  readonly longestOfForeignEngines: number | null;
}

export type ServedContexts = (model: string) => Promise<ServedContext>;

const none: ServedContext = { longest: null, longestOfForeignEngines: null };

/** Asks the fleet at most every `ttlMs`; one that cannot be asked says nothing. */
export function createServedContexts(options: {
  readonly fleet: () => Pick<Fleet, 'status'>;
  readonly clock: { nowMs(): number };
  readonly ttlMs: number;
}): ServedContexts {
  let readAtMs = -Infinity;
  let contexts: Promise<ReadonlyMap<string, ServedContext>> | null = null;
  return async (model) => {
    const ageMs = options.clock.nowMs() - readAtMs;
    if (contexts === null || ageMs < 0 || ageMs >= options.ttlMs) {
      readAtMs = options.clock.nowMs();
      contexts = readContexts(options.fleet()).catch(() => new Map());
    }
    return (await contexts).get(model) ?? none;
  };
}

async function readContexts(
  fleet: Pick<Fleet, 'status'>,
): Promise<ReadonlyMap<string, ServedContext>> {
  const contexts = new Map<string, ServedContext>();
  for (const worker of await fleet.status()) {
    if (worker.state === 'lost') continue;
    for (const { id, contextLength } of worker.served) {
      if (contextLength === null) continue;
      const { longest, longestOfForeignEngines } = contexts.get(id) ?? none;
      contexts.set(id, {
        longest: Math.max(longest ?? 0, contextLength),
        longestOfForeignEngines: worker.static
          ? Math.max(longestOfForeignEngines ?? 0, contextLength)
          : longestOfForeignEngines,
      });
    }
  }
  return contexts;
}

/** The context that the model is sold with while these workers serve it. */
export function soldContext(model: ModelRecord, served: ServedContext): number {
  return Math.min(model.contextLength, served.longest ?? Infinity);
}

/** The context that the hold covers: a foreign engine takes what its own has room for. */
export function heldContext(model: ModelRecord, served: ServedContext): number {
  return Math.max(soldContext(model, served), served.longestOfForeignEngines ?? 0);
}

/** Pairs of worker and model that are remembered as logged; beyond it none is logged. */
const toldMax = 1_000;

/**
 * Logs a worker whose context is not the directory's, once for each pair of lengths. Never throws.
 */
export function createContextLog(options: {
  readonly directory: Pick<Directory, 'models'>;
  readonly log: Log;
}): (worker: string, served: readonly ServedModel[]) => Promise<void> {
  const told = new Map<string, string>();
  return async (worker, served) => {
    const models = await options.directory.models().catch(() => []);
    for (const { id: model, contextLength } of served) {
      const listed = models.find(({ id }) => id === model)?.contextLength;
      const pair = JSON.stringify([worker, model]);
      const lengths = `${listed} ${contextLength}`;
      if (listed === undefined || contextLength === null || listed === contextLength) {
        told.delete(pair);
        continue;
      }
      if (told.get(pair) === lengths || (told.size >= toldMax && !told.has(pair))) continue;
      told.set(pair, lengths);
      options.log('warn', 'context-length-differs', { worker, model, listed, contextLength });
    }
  };
}
