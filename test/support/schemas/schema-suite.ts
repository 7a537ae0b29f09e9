/**
 * Counts, over suites of JSON schemas, those that answers are held to and those that are refused,
 * and checks that texts of known values are let through as they should be.
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { Compilation } from '../../../gpu-worker/grammar/compilation.ts';
import { GrammarLimitError } from '../../../gpu-worker/grammar/dfa.ts';
import { formatPatterns } from '../../../gpu-worker/grammar/formats.ts';
import { GrammarBuilder } from '../../../gpu-worker/grammar/grammar.ts';
import type { Grammar } from '../../../gpu-worker/grammar/grammar.ts';
import { JsonWriter } from '../../../gpu-worker/grammar/json-schema.ts';
import { Matcher } from '../../../gpu-worker/grammar/matcher.ts';
import { SchemaError } from '../../../gpu-worker/grammar/schema-keywords.ts';
import { Vocabulary } from '../../../gpu-worker/grammar/vocabulary.ts';

export interface SuiteCase {
  readonly name: string;
  readonly schema: unknown;
  /** Values, and whether they fit. */
  readonly tests: readonly (readonly [unknown, boolean])[];
}

export type Outcome =
  | { readonly kind: 'kept'; readonly grammar: Grammar; readonly ignored: readonly string[] }
  /** No value fits, which is said to whoever asks for one. */
  | { readonly kind: 'empty' }
  | { readonly kind: 'refused'; readonly keyword: string; readonly reason: string };

/** @param impliesTypes as in Compilation: no, to ask exactly what JSON Schema says. */
export function outcomeOf(schema: unknown, { impliesTypes = true } = {}): Outcome {
  try {
    const builder = new GrammarBuilder();
    const [start, end] = [builder.node(), builder.node({ isFinal: true })];
    new JsonWriter(builder, new Compilation({ impliesTypes })).schema(start, schema, end);
    const grammar = builder.build(start);
    if (grammar === null) return { kind: 'empty' };
    if (grammar === 'endless') {
      return { kind: 'refused', keyword: '$ref', reason: 'a value would begin with itself' };
    }
    return { kind: 'kept', grammar, ignored: ignoredIn(schema) };
  } catch (error) {
    if (error instanceof SchemaError) {
      const keyword = error.path.findLast((key) => typeof key === 'string');
      return { kind: 'refused', keyword: String(keyword ?? ''), reason: error.message };
    }
    if (error instanceof GrammarLimitError) {
      return { kind: 'refused', keyword: 'size', reason: error.message };
    }
    throw error;
  }
}

/**
 * Lists the parts that are accepted and have no effect: unknown formats, and descriptions of
 * contents.
 */
function ignoredIn(schema: unknown): readonly string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  const own = Array.isArray(schema)
    ? []
    : Object.entries(schema).flatMap(([keyword, value]) => {
        if (keyword.startsWith('content')) return [keyword];
        if (keyword !== 'format' || typeof value !== 'string') return [];
        return formatPatterns.has(value) || 'pattern' in schema ? [] : [`format ${value}`];
      });
  return [...own, ...Object.values(schema).flatMap(ignoredIn)];
}

const bytesOnly = new Matcher(
  new Vocabulary({ size: 1, tokenBytes: () => new Uint8Array(), isControl: () => true }),
  [],
);

/** Tells if the grammar lets the value through in one of the orders of its properties. */
export function letsThrough(grammar: Grammar, value: unknown): boolean {
  for (const text of texts(value)) {
    const cursor = bytesOnly.start(grammar);
    if (cursor.advance(-1, Buffer.from(text)) && cursor.isComplete) return true;
  }
  return false;
}

const ordersMax = 720;

function texts(value: unknown): readonly string[] {
  if (Array.isArray(value)) return joined(value.map(texts), '[', ']');
  if (typeof value !== 'object' || value === null) return [JSON.stringify(value)];
  const members = Object.entries(value).map(([name, inner]) =>
    texts(inner).map((text) => `${JSON.stringify(name)}:${text}`),
  );
  return orders(members)
    .flatMap((order) => joined(order, '{', '}'))
    .slice(0, ordersMax);
}

function joined(parts: readonly (readonly string[])[], open: string, close: string): string[] {
  const all = parts.reduce<readonly string[][]>(
    (before, options) =>
      before.flatMap((each) => options.map((option) => [...each, option])).slice(0, ordersMax),
    [[]],
  );
  return all.map((each) => open + each.join() + close);
}

function orders<Item>(items: readonly Item[]): readonly (readonly Item[])[] {
  if (items.length > 6) return [items];
  if (items.length < 2) return [items];
  return items.flatMap((first, index) =>
    orders(items.filter((_, at) => at !== index)).map((rest) => [first, ...rest]),
  );
}

const suiteFile = z.record(
  z.string(),
  z.array(
    z.object({
      description: z.string(),
      schema: z.unknown(),
      tests: z.array(z.tuple([z.unknown(), z.boolean()])),
    }),
  ),
);

/** JSON-Schema-Test-Suite as it lies in test/goldens, by file. */
export function officialSuite(draft: 'draft2020-12' | 'draft7'): Map<string, readonly SuiteCase[]> {
  const path = new URL(`../../goldens/json-schema-test-suite/${draft}.json`, import.meta.url);
  const files = suiteFile.parse(JSON.parse(readFileSync(path, 'utf8')));
  return new Map(
    Object.entries(files).map(([file, cases]) => [
      file,
      cases.map(({ description, schema, tests }) => ({
        name: `${draft} ${file}: ${description}`,
        schema: inDraft(schema, draft),
        tests,
      })),
    ]),
  );
}

/** Says the draft where a schema does not: what stands beside a reference depends on it. */
function inDraft(schema: unknown, draft: string): unknown {
  const isObject = typeof schema === 'object' && schema !== null;
  if (draft !== 'draft7' || !isObject || '$schema' in schema) return schema;
  return { $schema: 'http://json-schema.org/draft-07/schema#', ...schema };
}
