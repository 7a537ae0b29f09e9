/**
 * The values that do not fit a schema, as schemas again: a value fits a schema if it fits each of
 * its keywords, so it does not if it misses one of them. Not every keyword has an opposite that a
 * grammar can keep.
 */
import { missing } from '../at.ts';
import type { Place, SchemaDocument } from './schema-document.ts';
import {
  boundAt,
  constraintsOf,
  countAt,
  isObject,
  listAt,
  mapAt,
  namesAt,
  typesOf,
} from './schema-keywords.ts';
import type { Schema } from './schema-keywords.ts';

const types = ['null', 'boolean', 'number', 'string', 'array', 'object'];
/** Numbers that a schema may leave out: each splits a range in two. */
const numbersMax = 16;
const referencesMax = 16;

/**
 * Schemas one of which every value fits that does not fit this one; null where they can't be told.
 * @throws SchemaError
 */
export function negations(at: Place, document: SchemaDocument, depth = 0): readonly Place[] | null {
  const { schema } = at;
  if (typeof schema === 'boolean') return schema ? [] : [{ ...at, schema: true }];
  if (!isObject(schema) || depth > referencesMax) return null;
  if (Object.hasOwn(schema, '$ref') && !document.hasSiblings(schema)) {
    return negations(document.target(at, '$ref'), document, depth + 1);
  }
  const all: Place[] = [];
  for (const keyword of constraintsOf(schema)) {
    if (keyword === '$ref' || keyword === '$dynamicRef') {
      const others = negations(document.target(at, keyword), document, depth + 1);
      if (others === null) return null;
      all.push(...others);
      continue;
    }
    const others = missed(keyword, schema, at);
    if (others === null) return null;
    all.push(...others.map((each) => ({ ...at, schema: each })));
  }
  return all;
}

/** Schemas of the values that miss one keyword. */
function missed(keyword: string, schema: Schema, at: Place): readonly unknown[] | null {
  const { path } = at;
  const value = schema[keyword];
  switch (keyword) {
    case 'type':
      return ofOtherTypes(typesOf(schema, path) ?? missing());
    case 'const':
      return otherThan([value]);
    case 'enum':
      return otherThan(listAt(schema, 'enum', path));
    case 'minimum':
    case 'exclusiveMinimum':
    case 'maximum':
    case 'exclusiveMaximum':
      return beyond(keyword, schema, at);
    case 'pattern':
      return [{ type: 'string', not: { pattern: value } }];
    case 'minLength':
      return fewer('string', 'maxLength', countAt(schema, keyword, path) ?? missing());
    case 'maxLength':
      return more('string', 'minLength', countAt(schema, keyword, path) ?? missing());
    case 'minItems':
      return fewer('array', 'maxItems', countAt(schema, keyword, path) ?? missing());
    case 'maxItems':
      return more('array', 'minItems', countAt(schema, keyword, path) ?? missing());
    case 'minProperties':
      return fewer('object', 'maxProperties', countAt(schema, keyword, path) ?? missing());
    case 'maxProperties':
      return more('object', 'minProperties', countAt(schema, keyword, path) ?? missing());
    case 'required':
      return namesAt(schema, keyword, path).map((name) => ({
        type: 'object',
        properties: { [name]: false },
      }));
    case 'properties':
      return Object.entries(mapAt(schema, keyword, path)).map(([name, inner]) => ({
        type: 'object',
        required: [name],
        properties: { [name]: { not: inner } },
      }));
    case 'prefixItems':
      return listAt(schema, keyword, path).map((inner, index) => ({
        type: 'array',
        minItems: index + 1,
        prefixItems: [...Array.from({ length: index }, () => true), { not: inner }],
      }));
    case 'contains':
      if (schema.minContains !== undefined || schema.maxContains !== undefined) return null;
      return [{ type: 'array', items: { not: value } }];
    case 'allOf':
      return listAt(schema, keyword, path).map((each) => ({ not: each }));
    case 'anyOf':
      return [{ allOf: listAt(schema, keyword, path).map((each) => ({ not: each })) }];
    case 'not':
      return [value];
    default:
      // Some restrict nothing as they stand.
      return value === true || (isObject(value) && constraintsOf(value).length === 0) ? [] : null;
  }
}

function ofOtherTypes(stated: readonly string[]): readonly unknown[] | null {
  const isOpen = stated.includes('integer') && !stated.includes('number');
  const others = types.filter((type) => !stated.includes(type) && !(isOpen && type === 'number'));
  return [
    ...(others.length > 0 ? [{ type: others }] : []),
    ...(isOpen ? [{ type: 'number', not: { type: 'integer' } }] : []),
  ];
}

function otherThan(values: readonly unknown[]): readonly unknown[] | null {
  const strings = values.filter((value) => typeof value === 'string');
  const numbers = values.filter((value) => typeof value === 'number');
  const booleans = new Set(values.filter((value) => typeof value === 'boolean'));
  const containers = values.filter((value) => typeof value === 'object' && value !== null);
  if (containers.length > 0 || numbers.length > numbersMax) return null;
  const touched = new Set<string>(values.map((value) => (value === null ? 'null' : typeof value)));
  const others = types.filter((type) => !touched.has(type));
  const sorted = [...new Set(numbers)].toSorted((a, b) => a - b);
  return [
    { type: others },
    ...(strings.length > 0 ? [{ type: 'string', not: { enum: strings } }] : []),
    ...(booleans.size === 1 ? [{ const: !booleans.has(true) }] : []),
    ...(sorted.length > 0
      ? [undefined, ...sorted].map((low, index) => ({
          type: 'number',
          ...(low !== undefined && { exclusiveMinimum: low }),
          ...(index < sorted.length && { exclusiveMaximum: sorted[index] }),
        }))
      : []),
  ];
}

/** Numbers on the other side of the bound that a keyword and its sibling set. */
function beyond(keyword: string, schema: Schema, at: Place): readonly unknown[] {
  const side = keyword.toLowerCase().endsWith('minimum') ? 'minimum' : 'maximum';
  const bound = boundAt(schema, side, at.path);
  if (bound === null) return [];
  const opposite = side === 'minimum' ? 'aximum' : 'inimum';
  const name = bound.exclusive ? `m${opposite}` : `exclusiveM${opposite}`;
  return [{ type: 'number', [name]: bound.value }];
}

function fewer(type: string, keyword: string, min: number): readonly unknown[] {
  return min === 0 ? [] : [{ type, [keyword]: min - 1 }];
}

function more(type: string, keyword: string, max: number): readonly unknown[] {
  return [{ type, [keyword]: max + 1 }];
}
