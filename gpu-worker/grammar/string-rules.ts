/** Reads what the parts of a branch say of strings, and makes the automaton of such strings. */
import type { Compilation } from './compilation.ts';
import { combineDfa, literalsDfa } from './dfa.ts';
import type { Dfa } from './dfa.ts';
import { formatPatterns, shorterFormats } from './formats.ts';
import { anyText, contentDfa, intersectDfas } from './nfa.ts';
import type { Part } from './schema-branches.ts';
import { countAt, invalid, isObject } from './schema-keywords.ts';
import type { Path } from './schema-keywords.ts';
import { anyStringDfa, lengthPattern, quotedDfa } from './strings.ts';

interface Source {
  readonly source: string;
  readonly path: Path;
}

interface FormatSource extends Source {
  readonly name: string;
}

export interface StringRules {
  readonly patterns: readonly Source[];
  readonly formats: readonly FormatSource[];
  readonly notPatterns: readonly Source[];
  readonly notTexts: readonly string[];
  readonly length: { readonly min: number; readonly max: number };
}

/** A format that is not known restricts nothing, as JSON Schema has it. @throws SchemaError */
export function stringRules(parts: readonly Part[]): StringRules {
  const patterns: Source[] = [];
  const formats: FormatSource[] = [];
  const notPatterns: Source[] = [];
  const notTexts: string[] = [];
  let [min, max] = [0, Infinity];
  for (const { schema, path } of parts) {
    const { pattern, format, not } = schema;
    if (pattern !== undefined) {
      if (typeof pattern !== 'string') throw invalid([...path, 'pattern'], 'expected a string');
      patterns.push({ source: pattern, path: [...path, 'pattern'] });
    }
    const known = typeof format === 'string' ? formatPatterns.get(format) : undefined;
    if (typeof format === 'string' && known !== undefined) {
      formats.push({ name: format, source: known, path: [...path, 'format'] });
    }
    if (schema.type === 'string' && isObject(not)) {
      if (typeof not.pattern === 'string') {
        notPatterns.push({ source: not.pattern, path: [...path, 'not', 'pattern'] });
      }
      if (Array.isArray(not.enum)) notTexts.push(...not.enum.filter(isString));
    }
    min = Math.max(min, countAt(schema, 'minLength', path) ?? 0);
    max = Math.min(max, countAt(schema, 'maxLength', path) ?? Infinity);
  }
  return { patterns, formats, notPatterns, notTexts, length: { min, max } };
}

/** Rules that are equal have equal keys. */
export function stringKey({
  patterns,
  formats,
  notPatterns,
  notTexts,
  length,
}: StringRules): string {
  const sources = [patterns, formats, notPatterns].map((all) => all.map(({ source }) => source));
  return JSON.stringify([...sources, notTexts, length.min, String(length.max)]);
}

/**
 * Makes the automaton of the rules. If no text of a format has the pattern that stands beside it,
 * the pattern says what is meant: zod's times of day, for example, are not JSON Schema's. @throws
 * SchemaError, GrammarLimitError
 */
export function stringRulesDfa(rules: StringRules, compilation: Compilation): Dfa | null {
  const { patterns, formats } = rules;
  const { work } = compilation;
  const isAny =
    patterns.length + formats.length + rules.notPatterns.length + rules.notTexts.length === 0;
  const { min, max } = rules.length;
  if (isAny && min === 0 && max === Infinity) return anyStringDfa(work);
  const inside = insideDfa(rules, compilation);
  if (inside !== null) return quotedDfa(inside, work);
  if (patterns.length === 0 || formats.length === 0) return null;
  const ofPatterns = insideDfa({ ...rules, formats: [] }, compilation);
  return ofPatterns === null ? null : quotedDfa(ofPatterns, work);
}

function insideDfa(rules: StringRules, compilation: Compilation): Dfa | null {
  const { patterns, notPatterns, notTexts } = rules;
  const { work } = compilation;
  if (rules.length.min > rules.length.max) return null;
  const { formats, length } = withShorterFormats(rules);
  const sources = [...formats, ...patterns];
  const parts = sources.flatMap(({ source, path }) => compilation.contents(source, path));
  const counted = lengthPattern(length);
  if (counted !== null) parts.push(contentDfa(counted, work));
  let dfa = parts.length === 0 ? contentDfa(anyText, work) : intersectDfas(parts, work);
  for (const { source, path } of notPatterns) {
    const excluded = compilation.content(source, path);
    if (dfa !== null && excluded !== null) dfa = combineDfa([dfa, excluded], 'and-not', work);
  }
  const texts = notTexts.map((text) => JSON.stringify(text).slice(1, -1));
  const excluded = literalsDfa(texts, work);
  if (dfa !== null && excluded !== null) dfa = combineDfa([dfa, excluded], 'and-not', work);
  return dfa;
}

/** Formats whose texts are short enough by themselves, so that nothing has to be counted. */
function withShorterFormats({
  formats,
  length,
}: StringRules): Pick<StringRules, 'formats' | 'length'> {
  if (length.max === Infinity) return { formats, length };
  let isShort = false;
  const shorter = formats.map((format) => {
    const found = shorterFormats.get(format.name)?.find(({ lengthMax }) => lengthMax <= length.max);
    if (found === undefined) return format;
    isShort = true;
    return { ...format, source: found.source };
  });
  return { formats: shorter, length: isShort ? { min: length.min, max: Infinity } : length };
}

function isString(value: unknown): value is string {
  return typeof value === 'string';
}
