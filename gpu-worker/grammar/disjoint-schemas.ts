/**
 * Whether two schemas have no value in common, as far as is plain to see: by their types, by their
 * constants, or by a property that both require and that is a different constant in each.
 */
import { findReference, isObject } from './schema-keywords.ts';
import type { Schema } from './schema-keywords.ts';

/** References that are followed one after the other. */
const referencesMax = 16;

export function areDisjoint(one: unknown, other: unknown, root: unknown): boolean {
  const [a, b] = [followed(one, root), followed(other, root)];
  if (a === null || b === null) return false;
  const [valuesOfA, valuesOfB] = [constants(a), constants(b)];
  if (valuesOfA !== null && valuesOfB !== null)
    return !valuesOfA.some((each) => valuesOfB.includes(each));
  const [typesOfA, typesOfB] = [typeNames(a), typeNames(b)];
  if (typesOfA === null || typesOfB === null) return false;
  if (!typesOfA.some((type) => typesOfB.includes(type))) return true;
  const areObjects = [...typesOfA, ...typesOfB].every((type) => type === 'object');
  return areObjects && differInConstant(a, b, root);
}

function differInConstant(a: Schema, b: Schema, root: unknown): boolean {
  const inA = requiredConstants(a, root);
  const inB = requiredConstants(b, root);
  return [...inA].some(([name, values]) => {
    const others = inB.get(name);
    return others !== undefined && !values.some((each) => others.includes(each));
  });
}

function requiredConstants(schema: Schema, root: unknown): Map<string, readonly string[]> {
  const { properties, required } = schema;
  const found = new Map<string, readonly string[]>();
  if (!isObject(properties) || !Array.isArray(required)) return found;
  for (const [name, property] of Object.entries(properties)) {
    const followedTo = required.includes(name) ? followed(property, root) : null;
    const values = followedTo === null ? null : constants(followedTo);
    if (values !== null) found.set(name, values);
  }
  return found;
}

/** The values of a schema that lists them, as JSON; null for others. */
function constants(schema: Schema): readonly string[] | null {
  if (Object.hasOwn(schema, 'const')) return [JSON.stringify(schema.const)];
  return Array.isArray(schema.enum) ? schema.enum.map((value) => JSON.stringify(value)) : null;
}

/** Null if the schema does not say; an integer is a number. */
function typeNames(schema: Schema): readonly string[] | null {
  const values = constants(schema);
  if (values !== null) return values.map((text) => typeOfJson(text));
  const { type } = schema;
  const named: readonly unknown[] = Array.isArray(type) ? type : [type];
  if (!named.every((each) => typeof each === 'string')) return null;
  return named.map((each) => (each === 'integer' ? 'number' : each));
}

function typeOfJson(text: string): string {
  if (text === 'null') return 'null';
  if (text === 'true' || text === 'false') return 'boolean';
  if (text.startsWith('"')) return 'string';
  if (text.startsWith('[')) return 'array';
  return text.startsWith('{') ? 'object' : 'number';
}

function followed(schema: unknown, root: unknown): Schema | null {
  let reached = schema;
  for (let count = 0; count < referencesMax; count++) {
    if (!isObject(reached)) return null;
    if (typeof reached.$ref !== 'string') return reached;
    reached = findReference(root, reached.$ref)?.schema;
  }
  return null;
}
