/** Reads what the parts of a branch say of arrays: how many items, and what fits each. */
import { areDisjoint } from './disjoint-schemas.ts';
import { listedValues } from './object-rules.ts';
import type { SchemaReading } from './object-rules.ts';
import { addedBy, isList, typesTogether } from './schema-branches.ts';
import type { Part } from './schema-branches.ts';
import type { Place } from './schema-document.ts';
import { countAt, unsupported } from './schema-keywords.ts';
import { canonical, itemSchemas } from './schema-values.ts';

/** Values that items without repetition may have: each doubles what has to be remembered. */
export const distinctValuesMax = 8;

export interface ArrayRules {
  /** Rules of each of the first items. */
  readonly prefix: readonly (readonly Place[])[];
  /** Rules of the items behind them. */
  readonly rest: readonly Place[];
  readonly count: { readonly min: number; readonly max: number };
  /** Items of which some number has to fit a schema besides; null if none has to. */
  readonly containing: Containing | null;
  /** The values of items that may not come twice; null if any may. */
  readonly distinct: readonly unknown[] | null;
}

export interface Containing {
  readonly place: Place;
  /** The rule of the other items, where no more than `max` may fit the place. */
  readonly opposite: Place;
  readonly min: number;
  readonly max: number;
}

/** @throws SchemaError, GrammarLimitError */
export function arrayRules(parts: readonly Part[], reading: SchemaReading): ArrayRules {
  const length = Math.max(0, ...parts.map(({ schema }) => itemSchemas(schema).prefix.length));
  const prefix = Array.from({ length }, (_, index) => placesOfItem(parts, index, reading));
  const rest = placesOfItem(parts, length, reading);
  let [min, max] = [0, Infinity];
  for (const { schema, path } of parts) {
    min = Math.max(min, countAt(schema, 'minItems', path) ?? 0);
    max = Math.min(max, countAt(schema, 'maxItems', path) ?? Infinity);
  }
  const impossible = [...prefix, rest].findIndex((places) =>
    places.some(({ schema }) => schema === false),
  );
  if (impossible >= 0) max = Math.min(max, impossible);
  const rules = { prefix, rest, count: { min, max }, containing: containing(parts, reading) };
  return { ...rules, distinct: distinctValues(parts, rules, reading) };
}

function placesOfItem(
  parts: readonly Part[],
  index: number,
  { document }: SchemaReading,
): readonly Place[] {
  return parts.flatMap((part) => {
    const { prefix, keyword, rest } = itemSchemas(part.schema);
    const places =
      index < prefix.length
        ? [document.below(part, [keyword, index], prefix[index])]
        : rest === undefined
          ? []
          : [document.below(part, [rest.keyword], rest.schema)];
    const { unevaluatedItems: schema } = part.schema;
    if (schema === undefined) return places;
    const isSpokenOf = addedBy(part, parts).some(
      (other) =>
        index < itemSchemas(other.schema).prefix.length ||
        itemSchemas(other.schema).rest !== undefined ||
        (other !== part && other.schema.unevaluatedItems !== undefined),
    );
    const unevaluated = document.below(part, ['unevaluatedItems'], schema);
    return isSpokenOf ? places : [...places, unevaluated];
  });
}

function containing(parts: readonly Part[], { document }: SchemaReading): Containing | null {
  const [part, ...others] = parts.filter(({ schema }) => schema.contains !== undefined);
  if (part === undefined) return null;
  if (others.length > 0) {
    throw unsupported([...part.path, 'contains'], 'several schemas say what is contained');
  }
  const { schema, path } = part;
  const place = document.below(part, ['contains'], schema.contains);
  return {
    place,
    opposite: { ...place, schema: { not: schema.contains } },
    min: countAt(schema, 'minContains', path) ?? 1,
    max: countAt(schema, 'maxContains', path) ?? Infinity,
  };
}

function distinctValues(
  parts: readonly Part[],
  { prefix, rest, count, containing: isCounted }: Omit<ArrayRules, 'distinct'>,
  reading: SchemaReading,
): readonly unknown[] | null {
  const part = parts.find(({ schema }) => schema.uniqueItems === true);
  if (part === undefined || count.max <= 1) return null;
  const path = [...part.path, 'uniqueItems'];
  if (count.max <= prefix.length && areApart(prefix.slice(0, count.max), reading)) return null;
  const values = prefix.length === 0 ? valuesOf(rest, reading) : null;
  const canBeKept = values !== null && isCounted === null && values.length <= distinctValuesMax;
  if (!canBeKept && !reading.isStrict) return null;
  if (values === null || isCounted !== null) {
    throw unsupported(path, 'that items differ can be kept where their values are listed alone');
  }
  if (values.length > distinctValuesMax) {
    throw unsupported(path, `items have more than ${distinctValuesMax} values`);
  }
  return values;
}

/** Tells whether no two items can be equal, whatever they are. */
function areApart(items: readonly (readonly Place[])[], { document }: SchemaReading): boolean {
  return items.every((one, index) =>
    items
      .slice(index + 1)
      .every((other) => one.some((a) => other.some((b) => areDisjoint(a, b, document)))),
  );
}

/** Null where there are more values than are listed. */
function valuesOf(
  places: readonly Place[],
  { branches, values }: SchemaReading,
): readonly unknown[] | null {
  const found = new Map<string, unknown>();
  for (const branch of branches.of(places)) {
    const isScalar = typesTogether(branch).every((type) => type === 'null' || type === 'boolean');
    if (!isScalar && !branch.some(({ schema }) => isList(schema))) return null;
    const listed = branch.some(({ schema }) => isList(schema))
      ? listedValues(branch, values)
      : [null, false, true].filter((value) => branch.every((part) => values.isValid(value, part)));
    for (const value of listed) found.set(canonical(value), value);
  }
  return [...found.values()];
}
