/**
 * Models that workers serve and that nobody can use yet, because the directory does not list them
 * or has no price for them; each with the operator's command that mends it.
 */
import type { Directory } from './directory-contract.ts';
import type { ServedModel } from '../fleet/worker-contract.ts';
import type { Log } from '../../infra/log.ts';

/** A model that nobody can use until the operator has run the command. */
export interface UnsoldModel {
  readonly model: string;
  readonly lacks: 'directory entry' | 'price';
  readonly command: string;
}

const command = 'npm run --silent admin --';

interface Catalogue {
  readonly directory: Pick<Directory, 'models' | 'priceAt'>;
  readonly clock: { nowMs(): number };
}

/** Lists each model once, in the order given. */
export async function unsoldModels(
  served: readonly ServedModel[],
  { directory, clock }: Catalogue,
): Promise<UnsoldModel[]> {
  const listed = new Set((await directory.models()).map(({ id }) => id));
  const unsold = new Map<string, UnsoldModel>();
  for (const model of served) {
    const { id } = model;
    if (unsold.has(id)) continue;
    if (!listed.has(id)) {
      unsold.set(id, { model: id, lacks: 'directory entry', command: commandThatLists(model) });
    } else if ((await directory.priceAt(id, clock.nowMs())) === null) {
      unsold.set(id, { model: id, lacks: 'price', command: commandThatPrices(id) });
    }
  }
  return [...unsold.values()];
}

/**
 * A foreign engine says neither revision nor tokenizer. They only tell one prefix cache from
 * another, so that any words do that change with the weights and the tokenizer.
 */
function commandThatLists({ id, contextLength, revision, tokenizer }: ServedModel): string {
  const values = [id, String(contextLength ?? 'CONTEXT_LENGTH'), revision ?? '1', tokenizer ?? id];
  return `${command} models put ${values.map(shellWord).join(' ')}`;
}

function commandThatPrices(id: string): string {
  return `${command} prices add ${shellWord(id)} CACHED_USD INPUT_USD OUTPUT_USD`;
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** An operator who has just started a worker is about to list its model. */
const graceMs = 4_000;
/** Models that are remembered as unsold; beyond it none is logged. */
const notedMax = 1_000;

/** Logs a model that stays unsold once, and again only if it was sold in between. Never throws. */
export function createUnsoldLog(
  options: Catalogue & { readonly log: Log },
): (worker: string, served: readonly ServedModel[]) => Promise<void> {
  const noted = new Map<string, { readonly sinceMs: number; readonly isLogged: boolean }>();
  return async (worker, served) => {
    try {
      const unsold = await unsoldModels(served, options);
      for (const { id } of served) {
        if (!unsold.some(({ model }) => model === id)) noted.delete(id);
      }
      for (const { model, lacks, command: mend } of unsold) {
        const nowMs = options.clock.nowMs();
        const { sinceMs, isLogged } = noted.get(model) ?? { sinceMs: nowMs, isLogged: false };
        const isDue = !isLogged && nowMs - sinceMs >= graceMs;
        if (isDue) options.log('warn', 'model-unsold', { worker, model, lacks, command: mend });
        if (noted.has(model) || noted.size < notedMax) {
          noted.set(model, { sinceMs, isLogged: isLogged || isDue });
        }
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      options.log('warn', 'model-check-failed', { worker, reason });
    }
  };
}
