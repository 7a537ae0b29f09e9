/** The keywords of a JSON schema, read one by one; whatever is malformed is refused by its place. */
import type { Bound } from './numbers.ts';

/** A schema that can't be kept, and the place in it: keys and indices from its root. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError';
  readonly path: readonly (string | number)[];
  /** `unsupported`: valid JSON Schema that is not enforced. `invalid`: malformed, or allows nothing. */
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

/** Keywords that say nothing about which values are valid. */
export const annotations = new Set([
  '$schema',
  '$id',
  '$comment',
  '$defs',
  'definitions',
  'title',
  'description',
  'default',
  'example',
  'examples',
  'deprecated',
  // OpenAPI's, beside oneOf.
  'discriminator',
  'readOnly',
  'writeOnly',
]);

const keywordsOfType: Readonly<Record<TypeName, readonly string[]>> = {
  null: [],
  boolean: [],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  array: ['items', 'minItems', 'maxItems'],
  object: ['properties', 'required', 'additionalProperties'],
};

export const plainKeywords = new Set(['type', ...Object.values(keywordsOfType).flat()]);

/** Null if any type will do. */
export function typesOf(schema: Schema, path: Path): readonly TypeName[] | null {
  const { type } = schema;
  if (type === undefined) {
    // Keywords of a type without the type are meant for that type.
    const implied = (['number', 'string', 'array', 'object'] as const).filter((each) =>
      keywordsOfType[each].some((keyword) => Object.hasOwn(schema, keyword)),
    );
    return implied.length === 0 ? null : implied;
  }
  const named: readonly unknown[] = Array.isArray(type) ? type : [type];
  const types = typeNames.filter((each) => named.includes(each));
  if (named.length === 0 || types.length !== new Set(named).size) {
    throw invalid([...path, 'type'], `expected one or several of ${typeNames.join(', ')}`);
  }
  // An integer is a number: side by side they would be read twice.
  return types.includes('number') ? types.filter((each) => each !== 'integer') : types;
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

export function tighter(
  schema: Schema,
  path: Path,
  keywords: { inclusive: string; exclusive: string },
  choose: (a: number, b: number) => number,
): Bound | null {
  const inclusive = numberAt(schema, keywords.inclusive, path);
  const exclusive = numberAt(schema, keywords.exclusive, path);
  if (exclusive === null) return inclusive === null ? null : { value: inclusive, exclusive: false };
  if (inclusive === null) return { value: exclusive, exclusive: true };
  const value = choose(inclusive, exclusive);
  return { value, exclusive: value === exclusive };
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

export function listAt(schema: Schema, keyword: string, path: Path): readonly unknown[] {
  const value = schema[keyword];
  if (!Array.isArray(value)) throw invalid([...path, keyword], 'expected a list');
  return value;
}

export function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Follows a JSON pointer within the document. */
export function findReference(
  root: unknown,
  reference: string,
): { schema: unknown; path: Path } | undefined {
  const path: (string | number)[] = [];
  let schema: unknown = root;
  for (const part of reference.split('/').slice(1)) {
    const key = unescapePointer(part);
    path.push(key);
    if (typeof schema !== 'object' || schema === null || !Object.hasOwn(schema, key))
      return undefined;
    schema = (schema as Record<string, unknown>)[key];
  }
  return { schema, path };
}

function unescapePointer(part: string): string {
  const pointer = part.replaceAll('~1', '/').replaceAll('~0', '~');
  try {
    return decodeURIComponent(pointer);
  } catch {
    return pointer;
  }
}

export function unsupported(path: Path, reason: string): SchemaError {
  return new SchemaError('unsupported', path, reason);
}

export function invalid(path: Path, reason: string): SchemaError {
  return new SchemaError('invalid', path, reason);
}
