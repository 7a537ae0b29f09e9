/**
 * Writes JSON into a grammar in one way out of the many that JSON has: at most a space, or a line
 * break and an indentation, between elements; no white space around the whole.
 */
import type { Compilation } from './compilation.ts';
import { combineDfa, GrammarLimitError, literalsDfa, withoutTextDfa } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import type { GrammarBuilder } from './grammar.ts';
import { Nfa } from './nfa.ts';
import { SchemaError } from './schema-keywords.ts';
import type { Path } from './schema-keywords.ts';

/** Marked text: pieces of text, and control tokens by their ids. */
export type MarkedText = readonly (string | number)[];

/** White space of one kind: eight levels of two spaces, and of deeper ones as much. */
const indentationMax = 16;

export class JsonText {
  readonly builder: GrammarBuilder;
  readonly compilation: Compilation;

  constructor(builder: GrammarBuilder, compilation: Compilation) {
    this.builder = builder;
    this.compilation = compilation;
  }

  /** The text as it stands. */
  text(from: number, text: string, to: number): void {
    this.terminal(from, `text:${text}`, () => literalsDfa([text], this.compilation.work), to);
  }

  /** Text with control tokens in it, perhaps none of either. */
  marked(from: number, pieces: MarkedText, to: number): void {
    let at = from;
    for (const [index, piece] of pieces.entries()) {
      const next = index === pieces.length - 1 ? to : this.builder.node();
      if (typeof piece === 'number') this.builder.token(at, piece, next);
      else this.text(at, piece, next);
      at = next;
    }
    if (pieces.length === 0) this.builder.skip(from, to);
  }

  /** Any text that does not contain `mark`, an empty one too. */
  textWithout(from: number, mark: string, to: number): void {
    this.terminal(from, `without:${mark}`, () => withoutTextDfa(mark, this.compilation.work), to);
  }

  /** Writes one of the values. */
  values(from: number, values: readonly unknown[], to: number): void {
    const texts = values.map((value) => this.written(value));
    const build = (): Dfa | null => literalsDfa(texts, this.compilation.work);
    this.terminal(from, `texts:${JSON.stringify(texts)}`, build, to);
  }

  /** A character and the white space that may follow it. */
  punctuation(from: number, character: string, to: number): void {
    this.terminal(from, `after:${character}`, () => this.#spaced(character, 'after'), to);
  }

  /** A character and the white space that may stand before it. */
  closing(from: number, character: string, to: number): void {
    this.terminal(from, `before:${character}`, () => this.#spaced(character, 'before'), to);
  }

  written(value: unknown): string {
    const { escaped } = this.compilation;
    const text = JSON.stringify(value);
    if (escaped === null) return text;
    const code = escaped.charCodeAt(0).toString(16).padStart(4, '0');
    return text.replaceAll(escaped, `\\u${code}${escaped.slice(1)}`);
  }

  /** A terminal of strings, without what is to be escaped. */
  strings(from: number, key: string, build: () => Dfa | null, to: number, path: Path = []): void {
    const { escaped, work } = this.compilation;
    if (escaped === null) return this.terminal(from, key, build, to, path);
    const buildWithout = (): Dfa | null => {
      const [dfa, without] = [build(), withoutTextDfa(escaped, work)];
      return dfa === null || without === null ? null : combineDfa([dfa, without], 'and', work);
    };
    this.terminal(from, `${key} without ${escaped}`, buildWithout, to, path);
  }

  /** A terminal that nothing fits adds no edge. @throws SchemaError naming the path */
  terminal(from: number, key: string, build: () => Dfa | null, to: number, path: Path = []): void {
    const { terminals } = this.compilation;
    let terminal = terminals.get(key);
    if (terminal === undefined) {
      try {
        const dfa = build();
        terminal = dfa === null ? null : { key, dfa };
      } catch (error) {
        if (!(error instanceof GrammarLimitError)) throw error;
        throw new SchemaError('unsupported', path, error.message);
      }
      terminals.set(key, terminal);
    }
    if (terminal !== null) this.builder.terminal(from, terminal, to);
  }

  /** Bounded: a model that likes white space must not fill its answer with it. */
  #spaced(character: string, side: 'before' | 'after'): Dfa | null {
    const nfa = new Nfa(this.compilation.work);
    const from = side === 'after' ? nfa.text(nfa.start, character) : nfa.start;
    const spaced = nfa.node();
    nfa.skip(from, spaced);
    nfa.skip(nfa.text(from, ' '), spaced);
    const line = nfa.node();
    nfa.skip(nfa.text(from, '\n'), line);
    nfa.skip(nfa.text(from, '\r\n'), line);
    for (const each of ' \t') {
      const one = (before: number): number => nfa.text(before, each);
      nfa.skip(nfa.repeat(line, { min: 0, max: indentationMax }, one), spaced);
    }
    return nfa.determinize(side === 'after' ? spaced : nfa.text(spaced, character));
  }
}
