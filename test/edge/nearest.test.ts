import fc from 'fast-check';
import { expect, test } from 'vitest';
import { editDistance, nearestName } from '../../edge/nearest.ts';

test.each([
  ['', '', 0],
  ['', 'abc', 3],
  ['kitten', 'sitting', 3],
  ['tenants', 'tenatns', 1],
  ['ca', 'abc', 3],
])('from %j to %j are %d edits', (a, b, edits) => {
  expect(editDistance(a, b)).toBe(edits);
});

test('the distance is symmetric, none to itself, and at most the longer length', () => {
  const word = fc.string({ maxLength: 12, unit: fc.constantFrom('a', 'b', 'c') });
  fc.assert(
    fc.property(word, word, (a, b) => {
      expect(editDistance(a, b)).toBe(editDistance(b, a));
      expect(editDistance(a, a)).toBe(0);
      expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
    }),
  );
});

test('there is no nearest of no names, nor to what is too long to be one', () => {
  expect(nearestName('x', [])).toBeNull();
  expect(nearestName('x'.repeat(257), ['x'])).toBeNull();
  expect(nearestName('x', ['', 'y'])).not.toBeNull();
});
