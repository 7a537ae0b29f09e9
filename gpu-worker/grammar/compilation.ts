/**
 * The state that the schemas of one request share: their terminals, and the work that they may do.
 */
import { Work } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import { PatternError } from './expression-syntax.ts';
import type { Terminal } from './grammar.ts';
import { contentDfa } from './nfa.ts';
import type { Pattern } from './nfa.ts';
import { parseRegularExpression } from './regular-expression.ts';
import { unsupported } from './schema-keywords.ts';
import type { Path } from './schema-keywords.ts';

export class Compilation {
  readonly work: Work;
  readonly terminals = new Map<string, Terminal | null>();
  readonly #patterns = new Map<string, Pattern>();
  readonly #contents = new Map<string, Dfa | null>();
  /**
   * A character that stands in no string as it is, for the sake of whoever looks for marks in the
   * text. In strings of any text it can be escaped; others go without it.
   */
  readonly escaped: string | null;
  /**
   * True if a schema that states no type, but keywords of one, is meant for values of that type.
   */
  readonly impliesTypes: boolean;

  constructor({
    escaped = null,
    impliesTypes = true,
    pause,
  }: {
    escaped?: string | null;
    impliesTypes?: boolean;
    /** Called often while it goes on. */
    pause?: () => void;
  } = {}) {
    this.work = new Work({ pause });
    this.escaped = escaped;
    this.impliesTypes = impliesTypes;
  }

  /** @throws SchemaError naming the keyword at `path`, GrammarLimitError */
  pattern(source: string, path: Path): Pattern {
    let pattern = this.#patterns.get(source);
    if (pattern === undefined) {
      try {
        pattern = parseRegularExpression(source, this.work);
      } catch (error) {
        if (!(error instanceof PatternError)) throw error;
        throw unsupported(path, error.message);
      }
      this.#patterns.set(source, pattern);
    }
    return pattern;
  }

  /** Automata that strings of the pattern fit all: what it looks ahead for is one of its own. */
  contents(source: string, path: Path): (Dfa | null)[] {
    const pattern = this.pattern(source, path);
    if (pattern.kind !== 'and') return [this.content(source, path)];
    return pattern.parts.map((part) => contentDfa(part, this.work));
  }

  /** The inside of strings whose text is of the pattern. @throws SchemaError, GrammarLimitError */
  content(source: string, path: Path): Dfa | null {
    let dfa = this.#contents.get(source);
    if (dfa === undefined) {
      dfa = contentDfa(this.pattern(source, path), this.work);
      this.#contents.set(source, dfa);
    }
    return dfa;
  }
}
