/**
 * From a JSON schema to a grammar of exactly such values as it allows, written in one way out of the
 * many that JSON has: declared properties in their order, then others; at most a space, or a line
 * break and an indentation, between elements; no white space around the whole. Every value that the
 * grammar lets through is valid; what can't be kept is refused by its keyword.
 */
import { combineDfa, GrammarLimitError, literalsDfa, withoutTextDfa, Work } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import { areDisjoint } from './disjoint-schemas.ts';
import { formatPatterns } from './formats.ts';
import { GrammarBuilder } from './grammar.ts';
import type { Terminal } from './grammar.ts';
import { Nfa } from './nfa.ts';
import type { Pattern } from './nfa.ts';
import { integerDfa, multipleOfMax, numberDfa } from './numbers.ts';
import type { NumberRange } from './numbers.ts';
import { PatternError } from './expression-syntax.ts';
import { parseRegularExpression } from './regular-expression.ts';
import {
  annotations,
  countAt,
  findReference,
  invalid,
  isObject,
  isOfType,
  listAt,
  numberAt,
  plainKeywords,
  SchemaError,
  tighter,
  typesOf,
  unsupported,
} from './schema-keywords.ts';
import type { Path, Schema, TypeName } from './schema-keywords.ts';
import { otherStringsDfa, stringDfa } from './strings.ts';

export const schemaBytesMax = 131_072;
export const schemaDepthMax = 64;
/** Of all `anyOf` and `oneOf` together: the engine follows them side by side. */
export const schemaOptionsMax = 256;
const indentationMax = 64;

/** What the schemas of one request share: their terminals, and the work that they may take together. */
export class Compilation {
  readonly work = new Work();
  readonly terminals = new Map<string, Terminal | null>();
  /**
   * A character that stands in no string as it is, for the sake of whoever looks for marks in the text.
   * In strings of any text it can be escaped; others go without it.
   */
  readonly escaped: string | null;

  constructor({ escaped = null }: { escaped?: string | null } = {}) {
    this.escaped = escaped;
  }
}

/** Puts the values of JSON schemas into a grammar. One per grammar. */
export class JsonWriter {
  readonly #builder: GrammarBuilder;
  readonly #compilation: Compilation;
  /** Of schemas that are referred to: where their values start, by the root and the reference. */
  readonly #references = new Map<unknown, Map<string, number>>();
  /** What is referred to is written one after the other, not inside one another. */
  readonly #pending: (() => void)[] = [];
  #anyContainer: number | null = null;
  #optionsCount = 0;

  constructor(builder: GrammarBuilder, compilation = new Compilation()) {
    this.#builder = builder;
    this.#compilation = compilation;
  }

  /** Any JSON object. */
  object(from: number, to: number): void {
    const others: Place = { schema: true, root: true, path: [], depth: 0 };
    this.#members(from, to, { names: [], required: new Set(), others });
  }

  /**
   * Values of `schema`, which is a whole document: its references start at it.
   * @throws SchemaError, GrammarLimitError
   */
  schema(from: number, schema: unknown, to: number): void {
    this.#value(from, to, { schema, root: schema, path: [], depth: 0 });
    for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift()) next();
  }

  /** Any text that does not contain `mark`, an empty one too. */
  textWithout(from: number, mark: string, to: number): void {
    this.#terminal(from, `without:${mark}`, () => withoutTextDfa(mark, this.#compilation.work), to);
  }

  /** The text as it stands. */
  text(from: number, text: string, to: number): void {
    this.#terminal(from, `text:${text}`, () => literalsDfa([text], this.#compilation.work), to);
  }

  /** @throws SchemaError, GrammarLimitError */
  #value(from: number, to: number, at: Place): void {
    const { schema, path } = at;
    if (at.depth > schemaDepthMax) {
      throw new GrammarLimitError(`it is nested more than ${schemaDepthMax} deep`);
    }
    if (schema === true) return this.#anyValue(from, to);
    // Nothing is valid: no edge leads on.
    if (schema === false) return;
    if (!isObject(schema)) throw invalid(path, 'expected a schema: an object or a boolean');
    const keywords = Object.keys(schema).filter(
      (each) => !annotations.has(each) && !each.startsWith('x-'),
    );
    const allow = (names: readonly string[]): void => {
      const stray = keywords.find((each) => !names.includes(each));
      if (stray !== undefined)
        throw unsupported([...path, stray], `it stands beside '${names[0]}'`);
    };
    if (Object.hasOwn(schema, '$ref')) {
      allow(['$ref']);
      return this.#reference(from, to, at);
    }
    for (const keyword of ['anyOf', 'oneOf'] as const) {
      if (!Object.hasOwn(schema, keyword)) continue;
      allow([keyword]);
      return this.#options(from, to, { keyword, at });
    }
    if (Object.hasOwn(schema, 'allOf')) {
      const all = listAt(schema, 'allOf', path);
      if (all.length !== 1) throw unsupported([...path, 'allOf'], 'it joins several schemas');
      allow(['allOf']);
      return this.#value(from, to, below(at, ['allOf', 0], all[0]));
    }
    if (Object.hasOwn(schema, 'const') || Object.hasOwn(schema, 'enum')) {
      allow([Object.hasOwn(schema, 'const') ? 'const' : 'enum', 'type']);
      return this.#oneOfValues(from, to, { schema, path });
    }
    const unknown = keywords.find((each) => !plainKeywords.has(each));
    if (unknown !== undefined) throw unsupported([...path, unknown], 'output can’t be held to it');
    const types = typesOf(schema, path);
    if (types === null) return this.#anyValue(from, to);
    for (const type of types) this.#valueOfType(from, to, { type, schema, at });
  }

  #valueOfType(
    from: number,
    to: number,
    { type, schema, at }: { type: TypeName; schema: Schema; at: Place },
  ): void {
    const { path } = at;
    switch (type) {
      case 'null':
        return this.text(from, 'null', to);
      case 'boolean':
        this.text(from, 'true', to);
        return this.text(from, 'false', to);
      case 'integer':
      case 'number':
        return this.#number(from, to, { type, schema, path });
      case 'string':
        return this.#string(from, to, { schema, path });
      case 'array':
        return this.#array(from, to, { schema, at });
      case 'object':
        return this.#object(from, to, { schema, at });
    }
  }

  #anyValue(from: number, to: number): void {
    for (const text of ['null', 'true', 'false']) this.text(from, text, to);
    this.#number(from, to, { type: 'number', schema: {}, path: [] });
    this.#string(from, to, { schema: {}, path: [] });
    if (this.#anyContainer === null) {
      // Known before its inside is written, which refers to it.
      const start = (this.#anyContainer = this.#builder.node());
      const end = this.#builder.node({ isFinal: true });
      this.object(start, end);
      this.#items(start, end, { min: 0, max: Infinity }, (before, after) =>
        this.#anyValue(before, after),
      );
    }
    this.#builder.call(from, this.#anyContainer, to);
  }

  #reference(from: number, to: number, at: Place): void {
    const { schema, root, path } = at;
    const reference = isObject(schema) ? schema.$ref : null;
    const place = [...path, '$ref'];
    if (typeof reference !== 'string') throw invalid(place, 'expected a string');
    if (!/^#(\/|$)/.test(reference)) {
      throw unsupported(
        place,
        'only places in the same schema, such as #/$defs/name, can be meant',
      );
    }
    const known = this.#references.get(root) ?? new Map<string, number>();
    this.#references.set(root, known);
    let start = known.get(reference);
    if (start === undefined) {
      const first = (start = this.#builder.node());
      known.set(reference, first);
      const target = findReference(root, reference);
      if (target === undefined) throw invalid(place, `nothing stands at ${reference}`);
      const end = this.#builder.node({ isFinal: true });
      this.#pending.push(() => this.#value(first, end, { ...target, root, depth: 0 }));
    }
    this.#builder.call(from, start, to);
  }

  #options(
    from: number,
    to: number,
    { keyword, at }: { keyword: 'anyOf' | 'oneOf'; at: Place },
  ): void {
    const { schema, root, path } = at;
    const options = isObject(schema) ? listAt(schema, keyword, path) : [];
    this.#optionsCount += options.length;
    if (this.#optionsCount > schemaOptionsMax) {
      throw unsupported([...path, keyword], `there are more than ${schemaOptionsMax} options`);
    }
    if (keyword === 'oneOf') {
      const isApart = options.every((one, index) =>
        options.slice(index + 1).every((other) => areDisjoint(one, other, root)),
      );
      const reason =
        'its options do not exclude one another by their types or by a constant property';
      if (!isApart) throw unsupported([...path, keyword], reason);
    }
    // Equal options would be followed side by side for nothing.
    const seen = new Set<string>();
    options.forEach((option, index) => {
      const written = JSON.stringify(option);
      if (!seen.has(written)) this.#value(from, to, below(at, [keyword, index], option));
      seen.add(written);
    });
  }

  #oneOfValues(from: number, to: number, { schema, path }: { schema: Schema; path: Path }): void {
    const isConst = Object.hasOwn(schema, 'const');
    if (isConst && Object.hasOwn(schema, 'enum')) {
      throw unsupported([...path, 'enum'], "it stands beside 'const'");
    }
    const values = isConst ? [schema.const] : listAt(schema, 'enum', path);
    const types = typesOf(schema, path);
    const fitting = values.filter(
      (value) => types === null || types.some((each) => isOfType(value, each)),
    );
    const texts = fitting.map((value) => this.#written(value));
    this.#terminal(
      from,
      `texts:${JSON.stringify(texts)}`,
      () => literalsDfa(texts, this.#compilation.work),
      to,
    );
  }

  #number(
    from: number,
    to: number,
    { type, schema, path }: { type: 'integer' | 'number'; schema: Schema; path: Path },
  ): void {
    const multipleOf = numberAt(schema, 'multipleOf', path);
    if (multipleOf !== null) {
      const isKept =
        type === 'integer' &&
        Number.isInteger(multipleOf) &&
        multipleOf > 0 &&
        multipleOf <= multipleOfMax;
      const reason = `only integers can be held to it, and to integers from 1 to ${multipleOfMax}`;
      if (!isKept) throw unsupported([...path, 'multipleOf'], reason);
    }
    const range: NumberRange = {
      min: tighter(schema, path, { inclusive: 'minimum', exclusive: 'exclusiveMinimum' }, Math.max),
      max: tighter(schema, path, { inclusive: 'maximum', exclusive: 'exclusiveMaximum' }, Math.min),
      multipleOf,
    };
    const key = `${type}:${JSON.stringify(range)}`;
    const build = (): Dfa | null =>
      type === 'integer'
        ? integerDfa(range, this.#compilation.work)
        : numberDfa(range, this.#compilation.work);
    this.#terminal(from, key, build, to, path);
  }

  #string(from: number, to: number, { schema, path }: { schema: Schema; path: Path }): void {
    const sources: string[] = [];
    const patterns: Pattern[] = [];
    const add = (keyword: 'pattern' | 'format', source: string): void => {
      try {
        patterns.push(parseRegularExpression(source, this.#compilation.work));
        sources.push(source);
      } catch (error) {
        if (!(error instanceof PatternError)) throw error;
        throw unsupported([...path, keyword], error.message);
      }
    };
    const { pattern, format } = schema;
    if (pattern !== undefined) {
      if (typeof pattern !== 'string') throw invalid([...path, 'pattern'], 'expected a string');
      add('pattern', pattern);
    }
    if (format !== undefined) {
      const known = typeof format === 'string' ? formatPatterns.get(format) : undefined;
      const names = [...formatPatterns.keys()].join(', ');
      if (known === undefined)
        throw unsupported([...path, 'format'], `the known ones are ${names}`);
      add('format', known);
    }
    const length = {
      min: countAt(schema, 'minLength', path) ?? 0,
      max: countAt(schema, 'maxLength', path) ?? Infinity,
    };
    const key = `string:${JSON.stringify([sources, length.min, String(length.max)])}`;
    const build = (): Dfa | null => stringDfa({ patterns, length }, this.#compilation.work);
    this.#terminal(from, ...this.#escaping(key, build), to, path);
  }

  #array(from: number, to: number, { schema, at }: { schema: Schema; at: Place }): void {
    const { path } = at;
    const count = {
      min: countAt(schema, 'minItems', path) ?? 0,
      max: countAt(schema, 'maxItems', path) ?? Infinity,
    };
    const items = Object.hasOwn(schema, 'items') ? schema.items : true;
    if (Array.isArray(items)) throw unsupported([...path, 'items'], 'it is a list of schemas');
    this.#items(from, to, count, (before, after) =>
      this.#value(before, after, below(at, ['items'], items)),
    );
  }

  /** Items between brackets: `item` is written once per place that the counts tell apart. */
  #items(
    from: number,
    to: number,
    count: { min: number; max: number },
    item: (before: number, after: number) => void,
  ): void {
    if (count.min > count.max) return;
    const builder = this.#builder;
    const open = builder.node();
    this.#punctuation(from, '[', open);
    if (count.min === 0) this.text(open, ']', to);
    if (count.max === 0) return;
    // One value that all places call, however many they are.
    const value = builder.node();
    item(value, builder.node({ isFinal: true }));
    const places = count.max === Infinity ? Math.max(count.min, 1) : count.max;
    let before = open;
    for (let place = 1; place <= places; place++) {
      const after = builder.node();
      builder.call(before, value, after);
      if (place >= count.min) this.#closing(after, ']', to);
      if (place < places) {
        before = builder.node();
        this.#punctuation(after, ',', before);
      } else if (count.max === Infinity) {
        const again = builder.node();
        this.#punctuation(after, ',', again);
        builder.call(again, value, after);
      }
    }
  }

  #object(from: number, to: number, { schema, at }: { schema: Schema; at: Place }): void {
    const { path } = at;
    const properties = schema.properties ?? {};
    if (!isObject(properties)) throw invalid([...path, 'properties'], 'expected an object');
    const required = schema.required === undefined ? [] : listAt(schema, 'required', path);
    const names = new Map<string, Place>(
      Object.entries(properties).map(([name, property]) => [
        name,
        below(at, ['properties', name], property),
      ]),
    );
    const others = below(
      at,
      ['additionalProperties'],
      Object.hasOwn(schema, 'additionalProperties') ? schema.additionalProperties : true,
    );
    for (const name of required) {
      if (typeof name !== 'string') throw invalid([...path, 'required'], 'expected names');
      if (!names.has(name)) names.set(name, others);
    }
    this.#members(from, to, { names: [...names], required: new Set(required), others });
  }

  /**
   * Members between braces, in order. Node i of `starts` is where property i or a later one begins;
   * node i of `ends` where the properties before i are done and at least one was written.
   */
  #members(
    from: number,
    to: number,
    object: {
      readonly names: readonly (readonly [string, Place])[];
      readonly required: ReadonlySet<unknown>;
      /** Of properties that are not declared. */
      readonly others: Place;
    },
  ): void {
    const { names, required, others } = object;
    const builder = this.#builder;
    const open = builder.node();
    this.#punctuation(from, '{', open);
    const starts = Array.from({ length: names.length + 1 }, () => builder.node());
    const ends = Array.from({ length: names.length + 1 }, () => builder.node());
    builder.skip(open, starts[0]);
    const lastRequired = names.findLastIndex(([name]) => required.has(name));
    if (lastRequired < 0) this.text(open, '}', to);

    names.forEach(([name, place], index) => {
      this.#member(starts[index], this.#written(name), ends[index + 1], place);
      if (!required.has(name)) builder.skip(starts[index], starts[index + 1]);
    });
    if (others.schema !== false) {
      const excluded = names.map(([name]) => name);
      const key = builder.node();
      const build = (): Dfa | null => otherStringsDfa(excluded, this.#compilation.work);
      this.#terminal(
        starts[names.length],
        ...this.#escaping(`other:${JSON.stringify(excluded)}`, build),
        key,
      );
      const value = builder.node();
      this.#punctuation(key, ':', value);
      this.#value(value, ends[names.length], others);
    }
    ends.forEach((end, index) => {
      if (index === 0 && names.length > 0) return;
      this.#punctuation(end, ',', starts[index]);
      if (index > lastRequired) this.#closing(end, '}', to);
    });
  }

  #member(from: number, key: string, to: number, place: Place): void {
    const colon = this.#builder.node();
    const value = this.#builder.node();
    this.text(from, key, colon);
    this.#punctuation(colon, ':', value);
    this.#value(value, to, place);
  }

  /** A character and the white space that may follow it. */
  #punctuation(from: number, character: string, to: number): void {
    this.#terminal(from, `after:${character}`, () => this.#spaced(character, 'after'), to);
  }

  /** A character and the white space that may stand before it. */
  #closing(from: number, character: string, to: number): void {
    this.#terminal(from, `before:${character}`, () => this.#spaced(character, 'before'), to);
  }

  /** Bounded: a model that likes white space must not fill its answer with it. */
  #spaced(character: string, side: 'before' | 'after'): Dfa | null {
    const nfa = new Nfa(this.#compilation.work);
    const from = side === 'after' ? nfa.text(nfa.start, character) : nfa.start;
    const spaced = nfa.node();
    nfa.skip(from, spaced);
    nfa.skip(nfa.text(from, ' '), spaced);
    const line = nfa.node();
    nfa.skip(nfa.text(from, '\n'), line);
    nfa.skip(nfa.text(from, '\r\n'), line);
    const indented = nfa.repeat(line, { min: 0, max: indentationMax }, (before) => {
      const after = nfa.node();
      for (const each of ' \t') nfa.skip(nfa.text(before, each), after);
      return after;
    });
    nfa.skip(indented, spaced);
    return nfa.determinize(side === 'after' ? spaced : nfa.text(spaced, character));
  }

  #written(value: unknown): string {
    const { escaped } = this.#compilation;
    const text = JSON.stringify(value);
    if (escaped === null) return text;
    const code = escaped.charCodeAt(0).toString(16).padStart(4, '0');
    return text.replaceAll(escaped, `\\u${code}`);
  }

  /** The terminal of a key without what is to be escaped. */
  #escaping(key: string, build: () => Dfa | null): [string, () => Dfa | null] {
    const { escaped } = this.#compilation;
    if (escaped === null) return [key, build];
    const buildWithout = (): Dfa | null => {
      const [dfa, without] = [build(), withoutTextDfa(escaped, this.#compilation.work)];
      return dfa === null || without === null
        ? null
        : combineDfa([dfa, without], 'and', this.#compilation.work);
    };
    return [`${key} without ${escaped}`, buildWithout];
  }

  /** A terminal that nothing fits adds no edge. */
  #terminal(from: number, key: string, build: () => Dfa | null, to: number, path: Path = []): void {
    let terminal = this.#compilation.terminals.get(key);
    if (terminal === undefined) {
      try {
        const dfa = build();
        terminal = dfa === null ? null : { key, dfa };
      } catch (error) {
        if (!(error instanceof GrammarLimitError)) throw error;
        throw new SchemaError('unsupported', path, error.message);
      }
      this.#compilation.terminals.set(key, terminal);
    }
    if (terminal !== null) this.#builder.terminal(from, terminal, to);
  }
}

/** A schema, where it stands, and the document that its references start at. */
interface Place {
  readonly schema: unknown;
  readonly root: unknown;
  readonly path: Path;
  readonly depth: number;
}

function below(at: Place, keys: Path, schema: unknown): Place {
  return { schema, root: at.root, path: [...at.path, ...keys], depth: at.depth + 1 };
}
