/**
 * Deterministic automata over bytes, the terminals of a grammar. Every state can still reach an
 * accepting one, so a text that has not fallen off the automaton can always be completed.
 */
import { missing } from '../at.ts';

export interface Dfa {
  /** [256] the class of each byte: bytes of a class lead to the same states everywhere. */
  readonly classOf: Uint8Array;
  readonly classes: number;
  /** [states, classes] the next state, or -1 where there is none. State 0 is the first. */
  readonly next: Int32Array;
  /** [states] 1 where the text may end. */
  readonly accepts: Uint8Array;
}

/** Thrown where a schema asks for more room or time than one request may have. */
export class GrammarLimitError extends Error {
  override readonly name = 'GrammarLimitError';
}

export const dfaStatesMax = 16_384;

/** Elementary steps between two calls of `pause`: a few milliseconds. */
const pauseSteps = 16_384;

/** Elementary steps that compiling one grammar may take: about a second. */
export class Work {
  readonly #pause: () => void;
  #left: number;
  #nextPause: number;

  /** `pause` is called every `pauseSteps` steps. */
  constructor({
    stepsMax = 10_000_000,
    pause = () => {},
  }: { stepsMax?: number; pause?: (() => void) | undefined } = {}) {
    this.#left = stepsMax;
    this.#nextPause = stepsMax - pauseSteps;
    this.#pause = pause;
  }

  /** @throws GrammarLimitError */

  spend(steps: number): void {
    this.#left -= steps;
    if (this.#left < 0) throw new GrammarLimitError('it takes too long to compile');
    if (this.#left > this.#nextPause) return;
    this.#nextPause = this.#left - pauseSteps;
    this.#pause();
  }
}

/** An automaton given by what its states do; equal keys mean equal states. */
export interface Exploration<State> {
  readonly start: State;
  readonly classOf: Uint8Array;
  readonly classes: number;
  key(state: State): string;
  step(state: State, byteClass: number): State | null;
  accepts(state: State): boolean;
}

/**
 * All states that can be reached and can reach an accepting one; null where there are none, which
 * means that no text is accepted.
 * @throws GrammarLimitError
 */
export function exploreDfa<State>(exploration: Exploration<State>, work: Work): Dfa | null {
  const { classes, classOf } = exploration;
  const states: State[] = [exploration.start];
  const ids = new Map([[exploration.key(exploration.start), 0]]);
  const next: number[] = [];
  for (let id = 0; id < states.length; id++) {
    work.spend(classes);
    for (let byteClass = 0; byteClass < classes; byteClass++) {
      const reached = exploration.step(states[id] ?? missing(), byteClass);
      if (reached === null) {
        next.push(-1);
        continue;
      }
      const key = exploration.key(reached);
      let to = ids.get(key);
      if (to === undefined) {
        to = states.length;
        if (to === dfaStatesMax) {
          throw new GrammarLimitError(`it needs an automaton of more than ${dfaStatesMax} states`);
        }
        ids.set(key, to);
        states.push(reached);
      }
      next.push(to);
    }
  }
  const accepts = Uint8Array.from(states, (state) => (exploration.accepts(state) ? 1 : 0));
  return trim({ classOf, classes, next: Int32Array.from(next), accepts });
}

/**
 * Makes the automaton of what both accept, or of what the first accepts and the second does not.
 */
export function combineDfa(
  [first, second]: readonly [Dfa, Dfa],
  operation: 'and' | 'and-not',
  work: Work,
): Dfa | null {
  const pairs = new Map<number, number>();
  const classOf = new Uint8Array(256);
  const members: [number, number][] = [];
  for (let byte = 0; byte < 256; byte++) {
    const both: [number, number] = [
      first.classOf[byte] ?? missing(),
      second.classOf[byte] ?? missing(),
    ];
    const pair = both[0] * 256 + both[1];
    let byteClass = pairs.get(pair);
    if (byteClass === undefined) {
      byteClass = members.push(both) - 1;
      pairs.set(pair, byteClass);
    }
    classOf[byte] = byteClass;
  }
  // -1 is the state of a text that the second has no way on for.
  return exploreDfa<readonly [number, number]>(
    {
      start: [0, 0],
      classOf,
      classes: members.length,
      key: ([a, b]) => `${a},${b}`,
      step([a, b], byteClass) {
        const [inFirst, inSecond] = members[byteClass] ?? missing();
        const a2 = nextState(first, a, inFirst);
        const b2 = b < 0 ? -1 : nextState(second, b, inSecond);
        return a2 < 0 || (b2 < 0 && operation === 'and') ? null : [a2, b2];
      },
      accepts([a, b]) {
        const inSecond = b >= 0 && second.accepts[b] === 1;
        return first.accepts[a] === 1 && inSecond === (operation === 'and');
      },
    },
    work,
  );
}

/** Tells whether the second accepts all that the first does. @throws GrammarLimitError */
export function isIncluded(first: Dfa, second: Dfa, work: Work): boolean {
  const inBoth = Array.from(first.classOf, (inFirst, byte) => {
    return inFirst * 256 + (second.classOf[byte] ?? missing());
  });
  const pairs = [...new Set(inBoth)];
  const seen = new Set([0]);
  // A pair of states is a number; every state of the first leads on to an accepting one.
  for (const pair of seen) {
    const [a, b] = [Math.floor(pair / second.accepts.length), pair % second.accepts.length];
    if (first.accepts[a] === 1 && second.accepts[b] === 0) return false;
    work.spend(pairs.length);
    for (const classes of pairs) {
      const a2 = nextState(first, a, Math.floor(classes / 256));
      if (a2 < 0) continue;
      const b2 = nextState(second, b, classes % 256);
      if (b2 < 0) return false;
      seen.add(a2 * second.accepts.length + b2);
    }
  }
  return true;
}

/** Accepts exactly these texts. */
export function literalsDfa(texts: readonly string[], work: Work): Dfa | null {
  const children: Map<number, number>[] = [new Map()];
  const ends = new Set<number>();
  for (const text of texts) {
    let node = 0;
    for (const byte of Buffer.from(text)) {
      let child = (children[node] ?? missing()).get(byte);
      if (child === undefined) {
        work.spend(64);
        child = children.push(new Map()) - 1;
        (children[node] ?? missing()).set(byte, child);
      }
      node = child;
    }
    ends.add(node);
  }
  const used = [...new Set(children.flatMap((each) => [...each.keys()]))];
  const classOf = new Uint8Array(256);
  // Class 0 is of the bytes in none of the texts.
  used.forEach((byte, index) => (classOf[byte] = used.length === 256 ? index : index + 1));
  const byteOf = used.length === 256 ? used : [-1, ...used];
  return exploreDfa<number>(
    {
      start: 0,
      classOf,
      classes: byteOf.length,
      key: String,
      step: (node, byteClass) =>
        (children[node] ?? missing()).get(byteOf[byteClass] ?? missing()) ?? null,
      accepts: (node) => ends.has(node),
    },
    work,
  );
}

/** Accepts all bytes but those that contain the text. */
export function withoutTextDfa(text: string, work: Work): Dfa | null {
  const wanted = [...Buffer.from(text)];
  const used = [...new Set(wanted)];
  const classOf = new Uint8Array(256);
  used.forEach((byte, index) => (classOf[byte] = index + 1));
  /** Counts how much of the text ends where `read` does. */
  const matched = (read: readonly number[]): number => {
    const from = read.findIndex((_, start) =>
      read.slice(start).every((byte, index) => byte === wanted[index]),
    );
    return from < 0 ? 0 : read.length - from;
  };
  return exploreDfa<number>(
    {
      start: 0,
      classOf,
      classes: used.length + 1,
      key: String,
      step(length, byteClass) {
        const next =
          byteClass === 0
            ? 0
            : matched([...wanted.slice(0, length), used[byteClass - 1] ?? missing()]);
        return next === wanted.length ? null : next;
      },
      accepts: () => true,
    },
    work,
  );
}

/** The state behind a byte of that class, or -1. */
function nextState(dfa: Dfa, state: number, byteClass: number): number {
  return dfa.next[state * dfa.classes + byteClass] ?? missing();
}

/** The state behind a byte, or -1 if no accepted text goes on with it. */
export function afterByte(dfa: Dfa, state: number, byte: number): number {
  return nextState(dfa, state, dfa.classOf[byte] ?? missing());
}

/** Tells whether the whole text is accepted. */
export function acceptsText(dfa: Dfa, text: string): boolean {
  let state = 0;
  for (const byte of Buffer.from(text)) {
    state = afterByte(dfa, state, byte);
    if (state < 0) return false;
  }
  return dfa.accepts[state] === 1;
}

/** Keeps the states from which an accepting one is reached. */
function trim(dfa: Dfa): Dfa | null {
  const { classes, next, accepts } = dfa;
  const states = accepts.length;
  const sources: number[][] = Array.from({ length: states }, () => []);
  next.forEach((to, index) => {
    if (to >= 0) (sources[to] ?? missing()).push(Math.floor(index / classes));
  });
  const alive = new Uint8Array(accepts);
  const queue = [...accepts.keys()].filter((state) => accepts[state] === 1);
  for (let state = queue.pop(); state !== undefined; state = queue.pop()) {
    for (const source of sources[state] ?? missing()) {
      if (alive[source] === 1) continue;
      alive[source] = 1;
      queue.push(source);
    }
  }
  if (alive[0] === 0) return null;
  const kept = [...alive.keys()].filter((state) => alive[state] === 1);
  const ids = new Int32Array(states).fill(-1);
  kept.forEach((state, id) => (ids[state] = id));
  const trimmed = new Int32Array(kept.length * classes);
  kept.forEach((state, id) => {
    for (let byteClass = 0; byteClass < classes; byteClass++) {
      const to = nextState(dfa, state, byteClass);
      trimmed[id * classes + byteClass] = to < 0 ? -1 : (ids[to] ?? missing());
    }
  });
  return {
    ...dfa,
    next: trimmed,
    accepts: Uint8Array.from(kept, (state) => accepts[state] ?? missing()),
  };
}
