/** Writes strings into a grammar as they stand, without quotes and escapes, up to an end mark. */
import type { Compilation } from './compilation.ts';
import { combineDfa, literalsDfa, withoutTextDfa } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import type { GrammarBuilder } from './grammar.ts';
import { JsonText } from './json-text.ts';
import type { Path } from './schema-keywords.ts';
import { unquotedDfa } from './strings.ts';

export class RawText extends JsonText {
  /** The mark that ends a text, so that none holds it. */
  readonly #end: string;

  constructor(builder: GrammarBuilder, compilation: Compilation, end: string) {
    super(builder, compilation);
    this.#end = end;
  }

  /** Those of the values that are texts. */
  override values(from: number, values: readonly unknown[], to: number): void {
    const texts = values.filter(
      (value): value is string => typeof value === 'string' && !value.includes(this.#end),
    );
    const build = (): Dfa | null => literalsDfa(texts, this.compilation.work);
    this.terminal(from, `texts:${JSON.stringify(texts)}`, build, to);
  }

  /** @param build makes the automaton of the same strings as JSON */
  override strings(
    from: number,
    key: string,
    build: () => Dfa | null,
    to: number,
    path: Path = [],
  ): void {
    const { work } = this.compilation;
    const buildRaw = (): Dfa | null => {
      const strings = build();
      const texts = strings === null ? null : unquotedDfa(strings, work);
      const without = withoutTextDfa(this.#end, work);
      return texts === null || without === null ? null : combineDfa([texts, without], 'and', work);
    };
    this.terminal(from, `raw ${key} without ${this.#end}`, buildRaw, to, path);
  }
}
