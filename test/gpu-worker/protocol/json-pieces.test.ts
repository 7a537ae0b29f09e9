import fc from 'fast-check';
import { expect, test } from 'vitest';
import { shortJson, WrittenItems, writeJson } from '../../../gpu-worker/protocol/json-pieces.ts';

async function piecesOf(value: object): Promise<string[]> {
  const json = writeJson(value);
  return typeof json === 'string' ? [json] : await Array.fromAsync(json);
}

function writtenOf(items: readonly unknown[]): WrittenItems {
  const written = new WrittenItems();
  for (const item of items) written.push(item);
  return written;
}

const longText = fc
  .constantFrom('a', '\n', '"\\', '😀', 'é', '\ud83d')
  .map((text) => text.repeat(200_000));
const value = fc.record({
  json: fc.jsonValue({ maxDepth: 12 }),
  long: fc.array(longText, { maxLength: 3 }),
  items: fc.array(fc.jsonValue({ maxDepth: 2 }), { maxLength: 9 }),
  absent: fc.constant(undefined),
  list: fc.constant([undefined, null, {}, []]),
});

test('the pieces of a value together are its JSON', async () => {
  await fc.assert(
    fc.asyncProperty(value, async ({ items, ...rest }) => {
      const text = (await piecesOf({ ...rest, items: writtenOf(items) })).join('');
      // A long text may have half a character where it is cut, which both ways escape.
      expect(text).toBe(JSON.stringify({ ...rest, items }));
    }),
    { numRuns: 15 },
  );
});

test.for([
  ['a text', { text: 'a'.repeat(1_000_000) }],
  ['many items', { items: writtenOf(Array.from({ length: 20_000 }, () => 'x'.repeat(50))) }],
  ['many values', { items: Array.from({ length: 20_000 }, () => ({ text: 'x'.repeat(50) })) }],
] as const)('%s of a megabyte is written in pieces of about the same length', async ([, json]) => {
  const pieces = await piecesOf(json);
  expect(pieces.length).toBeGreaterThan(5);
  expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThan(300_000);
});

test('whatever waits for the event loop has its turn between two pieces', async () => {
  const json = writeJson({ text: 'a'.repeat(2_000_000) });
  if (typeof json === 'string') throw new Error('a long text is written in pieces');
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  let pieces = 0;
  for await (const _ of json) pieces++;
  clearInterval(timer);
  // The first two are there before it is known that there are several.
  expect(turns).toBeGreaterThanOrEqual(pieces - 3);
});

test('a value is written short only if it is', () => {
  expect(shortJson({ a: [1] }, 9)).toBe('{"a":[1]}');
  expect(shortJson({ a: [1] }, 8)).toBeNull();
  expect(shortJson({ a: 'a'.repeat(1_000_000) }, 500_000)).toBeNull();
});

test('items that are written already are not read again', () => {
  const items = writtenOf([{ token: 'a' }]);
  items.toJSON = () => {
    throw new Error('they were read');
  };
  expect(writeJson({ items })).toBe('{"items":[{"token":"a"}]}');
});
