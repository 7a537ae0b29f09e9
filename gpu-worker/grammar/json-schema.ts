/**
 * Compiles a JSON schema to a grammar of exactly such values as it allows, written in one way out
 * of the many that JSON has: declared properties in their order, then others. Every value that the
 * grammar lets through is valid; what can't be kept is refused by its keyword.
 */
import { missing } from '../at.ts';
import { arrayRules } from './array-rules.ts';
import { Compilation } from './compilation.ts';
import type { Dfa } from './dfa.ts';
import { areDisjoint } from './disjoint-schemas.ts';
import type { GrammarBuilder } from './grammar.ts';
import { JsonText } from './json-text.ts';
import type { MarkedText } from './json-text.ts';
import { numberRange } from './number-rules.ts';
import { integerDfa, numberDfa } from './numbers.ts';
import { anyObject, listedValues, objectRules } from './object-rules.ts';
import type { SchemaReading } from './object-rules.ts';
import {
  addedBy,
  isList,
  SchemaBranches,
  schemaOptionsMax,
  typesTogether,
} from './schema-branches.ts';
import type { Part } from './schema-branches.ts';
import { refuseDeep, SchemaDocument } from './schema-document.ts';
import type { Place } from './schema-document.ts';
import {
  applicators,
  constraintsOf,
  impliedTypes,
  invalid,
  isObject,
  listAt,
  refusedKeywords,
  unsupported,
} from './schema-keywords.ts';
import { SchemaValues } from './schema-values.ts';
import { stringKey, stringRules, stringRulesDfa } from './string-rules.ts';
import { writeArray } from './write-array.ts';
import {
  createTaggedWriter,
  markerPlace,
  rawStringSchema,
  taggedSchema,
} from './tagged-members.ts';
import type { TaggedSyntax, TaggedWriter } from './tagged-members.ts';
import { jsonSurface, writeObject } from './write-object.ts';
import type { ObjectSurface, WriteValue } from './write-object.ts';

export const schemaBytesMax = 131_072;

/** Puts the values of JSON schemas into a grammar. One per grammar. */
export class JsonWriter {
  readonly #text: JsonText;
  #anyContainer: number | null = null;
  #optionsCount = 0;

  constructor(builder: GrammarBuilder, compilation = new Compilation()) {
    this.#text = new JsonText(builder, compilation);
  }

  /** The text as it stands. */
  text(from: number, text: string, to: number): void {
    this.#text.text(from, text, to);
  }

  /** Any text that does not contain `mark`, an empty one too. */
  textWithout(from: number, mark: string, to: number): void {
    this.#text.textWithout(from, mark, to);
  }

  /** Any JSON object. */
  object(from: number, to: number): void {
    const value = (before: number, after: number): void => this.anyValue(before, after);
    const surface = jsonSurface(this.#text, value);
    writeObject(this.#text.builder, anyObject, { from, to, surface });
  }

  /**
   * Values of `schema`, which is a whole document: its references start at it. If it is not strict,
   * items that repeat, and too few members, are let through where they can't be counted.
   * @throws SchemaError, GrammarLimitError
   */
  schema(from: number, schema: unknown, to: number, { isStrict = true } = {}): void {
    const document = new SchemaDocument(schema);
    new SchemaWriter(this, this.#text, { document, isStrict }).write(from, to);
  }

  /** Text with control tokens in it. */
  marked(from: number, pieces: MarkedText, to: number): void {
    this.#text.marked(from, pieces, to);
  }

  /**
   * The members of objects of `schema`, each in its tags.
   * @throws SchemaError, GrammarLimitError
   */
  members(
    from: number,
    schema: unknown,
    to: number,
    options: { readonly syntax: TaggedSyntax; readonly isStrict: boolean },
  ): void {
    const document = new SchemaDocument(schema);
    const tagged = createTaggedWriter(this.#text, options.syntax);
    const { isStrict } = options;
    new SchemaWriter(this, this.#text, { document, isStrict, tagged }).write(from, to);
  }

  /** Any JSON value. */
  anyValue(from: number, to: number): void {
    const { builder } = this.#text;
    for (const text of ['null', 'true', 'false']) this.text(from, text, to);
    writeScalar(this.#text, 'number', [], { from, to });
    writeScalar(this.#text, 'string', [], { from, to });
    if (this.#anyContainer === null) {
      // Known before its inside is written, which refers to it.
      const start = (this.#anyContainer = builder.node());
      const end = builder.node({ isFinal: true });
      this.object(start, end);
      const rules = { prefix: [], rest: [], containing: null, distinct: null };
      const value = (before: number, after: number): void => this.anyValue(before, after);
      const count = { min: 0, max: Infinity };
      writeArray(this.#text, { ...rules, count }, { from: start, to: end, value });
    }
    builder.call(from, this.#anyContainer, to);
  }

  /** Counts the choices of a grammar, all together. @throws SchemaError */
  countOptions(count: number, at: Place): void {
    this.#optionsCount += count;
    if (this.#optionsCount <= schemaOptionsMax) return;
    throw unsupported(at.path, `there are more than ${schemaOptionsMax} options`);
  }
}

/** Writes the values of one document. */
class SchemaWriter {
  readonly #json: JsonWriter;
  readonly #text: JsonText;
  readonly #reading: SchemaReading;
  /** Writes objects in tags and texts as they stand, where that is asked for. */
  readonly #tagged: TaggedWriter | null;
  /** Parts that are written once and called: references, and schemas that hold together. */
  readonly #written = new Map<string, number>();
  readonly #ids = new Map<unknown, number>();
  /** Called parts are written one after the other, not inside one another. */
  readonly #pending: (() => void)[] = [];

  constructor(
    json: JsonWriter,
    text: JsonText,
    {
      document,
      isStrict,
      tagged = null,
    }: Pick<SchemaReading, 'document' | 'isStrict'> & { readonly tagged?: TaggedWriter | null },
  ) {
    const { compilation } = text;
    this.#json = json;
    this.#text = text;
    this.#tagged = tagged;
    this.#reading = {
      document,
      values: new SchemaValues(document, compilation),
      branches: new SchemaBranches(document, compilation.work),
      compilation,
      isStrict,
    };
  }

  write(from: number, to: number): void {
    const tags = this.#tagged === null ? [] : [markerPlace(taggedSchema)];
    this.#value(from, to, [this.#reading.document.root, ...tags]);
    for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift()) next();
  }

  /** A value that fits all the schemas. */
  #value(from: number, to: number, places: readonly Place[]): void {
    const restricting: Part[] = [];
    for (const at of places) {
      const { schema, path } = at;
      refuseDeep(at);
      // Nothing is valid: no edge leads on.
      if (schema === false) return;
      if (schema === true) continue;
      if (!isObject(schema)) throw invalid(path, 'expected a schema: an object or a boolean');
      const isKnown = restricting.some((part) => part.schema === schema);
      if (!isKnown && constraintsOf(schema).length > 0) restricting.push({ ...at, schema });
    }
    const [part, ...others] = restricting;
    if (part === undefined) return this.#json.anyValue(from, to);
    if (others.length > 0 || !this.#single(from, to, part)) this.#together(from, to, restricting);
  }

  /** The usual schemas, which say one thing; false for one that says several together. */
  #single(from: number, to: number, part: Part): boolean {
    const { schema } = part;
    const { document } = this.#reading;
    const keywords = constraintsOf(schema);
    const choosing = applicators.filter((keyword) => Object.hasOwn(schema, keyword));
    if (choosing.length === 0) {
      this.#branch(from, to, [part]);
      return true;
    }
    const [keyword] = keywords;
    const isAlone = keywords.length === 1 || !document.hasSiblings(schema);
    if (!isAlone) return false;
    if (Object.hasOwn(schema, '$ref')) {
      const places = [document.target(part, '$ref')];
      const write = (start: number, end: number): void => this.#value(start, end, places);
      this.#called(from, to, { kind: 'reference', places, write });
      return true;
    }
    if (keyword !== 'anyOf' && keyword !== 'oneOf') return false;
    const options = listAt(schema, keyword, part.path).map((each, index) =>
      document.below(part, [keyword, index], each),
    );
    this.#json.countOptions(options.length, { ...part, path: [...part.path, keyword] });
    const isApart =
      keyword === 'anyOf' ||
      options.every((one, index) =>
        options.slice(index + 1).every((other) => areDisjoint(one, other, document)),
      );
    if (!isApart) return false;
    // Equal options would be followed side by side for nothing.
    const seen = new Set<string>();
    for (const option of options) {
      const written = JSON.stringify([option.base, option.schema]);
      if (!seen.has(written)) this.#value(from, to, [option]);
      seen.add(written);
    }
    return true;
  }

  /** Schemas that hold together, written once. */
  #together(from: number, to: number, parts: readonly Part[]): void {
    const write = (start: number, end: number): void => {
      const branches = this.#reading.branches.of(parts);
      if (branches.length > 1) this.#json.countOptions(branches.length, parts[0] ?? missing());
      for (const branch of branches) this.#branch(start, end, branch);
    };
    this.#called(from, to, { kind: 'together', places: parts, write });
  }

  #called(
    from: number,
    to: number,
    what: {
      readonly kind: 'reference' | 'together';
      readonly places: readonly Place[];
      readonly write: (start: number, end: number) => void;
    },
  ): void {
    const { builder } = this.#text;
    const ids = what.places.map(({ schema }) => {
      const id = this.#ids.get(schema) ?? this.#ids.size;
      this.#ids.set(schema, id);
      return id;
    });
    const key = `${what.kind}:${ids.toSorted((a, b) => a - b).join()}`;
    let start = this.#written.get(key);
    if (start === undefined) {
      const first = (start = builder.node());
      this.#written.set(key, first);
      const end = builder.node({ isFinal: true });
      this.#pending.push(() => what.write(first, end));
    }
    builder.call(from, start, to);
  }

  /** Values that fit the plain keywords of all the parts. */
  #branch(from: number, to: number, parts: readonly Part[]): void {
    const text = this.#textFor(parts);
    if (parts.some(({ schema }) => isList(schema))) {
      text.values(from, listedValues(parts, this.#reading.values), to);
      return;
    }
    for (const part of parts) refuseUnkept(part, parts);
    const types = this.#typesOf(parts);
    if (types === null) return this.#json.anyValue(from, to);
    for (const type of types) {
      const value = (before: number, after: number, places: readonly Place[]): void =>
        this.#value(before, after, places);
      if (type === 'array') {
        writeArray(this.#text, arrayRules(parts, this.#reading), { from, to, value });
      } else if (type === 'object') {
        const rules = objectRules(parts, this.#reading);
        const surface = this.#surfaceFor(parts, value);
        if (rules !== null) writeObject(text.builder, rules, { from, to, surface });
      } else writeScalar(text, type, parts, { from, to });
    }
  }

  #textFor(parts: readonly Part[]): JsonText {
    const isRaw = parts.some(({ schema }) => schema === rawStringSchema);
    return isRaw && this.#tagged !== null ? this.#tagged.raw : this.#text;
  }

  #surfaceFor(parts: readonly Part[], value: WriteValue): ObjectSurface {
    const isTagged = parts.some(({ schema }) => schema === taggedSchema);
    return isTagged && this.#tagged !== null
      ? this.#tagged.surface(value)
      : jsonSurface(this.#text, value);
  }

  /** Null where any value will do. */
  #typesOf(parts: readonly Part[]): ReturnType<typeof typesTogether> | null {
    const together = typesTogether(parts);
    const implied = new Set(parts.flatMap(({ schema }) => impliedTypes(schema)));
    const isStated = parts.some(({ schema }) => schema.type !== undefined);
    if (isStated) return together;
    if (implied.size === 0) return null;
    const { impliesTypes } = this.#reading.compilation;
    return impliesTypes ? together.filter((type) => implied.has(type)) : together;
  }
}

/**
 * Choices: which of their options fit, and so speak of a value's insides, is not known of a branch.
 */
const choosing = ['anyOf', 'oneOf', 'not', 'if', 'dependentSchemas', 'dependencies'];

/** @throws SchemaError */
function refuseUnkept(part: Part, parts: readonly Part[]): void {
  const { schema, path } = part;
  const old = refusedKeywords.find((keyword) => Object.hasOwn(schema, keyword));
  if (old !== undefined) throw unsupported([...path, old], 'output can’t be held to it');
  for (const keyword of ['unevaluatedItems', 'unevaluatedProperties']) {
    if (schema[keyword] === undefined || schema[keyword] === true) continue;
    const unknown = keyword === 'unevaluatedItems' ? [...choosing, 'contains'] : choosing;
    const isUnknown = addedBy(part, parts).some((other) =>
      unknown.some((each) => Object.hasOwn(other.schema, each)),
    );
    if (isUnknown) throw unsupported([...path, keyword], 'it stands beside a choice');
  }
}

type ScalarType = 'null' | 'boolean' | 'integer' | 'number' | 'string';

function writeScalar(
  text: JsonText,
  type: ScalarType,
  parts: readonly Part[],
  { from, to }: { from: number; to: number },
): void {
  const { compilation } = text;
  // Any value, in an object without a schema, has no part that speaks of it.
  const path = parts[0]?.path ?? [];
  switch (type) {
    case 'null':
      return text.text(from, 'null', to);
    case 'boolean':
      text.text(from, 'true', to);
      return text.text(from, 'false', to);
    case 'integer':
    case 'number': {
      const range = numberRange(parts, type);
      const build = (): Dfa | null =>
        type === 'integer'
          ? integerDfa(range, compilation.work)
          : numberDfa(range, compilation.work);
      return text.terminal(from, `${type}:${JSON.stringify(range)}`, build, to, path);
    }
    case 'string': {
      const rules = stringRules(parts);
      const build = (): Dfa | null => stringRulesDfa(rules, compilation);
      return text.strings(from, `string:${stringKey(rules)}`, build, to, path);
    }
  }
}
