/**
 * The dialects that the edge speaks. A new one is a folder beside this file and a line in the list.
 */
import { strict as assert } from 'node:assert';
import { anthropic } from './anthropic/anthropic.ts';
import type { Dialect, RequestReader } from './dialect.ts';
import { openAi } from './openai/openai.ts';
import { quoteReader } from './quote-request.ts';
import { responsesDialect } from './responses/responses.ts';

/** The reference shows them in this order. */
export const dialects: readonly Dialect[] = [openAi, responsesDialect, anthropic];

/** The dialect of the longest prefix; OpenAI's is the prefix of all paths. */
export function dialectOf(path: string): Dialect {
  const [nearest] = dialects
    .flatMap((dialect) => dialect.pathPrefixes.map((prefix) => ({ dialect, prefix })))
    .filter(({ prefix }) => path.startsWith(prefix))
    .toSorted((a, b) => b.prefix.length - a.prefix.length);
  assert(nearest !== undefined, 'a path begins with a slash');
  return nearest.dialect;
}

const readers: ReadonlyMap<string, RequestReader> = new Map(
  [...dialects.flatMap((each) => [...each.inferences, ...each.tokenCounts]), quoteReader].map(
    (reader) => [reader.name, reader],
  ),
);

export function readerNamed(name: string): RequestReader {
  const reader = readers.get(name);
  assert(reader !== undefined, `a reader of requests is named '${name}'`);
  return reader;
}
