import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { pages, withTable } from '../../infra/settings-docs.ts';

test.each(pages)('$file has the settings that its program reads', ({ file, table }) => {
  const text = readFileSync(file, 'utf8');
  expect(text).toBe(withTable(text, table));
});

test('a page without the place for its table is refused', () => {
  expect(() => withTable('# A page', '')).toThrow('lacks');
});
