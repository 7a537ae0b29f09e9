/** Reads what the parts of a branch say of objects: which members there are, and what fits each. */
import { at } from '../at.ts';
import type { Compilation } from './compilation.ts';
import { combineDfa, literalsDfa } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import { anyText, contentDfa, intersectDfas } from './nfa.ts';
import type { Part, SchemaBranches } from './schema-branches.ts';
import { addedBy, isList, typesTogether } from './schema-branches.ts';
import type { Place, SchemaDocument } from './schema-document.ts';
import { countAt, invalid, mapAt, namesAt, unsupported } from './schema-keywords.ts';
import type { SchemaValues } from './schema-values.ts';
import { stringKey, stringRules, stringRulesDfa } from './string-rules.ts';
import type { StringRules } from './string-rules.ts';
import { quotedDfa } from './strings.ts';

/** Each doubles the kinds of names that there are. */
const patternsMax = 4;

export interface Member {
  readonly name: string;
  readonly places: readonly Place[];
  readonly isRequired: boolean;
}

/** Members whose names are not known. */
export interface OtherMembers {
  /** Names that are equal have equal keys; null: any name but those of the members. */
  readonly key: string | null;
  readonly names: () => Dfa | null;
  readonly places: readonly Place[];
}

export interface ObjectRules {
  readonly members: readonly Member[];
  /** Names that no other member has: those of the members, and of what may not be there. */
  readonly declared: readonly string[];
  readonly others: readonly OtherMembers[];
  readonly count: { readonly min: number; readonly max: number };
}

export interface SchemaReading {
  readonly document: SchemaDocument;
  readonly values: SchemaValues;
  readonly branches: SchemaBranches;
  readonly compilation: Compilation;
  /** True if what can't be counted is refused; else it has no effect. */
  readonly isStrict: boolean;
}

export const anyObject: ObjectRules = {
  members: [],
  declared: [],
  others: [{ key: null, names: () => null, places: [] }],
  count: { min: 0, max: Infinity },
};

/** Null where no object fits. @throws SchemaError, GrammarLimitError */
export function objectRules(parts: readonly Part[], reading: SchemaReading): ObjectRules | null {
  const count = memberCount(parts);
  const required = new Set(parts.flatMap(({ schema, path }) => namesAt(schema, 'required', path)));
  const nameRules = rulesOfNames(parts, reading);
  const declared = new Set([
    ...parts.flatMap(({ schema, path }) => Object.keys(mapAt(schema, 'properties', path))),
    ...required,
    ...(nameRules.listed ?? []),
  ]);
  const members: Member[] = [];
  for (const name of declared) {
    const places = placesOfMember(parts, name, reading);
    const isRequired = required.has(name);
    if (places !== null) members.push({ name, places, isRequired });
    else if (isRequired) return null;
  }
  const others =
    nameRules.listed === null ? otherMembers(parts, [...declared], nameRules.rules, reading) : [];
  const certain = members.length + (others.length > 0 ? 1 : 0);
  if (count.min > certain && others.length > 0) {
    if (!reading.isStrict) {
      return { members, declared: [...declared], others, count: { ...count, min: certain } };
    }
    const stating = parts.find(({ schema }) => schema.minProperties === count.min);
    const reason =
      'members that are not declared may repeat a name, ' +
      `so that no more than ${certain} can be counted`;
    throw unsupported([...(stating?.path ?? []), 'minProperties'], reason);
  }
  return { members, declared: [...declared], others, count };
}

function memberCount(parts: readonly Part[]): { min: number; max: number } {
  let [min, max] = [0, Infinity];
  for (const { schema, path } of parts) {
    min = Math.max(min, countAt(schema, 'minProperties', path) ?? 0);
    max = Math.min(max, countAt(schema, 'maxProperties', path) ?? Infinity);
  }
  return { min, max };
}

/** Null where nothing fits the member. */
function placesOfMember(
  parts: readonly Part[],
  name: string,
  { document, values }: SchemaReading,
): readonly Place[] | null {
  const places: Place[] = [];
  for (const part of parts) {
    const { schema } = part;
    if (schema.propertyNames !== undefined) {
      const names = document.below(part, ['propertyNames'], schema.propertyNames);
      if (!values.isValid(name, names)) return null;
    }
    places.push(...values.schemasOfProperty(part, schema, name));
    const isEvaluated = (other: Part): boolean =>
      values.schemasOfProperty(other, other.schema, name).length > 0;
    places.push(...unevaluated(part, parts, { isEvaluated, document }));
  }
  return places.some(({ schema }) => schema === false) ? null : places;
}

/** Reads `propertyNames`: a list of names, or rules one of which each name fits; none for any. */
function rulesOfNames(
  parts: readonly Part[],
  { document, branches, values }: SchemaReading,
): { readonly listed: readonly string[] | null; readonly rules: readonly StringRules[] | null } {
  const places = parts
    .filter(({ schema }) => schema.propertyNames !== undefined)
    .map((part) => document.below(part, ['propertyNames'], part.schema.propertyNames));
  if (places.length === 0) return { listed: null, rules: null };
  const listed: string[] = [];
  const rules: StringRules[] = [];
  for (const branch of branches.of(places)) {
    if (branch.some(({ schema }) => isList(schema))) listed.push(...namesOf(branch, values));
    else if (typesTogether(branch).includes('string')) rules.push(stringRules(branch));
  }
  const anyName = stringKey(stringRules([]));
  if (rules.some((rule) => stringKey(rule) === anyName)) return { listed: null, rules: null };
  return rules.length === 0 ? { listed, rules } : { listed: null, rules: withNames(rules, listed) };
}

function namesOf(branch: readonly Part[], values: SchemaValues): readonly string[] {
  return listedValues(branch, values).filter((value) => typeof value === 'string');
}

/** The values that a branch lists and that fit all of it. */
export function listedValues(branch: readonly Part[], values: SchemaValues): readonly unknown[] {
  const list = branch.find(({ schema }) => isList(schema))?.schema ?? {};
  const listed = Object.hasOwn(list, 'const') ? [list.const] : list.enum;
  if (!Array.isArray(listed)) {
    throw invalid([...at(branch, 0).path, 'enum'], 'expected a list');
  }
  return listed.filter((value) => branch.every((part) => values.isValid(value, part)));
}

/** Names that are listed beside rules are rules too: of one text each. */
function withNames(
  rules: readonly StringRules[],
  names: readonly string[],
): readonly StringRules[] {
  const texts = names.map((name): StringRules => {
    const source = `^${name.replaceAll(/[\\^$.*+?()[\]{}|/]/g, '\\$&')}$`;
    const patterns = [{ source, path: [] }];
    return { ...stringRules([]), patterns };
  });
  return [...rules, ...texts];
}

/** Groups undeclared members by the patterns that match them: what fits depends on nothing else. */
function otherMembers(
  parts: readonly Part[],
  declared: readonly string[],
  rules: readonly StringRules[] | null,
  reading: SchemaReading,
): readonly OtherMembers[] {
  const sources = [
    ...new Set(
      parts.flatMap(({ schema, path }) => Object.keys(mapAt(schema, 'patternProperties', path))),
    ),
  ];
  if (sources.length > patternsMax) {
    const stating = parts.find(({ schema }) => schema.patternProperties !== undefined);
    const reason = `there are more than ${patternsMax} patterns`;
    throw unsupported([...(stating?.path ?? []), 'patternProperties'], reason);
  }
  const found: OtherMembers[] = [];
  for (let kind = 0; kind < 2 ** sources.length; kind++) {
    const matching = sources.filter((_, index) => (kind >> index) % 2 === 1);
    const { document } = reading;
    const isEvaluated = (other: Part): boolean =>
      placesOfOthers(other, matching, document).length > 0;
    const places = parts.flatMap((part) => [
      ...placesOfOthers(part, matching, document),
      ...unevaluated(part, parts, { isEvaluated, document }),
    ]);
    if (places.some(({ schema }) => schema === false)) continue;
    const missing = sources.filter((source) => !matching.includes(source));
    for (const rule of rules ?? [null]) {
      const isAny = sources.length === 0 && rule === null;
      const key = [matching, missing, declared, rule === null ? '' : stringKey(rule)];
      const names = (): Dfa | null => namesDfa({ matching, missing, declared, rule }, reading);
      found.push({ key: isAny ? null : JSON.stringify(key), names, places });
    }
  }
  return found;
}

/**
 * Reads what `unevaluatedProperties` says of a member, unless the part or what it added spoke of
 * it.
 */
function unevaluated(
  part: Part,
  parts: readonly Part[],
  { isEvaluated, document }: { isEvaluated: (part: Part) => boolean; document: SchemaDocument },
): readonly Place[] {
  const { unevaluatedProperties: schema } = part.schema;
  if (schema === undefined) return [];
  const isSpokenOf = addedBy(part, parts).some(
    (other) =>
      isEvaluated(other) || (other !== part && other.schema.unevaluatedProperties !== undefined),
  );
  return isSpokenOf ? [] : [document.below(part, ['unevaluatedProperties'], schema)];
}

function placesOfOthers(
  part: Part,
  matching: readonly string[],
  document: SchemaDocument,
): readonly Place[] {
  const { schema, path } = part;
  const patterns = mapAt(schema, 'patternProperties', path);
  const matched = matching.filter((source) => Object.hasOwn(patterns, source));
  if (matched.length > 0) {
    return matched.map((source) =>
      document.below(part, ['patternProperties', source], patterns[source]),
    );
  }
  if (schema.additionalProperties === undefined) return [];
  return [document.below(part, ['additionalProperties'], schema.additionalProperties)];
}

function namesDfa(
  {
    matching,
    missing,
    declared,
    rule,
  }: {
    readonly matching: readonly string[];
    readonly missing: readonly string[];
    readonly declared: readonly string[];
    readonly rule: StringRules | null;
  },
  { compilation }: SchemaReading,
): Dfa | null {
  const { work } = compilation;
  const path = ['patternProperties'];
  const inside = intersectDfas(
    [contentDfa(anyText, work), ...matching.map((source) => compilation.content(source, path))],
    work,
  );
  const excluded = [
    ...missing.map((source) => compilation.content(source, path)),
    literalsDfa(
      declared.map((name) => JSON.stringify(name).slice(1, -1)),
      work,
    ),
  ];
  const left = excluded.reduce(
    (dfa, other) =>
      dfa === null || other === null ? dfa : combineDfa([dfa, other], 'and-not', work),
    inside,
  );
  const quoted = left === null ? null : quotedDfa(left, work);
  if (rule === null) return quoted;
  return intersectDfas([quoted, stringRulesDfa(rule, compilation)], work);
}
