/**
 * The types that a tool's schema states for its arguments: a format that writes texts without
 * quotes needs them to tell "12" from 12. Only plain statements count; what is left open may be of
 * any type.
 */
import type { ValueTypes } from './parameter-arguments.ts';

/** Plain data: it goes from the thread that reads requests to the one that answers. */
export interface ArgumentTypes {
  readonly named: Readonly<Record<string, ValueTypes>>;
  /** The types of arguments that the schema does not name. */
  readonly others: ValueTypes;
}

/** References to definitions that are followed, one inside the other. */
const depthMax = 16;

type Schema = Readonly<Record<string, unknown>>;

export function argumentTypes(parameters: Schema | null | undefined): ArgumentTypes {
  const root = parameters ?? {};
  const resolved = resolve(root, root, 0);
  const { properties, additionalProperties } = isSchema(resolved) ? resolved : {};
  const named = Object.entries(isSchema(properties) ? properties : {}).map(
    ([key, schema]) => [key, valueTypes(schema, root)] as const,
  );
  return { named: Object.fromEntries(named), others: valueTypes(additionalProperties, root) };
}

function valueTypes(schema: unknown, root: Schema): ValueTypes {
  const types = typesOf(schema, root, 0);
  if (types === null) return null;
  return types.every((type) => type === 'string') ? 'text' : types;
}

/** Null where any type will do. */
function typesOf(schema: unknown, root: Schema, depth: number): readonly string[] | null {
  const resolved = resolve(schema, root, depth);
  if (!isSchema(resolved) || depth > depthMax) return null;
  const { type, enum: listed, anyOf, oneOf } = resolved;
  if (typeof type === 'string') return [type];
  if (Array.isArray(type)) return type.map(String);
  if (Object.hasOwn(resolved, 'const')) return [typeOf(resolved.const)];
  if (Array.isArray(listed)) return [...new Set(listed.map(typeOf))];
  const options = Array.isArray(anyOf) ? anyOf : oneOf;
  if (!Array.isArray(options)) return null;
  const types = options.map((option) => typesOf(option, root, depth + 1));
  return types.includes(null) ? null : [...new Set(types.flatMap((each) => each ?? []))];
}

/** Follows a reference to a definition of the same schema. */
function resolve(schema: unknown, root: Schema, depth: number): unknown {
  if (!isSchema(schema) || typeof schema.$ref !== 'string' || depth > depthMax) return schema;
  if (!schema.$ref.startsWith('#')) return schema;
  const keys = schema.$ref.slice(1).split('/').slice(1);
  let target: unknown = root;
  for (const key of keys) {
    const name = key.replaceAll('~1', '/').replaceAll('~0', '~');
    target = isSchema(target) && Object.hasOwn(target, name) ? target[name] : undefined;
  }
  return resolve(target, root, depth + 1);
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
