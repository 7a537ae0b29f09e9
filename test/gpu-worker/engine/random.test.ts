import { expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { philox4x32, uniform } from '../../../gpu-worker/engine/random.ts';

test('philox gives the known answers of the Random123 distribution', () => {
  expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([
    0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8,
  ]);
  const ones = 0xffffffff;
  expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([
    0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
  ]);
  expect(
    philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
  ).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

test('a draw depends on the seed and the position, and on all bits of both', () => {
  const seeds = [0, 1, -1, 2 ** 32, 2 ** 40 + 1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER];
  const draws = seeds.flatMap((seed) =>
    [0, 1, 2 ** 31, 2 ** 32].map((position) => uniform({ seed, position })),
  );
  expect(new Set(draws).size).toBe(draws.length);
  expect(draws.every((draw) => draw >= 0 && draw < 1)).toBe(true);
  expect(uniform({ seed: 7, position: 3 })).toBe(uniform({ seed: 7, position: 3 }));
});

test('draws along the positions of one seed are spread evenly', () => {
  const counts = Array.from({ length: 16 }, () => 0);
  const draws = 16_000;
  for (let position = 0; position < draws; position++) {
    const bin = Math.floor(uniform({ seed: 42, position }) * 16);
    counts[bin] = at(counts, bin) + 1;
  }
  const expected = draws / 16;
  const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 15 degrees of freedom: 37.7 is passed once in a thousand fair runs; the seed is fixed.
  expect(chiSquare).toBeLessThan(37.7);
});
