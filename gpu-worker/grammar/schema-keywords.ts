/**
 * The keywords of a JSON schema, read one by one; whatever is malformed is refused by its place.
 */
import type { Bound } from './numbers.ts';

/** A schema that can't be kept, and the place in it: keys and indices from its root. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError';
  readonly path: readonly (string | number)[];
  /**
   * `unsupported`: valid JSON Schema that is not enforced. `invalid`: malformed, or allows nothing.
   */
  readonly kind: 'unsupported' | 'invalid';

  constructor(kind: SchemaError['kind'], path: SchemaError['path'], message: string) {
    super(message);
    this.kind = kind;
    this.path = path;
  }
}

export type Path = readonly (string | number)[];
export type Schema = Readonly<Record<string, unknown>>;
export type TypeName = (typeof typeNames)[number];

const typeNames = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'] as const;

const keywordsOfType: Readonly<Record<TypeName, readonly string[]>> = {
  null: [],
  boolean: [],
  integer: [],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  array: [
    'items',
    'prefixItems',
    'additionalItems',
    'minItems',
    'maxItems',
    'uniqueItems',
    'contains',
    'unevaluatedItems',
  ],
  object: [
    'properties',
    'patternProperties',
    'additionalProperties',
    'propertyNames',
    'required',
    'minProperties',
    'maxProperties',
    'dependentRequired',
    'dependentSchemas',
    'dependencies',
    'unevaluatedProperties',
  ],
};

/** Keywords that say of a value itself what schemas it has to fit. */
export const applicators = [
  '$ref',
  '$dynamicRef',
  'allOf',
  'anyOf',
  'oneOf',
  'not',
  'if',
  'dependentRequired',
  'dependentSchemas',
  'dependencies',
] as const;

/**
 * Keywords of older drafts that restrict values and are not kept. All that no draft has is ignored.
 */
export const refusedKeywords = ['$recursiveRef', 'disallow', 'divisibleBy', 'extends'] as const;

const constraints: ReadonlySet<string> = new Set([
  'type',
  'enum',
  'const',
  ...applicators,
  ...refusedKeywords,
  ...Object.values(keywordsOfType).flat(),
]);

/** The keywords of a schema that restrict its values: the others are annotations. */
export function constraintsOf(schema: Schema): readonly string[] {
  return Object.keys(schema).filter((each) => constraints.has(each));
}

/** Null if any type will do. */
export function typesOf(schema: Schema, path: Path): readonly TypeName[] | null {
  const { type } = schema;
  if (type === undefined) return null;
  const named: readonly unknown[] = Array.isArray(type) ? type : [type];
  const types = typeNames.filter((each) => named.includes(each));
  if (named.length === 0 || types.length !== new Set(named).size) {
    throw invalid([...path, 'type'], `expected one or several of ${typeNames.join(', ')}`);
  }
  // OpenAPI 3.0's.
  if (schema.nullable === true && !types.includes('null')) return ['null', ...types];
  return types;
}

/** The types that the keywords of a schema without a type are about. */
export function impliedTypes(schema: Schema): readonly TypeName[] {
  return (['number', 'string', 'array', 'object'] as const).filter((each) =>
    keywordsOfType[each].some((keyword) => Object.hasOwn(schema, keyword)),
  );
}

export function isOfType(value: unknown, type: TypeName): boolean {
  switch (type) {
    case 'null':
      return value === null;
    case 'integer':
      return Number.isInteger(value);
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    default:
      return typeof value === type;
  }
}

/** A bound of numbers; draft 4 spells an exclusive one as `exclusiveMinimum: true`. */
export function boundAt(schema: Schema, side: 'minimum' | 'maximum', path: Path): Bound | null {
  const exclusiveName = side === 'minimum' ? 'exclusiveMinimum' : 'exclusiveMaximum';
  const inclusive = numberAt(schema, side, path);
  const stated = schema[exclusiveName];
  if (typeof stated === 'boolean') {
    return inclusive === null ? null : { value: inclusive, exclusive: stated };
  }
  const exclusive = numberAt(schema, exclusiveName, path);
  return tighterBound(
    side,
    inclusive === null ? null : { value: inclusive, exclusive: false },
    exclusive === null ? null : { value: exclusive, exclusive: true },
  );
}

export function tighterBound(
  side: 'minimum' | 'maximum',
  one: Bound | null,
  other: Bound | null,
): Bound | null {
  if (one === null || other === null) return one ?? other;
  if (one.value === other.value) return one.exclusive ? one : other;
  return one.value > other.value === (side === 'minimum') ? one : other;
}

export function numberAt(schema: Schema, keyword: string, path: Path): number | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value !== 'number') throw invalid([...path, keyword], 'expected a number');
  return value;
}

export function countAt(schema: Schema, keyword: string, path: Path): number | null {
  const value = numberAt(schema, keyword, path);
  if (value === null) return null;
  if (!Number.isSafeInteger(value) || value < 0) {
    throw invalid([...path, keyword], 'expected an integer of at least 0');
  }
  return value;
}

/** A keyword whose value is an object, such as `properties`; empty where it is absent. */
export function mapAt(schema: Schema, keyword: string, path: Path): Schema {
  const value = schema[keyword];
  if (value === undefined) return {};
  if (!isObject(value)) throw invalid([...path, keyword], 'expected an object');
  return value;
}

/** The names that `required`, or a list of `dependentRequired`, holds. */
export function namesAt(schema: Schema, keyword: string, path: Path): readonly string[] {
  if (schema[keyword] === undefined) return [];
  return listAt(schema, keyword, path).map((name) => {
    if (typeof name !== 'string') throw invalid([...path, keyword], 'expected names');
    return name;
  });
}

export function listAt(schema: Schema, keyword: string, path: Path): readonly unknown[] {
  const value = schema[keyword];
  if (!Array.isArray(value)) throw invalid([...path, keyword], 'expected a list');
  return value;
}

export function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function unsupported(path: Path, reason: string): SchemaError {
  return new SchemaError('unsupported', path, reason);
}

export function invalid(path: Path, reason: string): SchemaError {
  return new SchemaError('invalid', path, reason);
}
