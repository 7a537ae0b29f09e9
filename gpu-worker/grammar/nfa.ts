/**
 * Automata over bytes under construction: parts of a pattern are appended one after the other, and
 * `determinize` makes a table of the whole. Code points become the bytes that JSON writes them as.
 */
import { at, missing } from '../at.ts';
import { afterByte, combineDfa, exploreDfa, GrammarLimitError, isIncluded } from './dfa.ts';
import type { Dfa, Work } from './dfa.ts';

/** A regular language over code points. */
export type Pattern =
  | { readonly kind: 'set'; readonly ranges: readonly CodePointRange[] }
  | { readonly kind: 'sequence'; readonly parts: readonly Pattern[] }
  | { readonly kind: 'choice'; readonly options: readonly Pattern[] }
  | { readonly kind: 'repeat'; readonly part: Pattern; readonly min: number; readonly max: number }
  /** Texts of all the parts. */
  | { readonly kind: 'and'; readonly parts: readonly Pattern[] }
  /** Texts that are not of the part. */
  | { readonly kind: 'not'; readonly part: Pattern };

/** First and last, both included. */
export type CodePointRange = readonly [number, number];

export const codePointMax = 0x10ffff;
export const anyCodePoint: Pattern = { kind: 'set', ranges: [[0, codePointMax]] };
export const anyText: Pattern = { kind: 'repeat', part: anyCodePoint, min: 0, max: Infinity };

const nodesMax = 100_000;

interface Edge {
  readonly low: number;
  readonly high: number;
  readonly to: number;
}

export class Nfa {
  readonly #edges: Edge[][] = [];
  readonly #skips: number[][] = [];
  readonly #work: Work;
  readonly start: number;

  constructor(work: Work) {
    this.#work = work;
    this.start = this.node();
  }

  node(): number {
    this.#work.spend(1);
    if (this.#edges.length === nodesMax) {
      throw new GrammarLimitError(`it needs an automaton of more than ${nodesMax} nodes`);
    }
    this.#skips.push([]);
    return this.#edges.push([]) - 1;
  }

  skip(from: number, to: number): void {
    (this.#skips[from] ?? missing()).push(to);
  }

  /** Any one byte of [low, high]. Returns `to`, a new node unless it is given. */
  bytes(from: number, [low, high]: readonly [number, number], to = this.node()): number {
    (this.#edges[from] ?? missing()).push({ low, high, to });
    return to;
  }

  /** The text as it stands. Returns the node after it. */
  text(from: number, text: string): number {
    return Buffer.from(text).reduce((node, byte) => this.bytes(node, [byte, byte]), from);
  }

  /**
   * The pattern inside a JSON string, each code point in the one form that JSON.stringify gives.
   */
  pattern(from: number, pattern: Pattern): number {
    switch (pattern.kind) {
      case 'set': {
        const to = this.node();
        this.#codePoints(from, pattern.ranges, to);
        return to;
      }
      case 'sequence':
        return pattern.parts.reduce((node, part) => this.pattern(node, part), from);
      case 'choice': {
        const to = this.node();
        for (const option of pattern.options) this.skip(this.pattern(from, option), to);
        return to;
      }
      case 'repeat':
        return this.#repeat(from, pattern);
      case 'and':
      case 'not':
        return this.#automaton(from, contentDfa(pattern, this.#work));
    }
  }

  /** Repeats what `append` appends. */
  repeat(
    from: number,
    { min, max }: { min: number; max: number },
    append: (from: number) => number,
  ): number {
    let node = from;
    for (let count = 0; count < min; count++) node = append(node);
    if (max === Infinity) {
      // A node of its own: what leads back here must not lead back before the loop.
      const loop = this.node();
      this.skip(node, loop);
      this.skip(append(loop), loop);
      return loop;
    }
    const end = this.node();
    for (let count = min; count < max; count++) {
      this.skip(node, end);
      node = append(node);
    }
    this.skip(node, end);
    return end;
  }

  /** The automaton of all texts from the start to `end`; null where there are none. */
  determinize(end: number): Dfa | null {
    // A node that nothing leads out of, so that a closure keeps it.
    const final = this.node();
    this.skip(end, final);
    const { classOf, representatives } = this.#classes();
    const closure = this.#closures();
    return exploreDfa<readonly number[]>(
      {
        start: closure([this.start]),
        classOf,
        classes: representatives.length,
        key: (nodes) => nodes.join(),
        step: (nodes, byteClass) => {
          const byte = representatives[byteClass] ?? missing();
          const reached = new Set<number>();
          for (const node of nodes) {
            const edges = this.#edges[node] ?? missing();
            this.#work.spend(1 + (edges.length >> 3));
            for (const { low, high, to } of edges) {
              if (byte >= low && byte <= high) reached.add(to);
            }
          }
          return reached.size === 0 ? null : closure(reached);
        },
        accepts: (nodes) => nodes.includes(final),
      },
      this.#work,
    );
  }

  #repeat(from: number, pattern: Extract<Pattern, { kind: 'repeat' }>): number {
    return this.repeat(from, pattern, (node) => this.pattern(node, pattern.part));
  }

  /** The texts of another automaton; a node that nothing leads to where it has none. */
  #automaton(from: number, dfa: Dfa | null): number {
    const to = this.node();
    if (dfa === null) return to;
    const nodes = Array.from(dfa.accepts, () => this.node());
    this.skip(from, nodes[0] ?? missing());
    nodes.forEach((node, state) => {
      if (dfa.accepts[state] === 1) this.skip(node, to);
      for (let low = 0; low < 256; low++) {
        const reached = afterByte(dfa, state, low);
        const first = low;
        while (low < 255 && afterByte(dfa, state, low + 1) === reached) low++;
        if (reached >= 0) this.bytes(node, [first, low], nodes[reached] ?? missing());
      }
    });
    this.#work.spend(8 * nodes.length);
    return to;
  }

  /**
   * Finds the nodes that are reached from others without a byte and have edges of their own or none
   * at all, ascending. All are looked for together: nodes of nested repeats reach much the same.
   */
  #closures(): (from: Iterable<number>) => number[] {
    const isKept = this.#edges.map(
      (edges, node) => edges.length > 0 || (this.#skips[node] ?? missing()).length === 0,
    );
    const seenIn = new Uint32Array(this.#edges.length);
    let search = 0;
    return (from) => {
      search++;
      const seen: number[] = [];
      const see = (node: number): void => {
        if (seenIn[node] === search) return;
        seenIn[node] = search;
        seen.push(node);
      };
      for (const node of from) see(node);
      // The list grows as it is walked.
      for (const node of seen) for (const to of this.#skips[node] ?? missing()) see(to);
      this.#work.spend(seen.length);
      return seen.filter((node) => isKept[node]).toSorted((a, b) => a - b);
    };
  }

  /** Bytes that no edge tells apart are one class. */
  #classes(): { classOf: Uint8Array; representatives: number[] } {
    const begins = new Uint8Array(257);
    for (const edges of this.#edges) {
      for (const { low, high } of edges) {
        begins[low] = 1;
        begins[high + 1] = 1;
      }
    }
    const classOf = new Uint8Array(256);
    const representatives = [0];
    for (let byte = 1; byte < 256; byte++) {
      if (begins[byte] === 1) representatives.push(byte);
      classOf[byte] = representatives.length - 1;
    }
    return { classOf, representatives };
  }

  #codePoints(from: number, ranges: readonly CodePointRange[], to: number): void {
    const escapes = new Map<string, number>();
    for (const [low, high] of ranges) {
      for (let code = low; code <= Math.min(high, 0x5c); code++) {
        const text = JSON.stringify(String.fromCharCode(code)).slice(1, -1);
        if (text.length > 1) this.#escape(from, { text, to, nodes: escapes });
      }
    }
    const plain = ranges.flatMap(([low, high]) =>
      writtenAsThemselves.flatMap(([first, last]): CodePointRange[] => {
        const range = [Math.max(low, first), Math.min(high, last)] as const;
        return range[0] <= range[1] ? [range] : [];
      }),
    );
    this.utf8(from, plain, to);
  }

  /** Escapes that begin alike share the nodes of their beginning. */
  #escape(
    from: number,
    { text, to, nodes }: { text: string; to: number; nodes: Map<string, number> },
  ): void {
    let node = from;
    for (let length = 1; length < text.length; length++) {
      const prefix = text.slice(0, length);
      const known = nodes.get(prefix);
      const after = known ?? this.text(node, prefix.slice(-1));
      nodes.set(prefix, after);
      node = after;
    }
    const last = text.charCodeAt(text.length - 1);
    this.bytes(node, [last, last], to);
  }

  /**
   * Code points as UTF-8; surrogates must not be among them. Sequences that begin with the same
   * bytes share the node behind them, and equal endings share theirs.
   */
  utf8(from: number, ranges: readonly CodePointRange[], to: number): void {
    const endings = new Map<string, number>();
    const append = (node: number, sequences: readonly ByteRanges[]): void => {
      const groups = Map.groupBy(sequences, (sequence) => (sequence[0] ?? missing()).join());
      for (const group of groups.values()) {
        const first = at(group[0] ?? missing(), 0);
        const rests = group.map(([, ...rest]) => rest);
        if ((rests[0] ?? missing()).length === 0) {
          this.bytes(node, first, to);
          continue;
        }
        const key = rests.join(' ');
        let ending = endings.get(key);
        if (ending === undefined) {
          endings.set(key, (ending = this.node()));
          append(ending, rests);
        }
        this.bytes(node, first, ending);
      }
    };
    const sequences = disjoint(ranges).flatMap((range) => [...utf8Sequences(range)]);
    this.#work.spend(4 * sequences.length);
    append(from, sequences);
  }
}

/** Ascending, and none that overlap or touch. */
function disjoint(ranges: readonly CodePointRange[]): readonly CodePointRange[] {
  const merged: [number, number][] = [];
  for (const [low, high] of ranges.toSorted(([a], [b]) => a - b)) {
    const before = merged.at(-1);
    if (before !== undefined && low <= before[1] + 1) before[1] = Math.max(before[1], high);
    else merged.push([low, high]);
  }
  return merged;
}

type ByteRanges = readonly (readonly [number, number])[];

/** The inside of strings whose text is of the pattern; null where there are none. */
export function contentDfa(pattern: Pattern, work: Work): Dfa | null {
  switch (pattern.kind) {
    case 'and':
      return intersectDfas(
        pattern.parts.map((part) => contentDfa(part, work)),
        work,
      );
    case 'not': {
      const [any, excluded] = [contentDfa(anyText, work), contentDfa(pattern.part, work)];
      return any === null || excluded === null ? any : combineDfa([any, excluded], 'and-not', work);
    }
    default: {
      const nfa = new Nfa(work);
      return nfa.determinize(nfa.pattern(nfa.start, pattern));
    }
  }
}

/**
 * Makes the automaton of what all of them accept. Those that accept all that the others do add
 * nothing, and no states.
 */
export function intersectDfas(dfas: readonly (Dfa | null)[], work: Work): Dfa | null {
  const known = dfas.filter((dfa) => dfa !== null);
  if (known.length < dfas.length) return null;
  let all: Dfa | null = null;
  for (const dfa of known.toSorted((a, b) => a.accepts.length - b.accepts.length)) {
    if (all === null) all = dfa;
    else if (isIncluded(dfa, all, work)) all = dfa;
    else if (!isIncluded(all, dfa, work)) {
      all = combineDfa([all, dfa], 'and', work);
      if (all === null) return null;
    }
  }
  return all;
}

/**
 * Characters that JSON strings hold unescaped: all but control characters, quotes, backslashes and
 * surrogates.
 */
export const writtenAsThemselves: readonly CodePointRange[] = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, codePointMax],
];

/** Byte ranges, position by position, that together are the UTF-8 of exactly these code points. */
function* utf8Sequences([low, high]: CodePointRange): Generator<(readonly [number, number])[]> {
  for (const last of [0x7f, 0x7ff, 0xffff]) {
    if (low <= last && last < high) {
      yield* utf8Sequences([low, last]);
      yield* utf8Sequences([last + 1, high]);
      return;
    }
  }
  const bytes = Buffer.from(String.fromCodePoint(low)).length;
  for (let position = 1; position < bytes; position++) {
    // The last `position` bytes carry these bits; they must run through all their values.
    const bits = 2 ** (6 * position) - 1;
    if ((low & ~bits) === (high & ~bits)) continue;
    if ((low & bits) !== 0) {
      yield* utf8Sequences([low, low | bits]);
      yield* utf8Sequences([(low | bits) + 1, high]);
      return;
    }
    if ((high & bits) !== bits) {
      yield* utf8Sequences([low, (high & ~bits) - 1]);
      yield* utf8Sequences([high & ~bits, high]);
      return;
    }
  }
  const first = Buffer.from(String.fromCodePoint(low));
  const last = Buffer.from(String.fromCodePoint(high));
  yield Array.from(first, (byte, index) => [byte, last[index] ?? missing()] as const);
}
