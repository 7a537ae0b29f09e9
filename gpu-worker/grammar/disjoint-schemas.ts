/**
 * Tells whether two schemas have no value in common, as far as is plain to see: by their types, by
 * their constants, or by a property that both require and that is a different constant in each.
 */
import type { Place, SchemaDocument } from './schema-document.ts';
import { isObject } from './schema-keywords.ts';
import type { Schema } from './schema-keywords.ts';
import { canonical } from './schema-values.ts';

/** References that are followed one after the other. */
const referencesMax = 16;

export function areDisjoint(one: Place, other: Place, document: SchemaDocument): boolean {
  const [a, b] = [followed(one, document), followed(other, document)];
  if (a === null || b === null) return false;
  const [valuesOfA, valuesOfB] = [constants(a.schema), constants(b.schema)];
  if (valuesOfA !== null && valuesOfB !== null)
    return !valuesOfA.some((each) => valuesOfB.includes(each));
  const [typesOfA, typesOfB] = [typeNames(a.schema), typeNames(b.schema)];
  if (typesOfA === null || typesOfB === null) return false;
  if (!typesOfA.some((type) => typesOfB.includes(type))) return true;
  const areObjects = [...typesOfA, ...typesOfB].every((type) => type === 'object');
  return areObjects && differInConstant(a, b, document);
}

type Followed = Place & { readonly schema: Schema };

function differInConstant(a: Followed, b: Followed, document: SchemaDocument): boolean {
  const inA = requiredConstants(a, document);
  const inB = requiredConstants(b, document);
  return [...inA].some(([name, values]) => {
    const others = inB.get(name);
    return others !== undefined && !values.some((each) => others.includes(each));
  });
}

function requiredConstants(at: Followed, document: SchemaDocument): Map<string, readonly string[]> {
  const { properties, required } = at.schema;
  const found = new Map<string, readonly string[]>();
  if (!isObject(properties) || !Array.isArray(required)) return found;
  for (const [name, property] of Object.entries(properties)) {
    if (!required.includes(name)) continue;
    const place = document.below(at, ['properties', name], property);
    const values = constants(followed(place, document)?.schema ?? {});
    if (values !== null) found.set(name, values);
  }
  return found;
}

/** The values of a schema that lists them, as JSON; null for others. */
function constants(schema: Schema): readonly string[] | null {
  if (Object.hasOwn(schema, 'const')) return [canonical(schema.const)];
  return Array.isArray(schema.enum) ? schema.enum.map(canonical) : null;
}

/** Null if the schema does not say; an integer is a number. */
function typeNames(schema: Schema): readonly string[] | null {
  const values = constants(schema);
  if (values !== null) return values.map((text) => typeOfJson(text));
  const { type } = schema;
  const named: readonly unknown[] = Array.isArray(type) ? type : [type];
  if (!named.every((each) => typeof each === 'string')) return null;
  const names = named.map((each) => (each === 'integer' ? 'number' : each));
  return schema.nullable === true ? [...names, 'null'] : names;
}

function typeOfJson(text: string): string {
  if (text === 'null') return 'null';
  if (text === 'true' || text === 'false') return 'boolean';
  if (text.startsWith('"')) return 'string';
  if (text.startsWith('[')) return 'array';
  return text.startsWith('{') ? 'object' : 'number';
}

function followed(place: Place, document: SchemaDocument): Followed | null {
  let at = place;
  for (let count = 0; count < referencesMax; count++) {
    const { schema } = at;
    if (!isObject(schema)) return null;
    if (typeof schema.$ref !== 'string') return { ...at, schema };
    at = document.target(at, '$ref');
  }
  return null;
}
