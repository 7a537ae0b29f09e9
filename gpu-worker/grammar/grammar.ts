/**
 * A grammar of answers: a recursive network of nodes whose edges read a terminal (an automaton over
 * bytes), one control token, or a whole value that begins elsewhere. It is plain data that survives
 * structured clone: HTTP builds it, where a request can still be refused, and the engine runs it.
 */
import { createHash } from 'node:crypto';
import { missing } from '../at.ts';
import { GrammarLimitError } from './dfa.ts';
import type { Dfa } from './dfa.ts';

export interface Terminal {
  /** Terminals of equal keys are equal, whichever grammar they stand in. */
  readonly key: string;
  readonly dfa: Dfa;
}

export type GrammarEdge =
  | { readonly kind: 'terminal'; readonly terminal: number; readonly to: number }
  | { readonly kind: 'token'; readonly token: number; readonly to: number }
  /** Reads what begins at `start` and ends at a final node. */
  | { readonly kind: 'call'; readonly start: number; readonly to: number }
  /** Reads nothing. */
  | { readonly kind: 'skip'; readonly to: number };

export interface GrammarNode {
  readonly edges: readonly GrammarEdge[];
  /** True if what began before may end here. */
  readonly isFinal: boolean;
}

export interface Grammar {
  /** Equal grammars have equal keys. */
  readonly key: string;
  readonly start: number;
  readonly nodes: readonly GrammarNode[];
  readonly terminals: readonly Terminal[];
}

export const grammarNodesMax = 20_000;
export const grammarDfaStatesMax = 32_768;

/** Estimates the memory that it takes to keep the grammar. */
export function grammarBytes({ nodes, terminals }: Grammar): number {
  const edges = nodes.reduce((sum, node) => sum + node.edges.length, 0);
  return terminals.reduce((sum, { dfa }) => sum + dfa.next.byteLength, 64 * (nodes.length + edges));
}

/**
 * Keeps the latest of what was made from grammars, as many as `countMax` and as large together as
 * `bytesMax`.
 */
export class RecentGrammars<Value> {
  readonly #values = new Map<string, { readonly value: Value; readonly bytes: number }>();
  readonly #limits: { readonly countMax: number; readonly bytesMax: number };
  #bytes = 0;

  constructor(limits: { readonly countMax: number; readonly bytesMax: number }) {
    this.#limits = limits;
  }

  /** Gives the value kept under the key, or makes one together with the grammar it is made from. */
  get(key: string, make: () => { readonly value: Value; readonly grammar: Grammar }): Value {
    let kept = this.#values.get(key);
    if (kept === undefined) {
      const { value, grammar } = make();
      kept = { value, bytes: grammarBytes(grammar) };
      this.#bytes += kept.bytes;
    }
    this.#values.delete(key);
    this.#values.set(key, kept);
    for (const [oldest, { bytes }] of this.#values) {
      if (this.#values.size <= this.#limits.countMax && this.#bytes <= this.#limits.bytesMax) break;
      this.#values.delete(oldest);
      this.#bytes -= bytes;
    }
    return kept.value;
  }
}

interface OpenNode {
  edges: GrammarEdge[];
  isFinal: boolean;
}

export class GrammarBuilder {
  readonly #nodes: OpenNode[] = [];
  readonly #terminals: Terminal[] = [];
  readonly #terminalIds = new Map<string, number>();
  #dfaStates = 0;

  /** @throws GrammarLimitError */
  node(options: { isFinal: boolean } = { isFinal: false }): number {
    if (this.#nodes.length === grammarNodesMax) {
      throw new GrammarLimitError(`it needs a grammar of more than ${grammarNodesMax} nodes`);
    }
    return this.#nodes.push({ edges: [], isFinal: options.isFinal }) - 1;
  }

  /** @throws GrammarLimitError */
  terminal(from: number, terminal: Terminal, to: number): void {
    let id = this.#terminalIds.get(terminal.key);
    if (id === undefined) {
      this.#dfaStates += terminal.dfa.accepts.length;
      if (this.#dfaStates > grammarDfaStatesMax) {
        throw new GrammarLimitError(
          `it needs automata of more than ${grammarDfaStatesMax} states in all`,
        );
      }
      id = this.#terminals.push(terminal) - 1;
      this.#terminalIds.set(terminal.key, id);
    }
    (this.#nodes[from] ?? missing()).edges.push({ kind: 'terminal', terminal: id, to });
  }

  token(from: number, token: number, to: number): void {
    (this.#nodes[from] ?? missing()).edges.push({ kind: 'token', token, to });
  }

  call(from: number, start: number, to: number): void {
    (this.#nodes[from] ?? missing()).edges.push({ kind: 'call', start, to });
  }

  skip(from: number, to: number): void {
    (this.#nodes[from] ?? missing()).edges.push({ kind: 'skip', to });
  }

  /**
   * The grammar without what can never be completed, such as an object that must hold another of
   * its own kind; null if nothing is left, `endless` if a value may begin with itself.
   */
  build(start: number): Grammar | null | 'endless' {
    this.#prune();
    if (this.#isDead(start)) return null;
    if (this.#beginsWithItself(start)) return 'endless';
    const nodes: readonly GrammarNode[] = this.#nodes;
    const terminals: readonly Terminal[] = this.#terminals;
    const described = JSON.stringify([start, nodes, terminals.map(({ key }) => key)]);
    const key = createHash('sha256').update(described).digest('hex');
    return { key, start, nodes, terminals };
  }

  /** Nodes from which a final one can be reached, by the least fixed point. */
  #prune(): void {
    const isAlive = new Uint8Array(this.#nodes.length);
    const waiting: { from: number; edge: GrammarEdge }[][] = this.#nodes.map(() => []);
    const queue: number[] = [];
    const mark = (node: number): void => {
      if (isAlive[node] === 1) return;
      isAlive[node] = 1;
      queue.push(node);
    };
    const look = (from: number, edge: GrammarEdge): void => {
      if (isAlive[edge.to] === 0) (waiting[edge.to] ?? missing()).push({ from, edge });
      else if (edge.kind === 'call' && isAlive[edge.start] === 0) {
        (waiting[edge.start] ?? missing()).push({ from, edge });
      } else mark(from);
    };
    this.#nodes.forEach((node, index) => {
      if (node.isFinal) mark(index);
      for (const edge of node.edges) look(index, edge);
    });
    for (let node = queue.pop(); node !== undefined; node = queue.pop()) {
      for (const { from, edge } of (waiting[node] ?? missing()).splice(0)) look(from, edge);
    }
    this.#nodes.forEach((node, index) => {
      node.isFinal &&= isAlive[index] === 1;
      node.edges = node.edges.filter(
        (edge) => isAlive[edge.to] === 1 && (edge.kind !== 'call' || isAlive[edge.start] === 1),
      );
    });
  }

  #isDead(start: number): boolean {
    const { edges, isFinal } = this.#nodes[start] ?? missing();
    return edges.length === 0 && !isFinal;
  }

  /** Looks for a cycle of edges that read nothing. */
  #beginsWithItself(start: number): boolean {
    const done = new Set<number>();
    const open = new Set<number>();
    // A stack of its own: a chain of optional properties is as long as the schema.
    const stack: { node: number; next: readonly number[]; at: number }[] = [];
    const enter = (node: number): boolean => {
      if (open.has(node)) return true;
      if (done.has(node)) return false;
      open.add(node);
      stack.push({ node, next: this.#withoutReading(node), at: 0 });
      return false;
    };
    for (const first of this.#reachable(start)) {
      if (enter(first)) return true;
      for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
        if (top.at < top.next.length) {
          if (enter(top.next[top.at++] ?? missing())) return true;
        } else {
          open.delete(top.node);
          done.add(top.node);
          stack.pop();
        }
      }
    }
    return false;
  }

  #withoutReading(node: number): readonly number[] {
    return (this.#nodes[node] ?? missing()).edges.flatMap((edge) => {
      if (edge.kind === 'skip') return [edge.to];
      if (edge.kind === 'call') return [edge.start];
      const isEmpty =
        edge.kind === 'terminal' &&
        (this.#terminals[edge.terminal] ?? missing()).dfa.accepts[0] === 1;
      return isEmpty ? [edge.to] : [];
    });
  }

  #reachable(start: number): Iterable<number> {
    const reached = new Set([start]);
    for (const node of reached) {
      for (const edge of (this.#nodes[node] ?? missing()).edges) {
        reached.add(edge.to);
        if (edge.kind === 'call') reached.add(edge.start);
      }
    }
    return reached;
  }
}
