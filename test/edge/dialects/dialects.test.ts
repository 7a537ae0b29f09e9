import { expect, test } from 'vitest';
import { dialectOf, dialects, readerNamed } from '../../../edge/dialects/dialects.ts';

test('every path of a dialect is answered in that dialect, unknown ones below its prefix too', () => {
  for (const dialect of dialects) {
    const { inferences, tokenCounts, models, pathPrefixes } = dialect;
    const routes = [...inferences, ...tokenCounts, ...(models ? [models.list] : [])];
    const paths = routes.flatMap(({ path, aliases }) => [path, ...aliases]);
    for (const path of [...paths, ...pathPrefixes.map((prefix) => `${prefix}/no/such/route`)]) {
      expect(dialectOf(path), path).toBe(dialect);
    }
  }
});

test('a thread finds the reader of every route by its name, which no other has', () => {
  const readers = dialects.flatMap((each) => [...each.inferences, ...each.tokenCounts]);
  for (const reader of readers) expect(readerNamed(reader.name), reader.name).toBe(reader);
  expect(readerNamed('quote').name).toBe('quote');
  expect(() => readerNamed('none')).toThrow("a reader of requests is named 'none'");
});
