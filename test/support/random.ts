import { at } from '../../gpu-worker/at.ts';
/** Seeded randomness for tests: the same numbers on every machine. */

export interface Random {
  /** A number in [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** An integer in [low, high], both included. */
  integer(low: number, high: number): number;
  choose<T>(options: readonly T[]): T;
}

/** mulberry32: 32 bits of state, good enough for weights and shapes. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
  const integer = (low: number, high: number) => low + Math.floor(uniform() * (high - low + 1));
  return {
    uniform,
    // Box-Muller; 1 - uniform() is never 0, so its logarithm is finite.
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    integer,
    choose: (options) => at(options, integer(0, options.length - 1)),
  };
}
