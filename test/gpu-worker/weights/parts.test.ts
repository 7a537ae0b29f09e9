import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { BufferRing } from '../../../gpu-worker/weights/buffer-ring.ts';
import { cutEvenly, planRuns } from '../../../gpu-worker/weights/parts.ts';
import type { ByteRange } from '../../../gpu-worker/weights/parts.ts';
import { seededRandom } from '../../support/random.ts';

const size = ({ start, end }: ByteRange) => end - start;

/** Ranges of these sizes, one after the other from byte 100 on. */
function rangesOf(...sizes: number[]): ByteRange[] {
  let end = 100;
  return sizes.map((bytes) => ({ start: end, end: (end += bytes) }));
}

describe('parts', () => {
  test('hold small neighbours together, until they have the wanted size', () => {
    const runs = planRuns(rangesOf(4, 4, 3, 9, 1, 1), 10);
    expect(runs.map((run) => run.items.map(size))).toEqual([[4, 4, 3], [9, 1], [1]]);
  });

  test('never reach twice the wanted size by a neighbour', () => {
    const runs = planRuns(rangesOf(9, 12, 9, 11), 10);
    expect(runs.map((run) => run.items.map(size))).toEqual([[9], [12], [9, 11]]);
  });

  test('cut a large range evenly, and keep what has a gap before it apart', () => {
    const large = at(planRuns(rangesOf(100), 10), 0);
    expect(large.parts.map(size).every((bytes) => bytes >= 10 && bytes <= 20)).toBe(true);
    const apart = planRuns(
      [
        { start: 0, end: 3 },
        { start: 4, end: 6 },
      ],
      10,
    );
    expect(apart).toHaveLength(2);
    expect(cutEvenly({ start: 5, end: 5 }, 10)).toEqual([{ start: 5, end: 5 }]);
  });

  test('cover every byte once, in order, for any sizes', () => {
    const seed = Date.now() % 1e9;
    const random = seededRandom(seed);
    for (let round = 0; round < 200; round++) {
      const ranges = rangesOf(...Array.from({ length: 20 }, () => random.integer(0, 60)));
      const parts = planRuns(ranges, 10).flatMap((run) => run.parts);
      expect(at(parts, 0).start, `seed ${seed}`).toBe(100);
      expect(parts.at(-1)?.end, `seed ${seed}`).toBe(ranges.at(-1)?.end);
      for (const [i, part] of parts.entries()) {
        expect(size(part), `seed ${seed}`).toBeLessThanOrEqual(20);
        if (i > 0) expect(part.start, `seed ${seed}`).toBe(at(parts, i - 1).end);
      }
    }
  });
});

describe('the ring of buffers', () => {
  test('grants what fits within its bound, and again what is given back', () => {
    const ring = new BufferRing({ bytesMax: 100, stepBytes: 10 });
    const first = ring.take(35);
    expect(first).toHaveLength(40);
    expect(ring.take(60)).toHaveLength(60);
    expect(ring.take(1)).toBe(null);
    if (first !== null) ring.give(first);
    expect(ring.take(31)).toBe(first);
  });

  test('frees what it holds for a buffer of another size', () => {
    const ring = new BufferRing({ bytesMax: 100, stepBytes: 10 });
    const first = ring.take(90);
    if (first !== null) ring.give(first);
    expect(ring.take(20)).toHaveLength(20);
    // Its memory is gone at once.
    expect(first?.buffer.detached).toBe(true);
  });

  test('grants a size above its bound, alone', () => {
    const ring = new BufferRing({ bytesMax: 100, stepBytes: 10 });
    const large = ring.take(500);
    expect(large).toHaveLength(500);
    expect(ring.take(1)).toBe(null);
    if (large !== null) ring.give(large);
    expect(ring.take(1)).toHaveLength(10);
  });
});
