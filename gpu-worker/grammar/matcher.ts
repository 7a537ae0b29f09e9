/**
 * Runs a grammar over the tokens of an answer. A state is a set of places in terminals, each with
 * what comes after the terminal: all ways of reading the text so far, side by side. States are made
 * when they are first reached and kept, so that the usual step is a few look-ups.
 *
 * A mask is put together from two parts. Which tokens stay inside a terminal depends on the
 * terminal alone; that costs a walk over the vocabulary once, for all grammars that have the
 * terminal. Which tokens go on behind its end depends on what comes after; only those are walked
 * for each state, and most fall off at once.
 */
import { strict as assert } from 'node:assert';
import { missing } from '../at.ts';
import { afterByte } from './dfa.ts';
import { RecentGrammars } from './grammar.ts';
import type { Grammar } from './grammar.ts';
import { unpackGrammar } from './packed-grammar.ts';
import type { PackedGrammar } from './packed-grammar.ts';
import { BoundedMasks, TerminalMasks } from './terminal-masks.ts';
import { addBits, setBit } from './vocabulary.ts';
import type { Vocabulary } from './vocabulary.ts';

/** Grammars whose states are kept; the least recently used are forgotten. */
const keptGrammars = { countMax: 32, bytesMax: 64 * 2 ** 20 };
/** States of one grammar that are kept: beyond it all are forgotten and made again as needed. */
const statesMax = 4_000;
/** Values that stand inside one another; what would go deeper is not let through. */
const depthMax = 512;
/** Steps that one byte may take: reached only where a schema's ways of reading multiply. */
const stepsMax = 100_000;

/** The places to go on from, once what is being read is complete; innermost first. */
interface Frames {
  readonly id: number;
  readonly depth: number;
  /** True if the answer may end there. */
  readonly isBottom: boolean;
  /** Entries by node, ascending. */
  readonly entries: readonly { readonly node: number; readonly below: Frames }[];
}

interface State {
  /** Scans by terminal and place, ascending. */
  readonly scans: readonly Scan[];
  readonly tokens: readonly { readonly token: number; readonly frames: Frames }[];
  readonly isComplete: boolean;
  /** [256] made as needed; null where the byte leads nowhere. */
  readonly next: (State | null | undefined)[];
}

interface Scan {
  readonly terminal: number;
  readonly place: number;
  readonly frames: Frames;
}

/** A grammar's text can be read in too many ways at once. */
class TooManyWaysError extends Error {
  override readonly name = 'TooManyWaysError';
}

/** Starts answers in grammars over one vocabulary, and keeps what they have in common. */
export class Matcher {
  readonly #vocabulary: Vocabulary;
  readonly #endTokens: readonly number[];
  readonly #terminals: TerminalMasks;
  readonly #masks = new BoundedMasks<State>();
  readonly #runs = new RecentGrammars<GrammarRun>(keptGrammars);

  constructor(vocabulary: Vocabulary, endTokens: readonly number[]) {
    this.#vocabulary = vocabulary;
    this.#endTokens = endTokens;
    this.#terminals = new TerminalMasks(vocabulary);
  }

  start(grammar: Grammar): MatcherCursor {
    return this.#start(grammar.key, () => grammar);
  }

  /** The same of a grammar that is opened only if nothing is kept of it. */
  startPacked(packed: PackedGrammar): MatcherCursor {
    return this.#start(packed.key, () => unpackGrammar(packed));
  }

  #start(key: string, open: () => Grammar): MatcherCursor {
    const services = {
      vocabulary: this.#vocabulary,
      endTokens: this.#endTokens,
      terminals: this.#terminals,
      masks: this.#masks,
    };
    const run = this.#runs.get(key, () => {
      const grammar = open();
      return { value: new GrammarRun(grammar, services), grammar };
    });
    return new MatcherCursor(run);
  }
}

/** One answer on its way through a grammar. */
export class MatcherCursor {
  readonly #run: GrammarRun;
  #state: State | null;

  constructor(run: GrammarRun) {
    this.#run = run;
    this.#state = run.start;
  }

  /** True if the answer may end here. */
  get isComplete(): boolean {
    return this.#state?.isComplete ?? false;
  }

  /**
   * A bit for each token that may come next, end tokens included where the answer may end; to be
   * read before the next call. Null if the grammar has lost its way: it can be read in too many
   * ways.
   */
  mask(): Uint32Array | null {
    if (this.#state === null) return null;
    return withoutTooManyWays(() => (this.#state === null ? null : this.#run.mask(this.#state)));
  }

  /** Goes on by a token that is no end token; false if it may not come next. */
  advance(token: number, bytes: Uint8Array): boolean {
    const state = this.#state;
    this.#state =
      state === null ? null : withoutTooManyWays(() => this.#run.afterToken(state, token, bytes));
    return this.#state !== null;
  }
}

function withoutTooManyWays<Result>(compute: () => Result | null): Result | null {
  try {
    return compute();
  } catch (error) {
    if (error instanceof TooManyWaysError) return null;
    throw error;
  }
}

interface RunServices {
  readonly vocabulary: Vocabulary;
  readonly endTokens: readonly number[];
  readonly terminals: TerminalMasks;
  readonly masks: BoundedMasks<State>;
}

/** The states of one grammar. */
export class GrammarRun {
  readonly #grammar: Grammar;
  readonly #services: RunServices;
  readonly #bottom: Frames = { id: 0, depth: 0, isBottom: true, entries: [] };
  /** Marks by terminal and place: 1 where the terminal can go on. */
  readonly #goesOn: readonly Uint8Array[];
  #frames = new Map<string, Frames>();
  #states = new Map<string, State>();
  #nextId = 1;
  readonly #walk: (State | null)[];
  readonly start: State | null;

  constructor(grammar: Grammar, services: RunServices) {
    this.#grammar = grammar;
    this.#services = services;
    this.#goesOn = grammar.terminals.map(({ dfa: { next, classes, accepts } }) =>
      accepts.map((_, place) =>
        next.subarray(place * classes, (place + 1) * classes).some((to) => to >= 0) ? 1 : 0,
      ),
    );
    this.#walk = Array.from({ length: services.vocabulary.depthMax + 1 }, () => null);
    this.start = withoutTooManyWays(() =>
      this.#stateAt((draft) => this.#expand(draft, grammar.start, this.#bottom)),
    );
  }

  mask(state: State): Uint32Array {
    const { vocabulary, endTokens, terminals, masks } = this.#services;
    const known = masks.get(state);
    if (known !== undefined) return known;
    const mask = new Uint32Array(vocabulary.words);
    for (const { terminal, place, frames } of state.scans) {
      const { list, bits, exits } = terminals.at(
        this.#grammar.terminals[terminal] ?? missing(),
        place,
      );
      if (list !== null) for (const token of list) setBit(mask, token);
      if (bits !== null) addBits(mask, bits);
      if (exits.length === 0) continue;
      const after = this.#stateAt((draft) => this.#leave(draft, frames));
      if (after !== null && after.scans.length > 0) {
        for (const exit of exits) this.#walkFrom(exit, after, mask);
      }
    }
    for (const { token } of state.tokens) setBit(mask, token);
    if (state.isComplete) for (const token of endTokens) setBit(mask, token);
    masks.set(state, mask);
    return mask;
  }

  afterToken(state: State, token: number, bytes: Uint8Array): State | null {
    const byToken = state.tokens.find((each) => each.token === token);
    if (byToken !== undefined) return this.#stateAt((draft) => this.#leave(draft, byToken.frames));
    let reached: State | null = bytes.length === 0 ? null : state;
    for (const byte of bytes) reached = reached === null ? null : this.#afterByte(reached, byte);
    return reached;
  }

  /** Marks the tokens below a node of the vocabulary that the state reads to their ends. */
  #walkFrom(exit: number, state: State, mask: Uint32Array): void {
    const { bytes, depths, ends, tokens, sameText } = this.#services.vocabulary;
    const walk = this.#walk;
    walk[depths[exit] ?? missing()] = state;
    const end = ends[exit] ?? missing();
    for (let node = exit + 1; node < end;) {
      const depth = depths[node] ?? missing();
      const before = walk[depth - 1];
      assert(before !== undefined, 'a walk comes to every depth');
      const after = before === null ? null : this.#afterByte(before, bytes[node] ?? missing());
      if (after === null) {
        node = ends[node] ?? missing();
        continue;
      }
      walk[depth] = after;
      for (let token = tokens[node] ?? missing(); token >= 0;) {
        setBit(mask, token);
        token = sameText[token] ?? missing();
      }
      node++;
    }
  }

  #afterByte(state: State, byte: number): State | null {
    const known = state.next[byte];
    if (known !== undefined) return known;
    const after = this.#stateAt((draft) => {
      for (const { terminal, place, frames } of state.scans) {
        const { dfa } = this.#grammar.terminals[terminal] ?? missing();
        const reached = afterByte(dfa, place, byte);
        if (reached >= 0) this.#scan(draft, { terminal, place: reached, frames });
      }
    });
    state.next[byte] = after;
    return after;
  }

  #scan(draft: Draft, scan: Scan): void {
    const { dfa } = this.#grammar.terminals[scan.terminal] ?? missing();
    draft.step();
    const goesOn = this.#goesOn[scan.terminal] ?? missing();
    if (goesOn[scan.place] === 1) {
      const key = scan.terminal * 65_536 + scan.place;
      const same = draft.scans.get(key);
      const frames =
        same === undefined ? scan.frames : this.#union(same.frames, scan.frames, draft);
      draft.scans.set(key, { ...scan, frames });
    }
    if (dfa.accepts[scan.place] === 1) this.#leave(draft, scan.frames);
  }

  /** Leaves what is being read, which is complete. */
  #leave(draft: Draft, frames: Frames): void {
    if (frames.isBottom) draft.isComplete = true;
    for (const { node, below } of frames.entries) this.#expand(draft, node, below);
  }

  #expand(draft: Draft, node: number, below: Frames): void {
    draft.step();
    const key = `${node},${below.id}`;
    if (draft.expanded.has(key)) return;
    draft.expanded.add(key);
    const { edges, isFinal } = this.#grammar.nodes[node] ?? missing();
    if (isFinal) this.#leave(draft, below);
    for (const edge of edges) {
      if (edge.kind === 'skip') {
        this.#expand(draft, edge.to, below);
        continue;
      }
      const frames = this.#push(edge.to, below);
      switch (edge.kind) {
        case 'terminal':
          this.#scan(draft, { terminal: edge.terminal, place: 0, frames });
          break;
        case 'token': {
          const same = draft.tokens.get(edge.token);
          draft.tokens.set(
            edge.token,
            same === undefined ? frames : this.#union(same, frames, draft),
          );
          break;
        }
        case 'call':
          if (frames.depth <= depthMax) this.#expand(draft, edge.start, frames);
          break;
      }
    }
  }

  #push(node: number, below: Frames): Frames {
    const { edges, isFinal } = this.#grammar.nodes[node] ?? missing();
    // Nothing is left to do in what called: whoever called that is next.
    if (isFinal && edges.length === 0) return below;
    return this.#internFrames({ isBottom: false, entries: [{ node, below }] });
  }

  #union(a: Frames, b: Frames, draft: Draft): Frames {
    if (a === b) return a;
    draft.step();
    const entries = new Map(a.entries.map((entry) => [entry.node, entry.below]));
    for (const { node, below } of b.entries) {
      const same = entries.get(node);
      entries.set(node, same === undefined ? below : this.#union(same, below, draft));
    }
    return this.#internFrames({
      isBottom: a.isBottom || b.isBottom,
      entries: [...entries]
        .toSorted(([one], [other]) => one - other)
        .map(([node, below]) => ({ node, below })),
    });
  }

  #internFrames({ isBottom, entries }: Pick<Frames, 'isBottom' | 'entries'>): Frames {
    if (isBottom && entries.length === 0) return this.#bottom;
    const key = `${isBottom}${entries.map(({ node, below }) => `,${node},${below.id}`).join('')}`;
    const known = this.#frames.get(key);
    if (known !== undefined) return known;
    const depth = 1 + Math.max(...entries.map(({ below }) => below.depth));
    const frames = { id: this.#nextId++, depth, isBottom, entries };
    if (this.#frames.size >= statesMax) this.#frames = new Map();
    this.#frames.set(key, frames);
    return frames;
  }

  #stateAt(fill: (draft: Draft) => void): State | null {
    const draft = new Draft();
    fill(draft);
    if (draft.scans.size === 0 && draft.tokens.size === 0 && !draft.isComplete) return null;
    const scans = [...draft.scans].toSorted(([a], [b]) => a - b).map(([, scan]) => scan);
    const tokens = [...draft.tokens].toSorted(([a], [b]) => a - b);
    const key = [
      draft.isComplete,
      ...scans.map(({ terminal, place, frames }) => `${terminal}.${place}.${frames.id}`),
      ...tokens.map(([token, frames]) => `t${token}.${frames.id}`),
    ].join();
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    const state: State = {
      scans,
      tokens: tokens.map(([token, frames]) => ({ token, frames })),
      isComplete: draft.isComplete,
      next: [],
    };
    if (this.#states.size >= statesMax) this.#states = new Map();
    this.#states.set(key, state);
    return state;
  }
}

/** A state while it is being put together. */
class Draft {
  readonly scans = new Map<number, Scan>();
  readonly tokens = new Map<number, Frames>();
  readonly expanded = new Set<string>();
  isComplete = false;
  #steps = 0;

  step(): void {
    if (++this.#steps > stepsMax) throw new TooManyWaysError();
  }
}
