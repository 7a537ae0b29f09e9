import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../../support/random.ts';
import { f32Numerics, openTested } from '../../../support/gpu/backends.ts';

/**
 * Selects among keys whose scores are given: one head of dimension one, query 1, so that the score
 * of a key is weight * max(0, key). The row is the last of its sequence.
 */
async function selectAmong(
  keys: ArrayLike<number>,
  width: number,
  options: { weight?: number; threads?: number } = {},
): Promise<Int32Array> {
  const { weight = 1, threads = 1 } = options;
  const count = keys.length;
  const { backend, filled } = await openTested(f32Numerics, { rowsMax: count, threads });
  const shape = { layers: 1, blocks: Math.ceil(count / 64), latentDim: 4, ropeDim: 0, indexDim: 1 };
  const [cache] = backend.caches.make(shape);
  if (cache === undefined) throw new Error('no cache was made');
  const positions = Int32Array.from({ length: count }, (_, r) => r);
  const sequences = new Int32Array(count);
  const blockTables = [Int32Array.from({ length: shape.blocks }, (_, block) => block)];
  const all = { tokens: positions, positions, slots: positions, sequences, blockTables };
  backend.batch.begin(all);
  backend.caches.writeIndexKeys(cache, filled(Float32Array.from(keys), 1));
  const last = Int32Array.of(count - 1);
  backend.batch.begin({
    tokens: last,
    positions: last,
    slots: last,
    sequences: Int32Array.of(0),
    blockTables,
  });
  const selection = backend.indexer.selection(1, width);
  try {
    const [q, w] = [filled(Float32Array.of(1), 1), filled(Float32Array.of(weight), 1)];
    backend.indexer.selectTopK(selection, cache, q, w, { heads: 1, dim: 1 });
    return backend.indexer.readSelection(selection, 1)[0] ?? new Int32Array(0);
  } finally {
    await backend.close();
  }
}

/** Score descending, index ascending on ties, output ascending. */
function expectedTop(scores: number[], width: number): Int32Array {
  const order = [...scores.keys()].toSorted((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
  return Int32Array.from(order.slice(0, width)).toSorted();
}

describe('the selection', () => {
  test.each([1, 15, 16, 17, 64, 65, 1000])('of 16 among %i random keys is exact', async (count) => {
    const random = seededRandom(count);
    const keys = Array.from({ length: count }, () => Math.fround(random.uniform()));
    expect(await selectAmong(keys, 16)).toEqual(expectedTop(keys, 16));
  });

  test('takes the first among equal scores', async () => {
    expect([...(await selectAmong(new Float32Array(200).fill(3), 5))]).toEqual([0, 1, 2, 3, 4]);
    const keys = Array.from({ length: 100 }, (_, i) => (i % 10 === 7 ? 2 : 1));
    expect([...(await selectAmong(keys, 12))]).toEqual([
      0, 1, 7, 17, 27, 37, 47, 57, 67, 77, 87, 97,
    ]);
  });

  test('treats -0 as 0: relu of a negative key times a negative weight does not lose to +0', async () => {
    // weight * max(0, key) is -0 for every key here but the last two.
    const keys = [-1, -2, -3, -4, -5, 1, 2];
    expect([...(await selectAmong(keys, 3, { weight: -1 }))]).toEqual([0, 1, 2]);
  });

  test('orders negative scores', async () => {
    const keys = Array.from({ length: 300 }, (_, i) => 1 + ((i * 7) % 300));
    const scores = keys.map((key) => -key);
    expect(await selectAmong(keys, 40, { weight: -1 })).toEqual(expectedTop(scores, 40));
  });

  test('tells scores apart that differ in their last bit only', async () => {
    const bits = new Uint32Array(300).map((_, i) => 0x3f800000 + ((i * 61) % 300));
    const keys = [...new Float32Array(bits.buffer)];
    expect(await selectAmong(keys, 70)).toEqual(expectedTop(keys, 70));
  });

  test('is the same with two threads, and with the largest floats', async () => {
    const random = seededRandom(41);
    const keys = Array.from({ length: 3000 }, () => Math.fround(random.normal()));
    keys[17] = Math.fround(3e38);
    keys[2500] = Math.fround(3e38);
    const scores = keys.map((key) => Math.max(0, key));
    for (const threads of [1, 2]) {
      // oxlint-disable-next-line no-await-in-loop
      expect(await selectAmong(keys, 256, { threads })).toEqual(expectedTop(scores, 256));
    }
  });

  test('refuses scores that are not numbers', async () => {
    const keys = new Float32Array(50).fill(1);
    keys[20] = Number.NaN;
    await expect(selectAmong(keys, 10)).rejects.toThrow(/an index score is not a number/);
  });

  test('does not look at scores when everything is selected', async () => {
    const keys = new Float32Array(10).fill(Number.NaN);
    expect([...(await selectAmong(keys, 10))]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});
