/** Load of the mix: closed to learn what the system can do, open to keep it at a share of that. */
import { at } from '../../gpu-worker/at.ts';
import type { Caller, HostileSystem } from '../hostile/system.ts';
import type { Random } from '../support/random.ts';
import { askers } from './mix.ts';
import type { Asker } from './mix.ts';

/** Requests at a time; a system that falls behind by so many is not asked for more. */
const atOnceMax = 256;

export interface Tally {
  answered: number;
  refused: number;
  failed: number;
  /** Arrivals that found too many requests under way. */
  skipped: number;
  /** The first of each sentence. */
  readonly faults: Map<string, number>;
}

export interface LoadOptions {
  readonly system: HostileSystem;
  readonly callers: readonly Caller[];
  readonly random: Random;
}

export function newTally(): Tally {
  return { answered: 0, refused: 0, failed: 0, skipped: 0, faults: new Map() };
}

let requests = 0;

async function askOne({ system, callers, random }: LoadOptions, tally: Tally): Promise<void> {
  const asker = pick(random);
  const id = ++requests;
  const fail = (reason: string): void => {
    tally.failed++;
    const fault = `${asker.name}: ${reason}`;
    tally.faults.set(fault, (tally.faults.get(fault) ?? 0) + 1);
  };
  try {
    const outcome = await asker.ask(system, random.choose(callers), id);
    if (typeof outcome === 'string') tally[outcome]++;
    else fail(outcome.failed);
  } catch (error) {
    fail(error instanceof Error ? `${error.message} ${String(error.cause ?? '')}` : String(error));
  }
}

/** @returns requests per second of so many clients who ask again once they are answered. */
export async function measureCapacity(
  options: LoadOptions,
  { clients, seconds }: { readonly clients: number; readonly seconds: number },
): Promise<number> {
  const tally = newTally();
  const beganMs = performance.now();
  const untilMs = beganMs + seconds * 1_000;
  const client = async (): Promise<void> => {
    while (performance.now() < untilMs) await askOne(options, tally);
  };
  await Promise.all(Array.from({ length: clients }, client));
  const took = (performance.now() - beganMs) / 1_000;
  return tally.answered / took;
}

/** Arrivals at an even rate, whatever the answers take; ends when all are answered. */
export async function keepLoad(
  options: LoadOptions,
  { perSecond, seconds, tally }: { perSecond: number; seconds: number; tally: Tally },
): Promise<void> {
  const underWay = new Set<Promise<void>>();
  const beganMs = performance.now();
  for (let arrival = 0; ; arrival++) {
    const atMs = beganMs + (arrival * 1_000) / perSecond;
    if (atMs > beganMs + seconds * 1_000) break;
    const waitMs = atMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    if (underWay.size >= atOnceMax) {
      tally.skipped++;
      continue;
    }
    const asked: Promise<void> = askOne(options, tally).finally(() => underWay.delete(asked));
    underWay.add(asked);
  }
  await Promise.all(underWay);
}

const weightTotal = askers.reduce((sum, { weight }) => sum + weight, 0);

function pick(random: Random): Asker {
  let left = random.uniform() * weightTotal;
  for (const asker of askers) {
    left -= asker.weight;
    if (left < 0) return asker;
  }
  return at(askers, 0);
}
