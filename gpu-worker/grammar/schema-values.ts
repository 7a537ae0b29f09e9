/**
 * Tells whether a value that a schema lists fits all else that the schema says: values of `enum`
 * and `const` are known, so every keyword can be asked of them. Regular expressions run as
 * automata, which take no longer than the text is.
 */
import type { Compilation } from './compilation.ts';
import { acceptsText } from './dfa.ts';
import { formatPatterns } from './formats.ts';
import { isMultiple, multipleOf } from './numbers.ts';
import type { Place, SchemaDocument } from './schema-document.ts';
import {
  boundAt,
  countAt,
  invalid,
  isObject,
  isOfType,
  listAt,
  mapAt,
  namesAt,
  numberAt,
  typesOf,
  unsupported,
} from './schema-keywords.ts';
import type { Schema } from './schema-keywords.ts';

const depthMax = 128;

export class SchemaValues {
  readonly #document: SchemaDocument;
  readonly #compilation: Compilation;

  constructor(document: SchemaDocument, compilation: Compilation) {
    this.#document = document;
    this.#compilation = compilation;
  }

  /** @throws SchemaError, GrammarLimitError */
  isValid(value: unknown, at: Place, depth = 0): boolean {
    this.#compilation.work.spend(8);
    const { schema, path } = at;
    if (depth > depthMax) throw invalid(path, 'a value would have to begin with itself');
    if (typeof schema === 'boolean') return schema;
    if (!isObject(schema)) throw invalid(path, 'expected a schema: an object or a boolean');
    const check: Check = { value, at, schema, depth };
    for (const keyword of ['$ref', '$dynamicRef'] as const) {
      if (!Object.hasOwn(schema, keyword)) continue;
      if (!this.isValid(value, this.#document.target(at, keyword), depth + 1)) return false;
      if (!this.#document.hasSiblings(schema)) return true;
    }
    return (
      fitsType(check) &&
      fitsList(check) &&
      fitsNumber(check) &&
      this.#fitsString(check) &&
      this.#fitsArray(check) &&
      this.#fitsObject(check) &&
      this.#fitsOthers(check)
    );
  }

  /** Tells whether the regular expression of a keyword matches the text. */
  matches(source: string, text: string, at: Place, keyword: string): boolean {
    this.#compilation.work.spend(text.length);
    const dfa = this.#compilation.content(source, [...at.path, keyword]);
    return dfa !== null && acceptsText(dfa, JSON.stringify(text).slice(1, -1));
  }

  #fitsString({ value, at, schema }: Check): boolean {
    if (typeof value !== 'string') return true;
    const { pattern, format } = schema;
    const length = Array.from(value).length;
    const known = typeof format === 'string' ? formatPatterns.get(format) : undefined;
    return (
      length >= (countAt(schema, 'minLength', at.path) ?? 0) &&
      length <= (countAt(schema, 'maxLength', at.path) ?? Infinity) &&
      (typeof pattern !== 'string' || this.matches(pattern, value, at, 'pattern')) &&
      // If there is a pattern as well, the format is the pattern's to say.
      (known === undefined || pattern !== undefined || this.matches(known, value, at, 'format'))
    );
  }

  #fitsArray({ value, at, schema, depth }: Check): boolean {
    if (!Array.isArray(value)) return true;
    const items: readonly unknown[] = value;
    const fits = (item: unknown, keys: readonly (string | number)[], inner: unknown): boolean =>
      this.isValid(item, this.#document.below(at, keys, inner), depth + 1);
    const { prefix, keyword, rest } = itemSchemas(schema);
    const { contains } = schema;
    const containing =
      contains === undefined
        ? 0
        : items.filter((item) => fits(item, ['contains'], contains)).length;
    return (
      items.length >= (countAt(schema, 'minItems', at.path) ?? 0) &&
      items.length <= (countAt(schema, 'maxItems', at.path) ?? Infinity) &&
      (schema.uniqueItems !== true || new Set(items.map(canonical)).size === items.length) &&
      items.every((item, index) =>
        index < prefix.length
          ? fits(item, [keyword, index], prefix[index])
          : rest === undefined || fits(item, [rest.keyword], rest.schema),
      ) &&
      (contains === undefined ||
        (containing >= (countAt(schema, 'minContains', at.path) ?? 1) &&
          containing <= (countAt(schema, 'maxContains', at.path) ?? Infinity)))
    );
  }

  #fitsObject({ value, at, schema, depth }: Check): boolean {
    if (!isObject(value)) return true;
    const names = Object.keys(value);
    return (
      names.length >= (countAt(schema, 'minProperties', at.path) ?? 0) &&
      names.length <= (countAt(schema, 'maxProperties', at.path) ?? Infinity) &&
      namesAt(schema, 'required', at.path).every((name) => Object.hasOwn(value, name)) &&
      names.every(
        (name) =>
          this.schemasOfProperty(at, schema, name).every((inner) =>
            this.isValid(value[name], inner, depth + 1),
          ) &&
          (schema.propertyNames === undefined ||
            this.isValid(
              name,
              this.#document.below(at, ['propertyNames'], schema.propertyNames),
              depth + 1,
            )),
      ) &&
      dependencies(schema, at).every(
        ({ name, required, keys, inner }) =>
          !Object.hasOwn(value, name) ||
          (required.every((each) => Object.hasOwn(value, each)) &&
            (inner === undefined ||
              this.isValid(value, this.#document.below(at, keys, inner), depth + 1))),
      )
    );
  }

  /**
   * Finds the schemas that speak of a property: by its name, by patterns, else as one among others.
   */
  schemasOfProperty(at: Place, schema: Schema, name: string): readonly Place[] {
    const found: Place[] = [];
    const declared = mapAt(schema, 'properties', at.path);
    if (Object.hasOwn(declared, name)) {
      found.push(this.#document.below(at, ['properties', name], declared[name]));
    }
    for (const [source, inner] of Object.entries(mapAt(schema, 'patternProperties', at.path))) {
      if (!this.matches(source, name, at, 'patternProperties')) continue;
      found.push(this.#document.below(at, ['patternProperties', source], inner));
    }
    if (found.length === 0 && schema.additionalProperties !== undefined) {
      found.push(this.#document.below(at, ['additionalProperties'], schema.additionalProperties));
    }
    return found;
  }

  #fitsOthers({ value, at, schema, depth }: Check): boolean {
    const fits = (keys: readonly (string | number)[], inner: unknown): boolean =>
      this.isValid(value, this.#document.below(at, keys, inner), depth + 1);
    const fitting = (keyword: string): number =>
      listAt(schema, keyword, at.path).filter((each, index) => fits([keyword, index], each)).length;
    for (const keyword of ['unevaluatedItems', 'unevaluatedProperties']) {
      if (schema[keyword] !== undefined && schema[keyword] !== true) {
        throw unsupported([...at.path, keyword], 'it stands beside a list of values');
      }
    }
    if (schema.allOf !== undefined && fitting('allOf') < listAt(schema, 'allOf', at.path).length) {
      return false;
    }
    if (schema.anyOf !== undefined && fitting('anyOf') === 0) return false;
    if (schema.oneOf !== undefined && fitting('oneOf') !== 1) return false;
    if (schema.not !== undefined && fits(['not'], schema.not)) return false;
    if (schema.if === undefined) return true;
    const branch = fits(['if'], schema.if) ? 'then' : 'else';
    return schema[branch] === undefined || fits([branch], schema[branch]);
  }
}

interface Check {
  readonly value: unknown;
  readonly at: Place;
  readonly schema: Schema;
  readonly depth: number;
}

function fitsType({ value, at, schema }: Check): boolean {
  const types = typesOf(schema, at.path);
  return types === null || types.some((type) => isOfType(value, type));
}

function fitsList({ value, at, schema }: Check): boolean {
  if (Object.hasOwn(schema, 'const') && canonical(schema.const) !== canonical(value)) return false;
  if (!Object.hasOwn(schema, 'enum')) return true;
  return listAt(schema, 'enum', at.path).some((each) => canonical(each) === canonical(value));
}

function fitsNumber({ value, at, schema }: Check): boolean {
  if (typeof value !== 'number') return true;
  const min = boundAt(schema, 'minimum', at.path);
  const max = boundAt(schema, 'maximum', at.path);
  const divisor = numberAt(schema, 'multipleOf', at.path);
  const multiple = divisor === null ? null : multipleOf(divisor);
  return (
    (min === null || value > min.value || (value === min.value && !min.exclusive)) &&
    (max === null || value < max.value || (value === max.value && !max.exclusive)) &&
    (divisor === null ||
      (multiple === null ? Number.isInteger(value / divisor) : isMultiple(value, multiple)))
  );
}

/** Items by their index and those behind them, in the spelling of any draft. */
export function itemSchemas(schema: Schema): {
  readonly prefix: readonly unknown[];
  readonly keyword: 'prefixItems' | 'items';
  readonly rest: { readonly keyword: string; readonly schema: unknown } | undefined;
} {
  const { prefixItems, items, additionalItems } = schema;
  if (Array.isArray(items)) {
    const rest =
      additionalItems === undefined
        ? undefined
        : { keyword: 'additionalItems', schema: additionalItems };
    return { prefix: items, keyword: 'items', rest };
  }
  const prefix: readonly unknown[] = Array.isArray(prefixItems) ? prefixItems : [];
  const rest = items === undefined ? undefined : { keyword: 'items', schema: items };
  return { prefix, keyword: 'prefixItems', rest };
}

/** Reads what a property's presence asks for; draft 7 says it in one keyword, later ones in two. */
export function dependencies(
  schema: Schema,
  at: Place,
): readonly {
  readonly name: string;
  readonly required: readonly string[];
  readonly keys: readonly string[];
  readonly inner: unknown;
}[] {
  return (['dependentRequired', 'dependentSchemas', 'dependencies'] as const).flatMap((keyword) =>
    Object.entries(mapAt(schema, keyword, at.path)).map(([name, inner]) => {
      const keys = [keyword, name];
      if (!Array.isArray(inner)) return { name, required: [], keys, inner };
      const required = namesAt({ [name]: inner }, name, [...at.path, keyword]);
      return { name, required, keys, inner: undefined };
    }),
  );
}

/** One text for equal values: members of objects have no order, and 1.0 is 1. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (!isObject(value)) return JSON.stringify(Object.is(value, -0) ? 0 : value);
  const members = Object.keys(value)
    .toSorted()
    .map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${members.join()}}`;
}
