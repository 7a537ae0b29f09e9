/** Runs mutated inputs through targets; a case is told again by its target, seed and number. */
import { inspect } from 'node:util';
import { seededRandom } from '../support/random.ts';
import type { Random } from '../support/random.ts';

/** A parser or a route that is fed with mutants. */
export interface Target {
  readonly name: string;
  /** Its share of a run, in cases of a hundred. */
  readonly share: number;
  /** Makes the mutant of these random numbers. */
  make(random: Random): unknown;
  /** Rejects, with anything but what it refuses mutants with, if the mutant did harm. */
  feed(mutant: unknown): Promise<void>;
  close?(): Promise<void>;
}

export interface Failure {
  readonly target: string;
  readonly seed: number;
  readonly index: number;
  readonly input: string;
  readonly reason: string;
}

/** Longer than any case takes, on a machine that does other things too. */
const caseMsMax = 30_000;
const inputCharactersMax = 2_000;

export async function runCase(
  target: Target,
  seed: number,
  index: number,
): Promise<Failure | null> {
  const mutant = target.make(randomOf(target, seed, index));
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('it hangs')), caseMsMax);
  try {
    const startedMs = performance.now();
    await Promise.race([target.feed(mutant), late.promise]);
    const tookMs = performance.now() - startedMs;
    if (tookMs > caseMsMax) throw new Error(`it held the thread for ${Math.round(tookMs)} ms`);
    return null;
  } catch (error) {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const text = typeof mutant === 'string' ? mutant : inspect(mutant, { depth: 8 });
    return { target: target.name, seed, index, input: text.slice(0, inputCharactersMax), reason };
  } finally {
    clearTimeout(timer);
  }
}

/** Runs as many cases as `count`, shared among the targets, until the time is over. */
export async function fuzz(options: {
  readonly targets: readonly Target[];
  readonly seed: number;
  readonly count: number;
  readonly endMs?: number;
  readonly failuresMax: number;
}): Promise<{ readonly cases: number; readonly failures: readonly Failure[] }> {
  const { targets, seed, count, endMs = Infinity, failuresMax } = options;
  const shares = targets.reduce((total, { share }) => total + share, 0);
  const failures: Failure[] = [];
  let cases = 0;
  for (const target of targets) {
    const due = Math.ceil((count * target.share) / shares);
    for (let index = 0; index < due && performance.now() < endMs; index++) {
      const failure = await runCase(target, seed, index);
      cases++;
      if (failure !== null) failures.push(failure);
      if (failures.length >= failuresMax) return { cases, failures };
    }
  }
  return { cases, failures };
}

/** Each case has numbers of its own, so that one can be run without those before it. */
function randomOf({ name }: Target, seed: number, index: number): Random {
  let state = seed >>> 0;
  for (const character of name) state = Math.imul(state ^ character.charCodeAt(0), 0x01000193);
  return seededRandom((state ^ Math.imul(index + 1, 0x9e3779b1)) >>> 0);
}
