/**
 * Rows that come together are selected by approximate scores first, single rows by exact ones: both
 * have to take the same tokens, whatever the scores are.
 */
import { describe, expect, test } from 'vitest';
import { CpuBackend } from '../../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { asCpu } from '../../../../gpu-worker/backend/cpu/handles.ts';
import {
  opIndexFilter,
  opIndexScores,
} from '../../../../gpu-worker/backend/cpu/kernels/op-codes.ts';
import type { Numerics } from '../../../../gpu-worker/backend/numerics.ts';
import { f32Numerics, fp8Numerics, openTested } from '../../../support/gpu/backends.ts';
import { seededRandom } from '../../../support/random.ts';

const tokens = 2_600;
const rows = 40;

interface Case {
  readonly heads: number;
  readonly dim: number;
  readonly width: number;
  readonly numerics?: Numerics;
  readonly threads?: number;
  /** Elements of keys by token and dimension. */
  key(token: number, d: number): number;
  /** Elements of queries by row, head and dimension. */
  query(row: number, head: number, d: number): number;
  weight(row: number, head: number): number;
}

/** The selections of the last rows, computed together and one by one, and the ops of the former. */
async function selectBothWays(of: Case) {
  const { heads, dim, width, numerics = f32Numerics, threads = 1 } = of;
  const { backend, filled } = await openTested(numerics, { rowsMax: tokens, threads });
  const pages = Math.ceil(tokens / 64);
  const shape = { layers: 1, blocks: pages, latentDim: 4, ropeDim: 0, indexDim: dim };
  const [cache] = backend.caches.make(shape);
  if (cache === undefined) throw new Error('no cache was made');
  // Pages lie in another order than the sequence has them.
  const blockTable = Int32Array.from({ length: pages }, (_, page) => pages - 1 - page);
  const begin = (start: number, count: number): void => {
    const positions = Int32Array.from({ length: count }, (_, r) => start + r);
    backend.batch.begin({
      tokens: positions,
      positions,
      slots: positions.map((p) => (blockTable[p >> 6] ?? 0) * 64 + (p & 63)),
      sequences: new Int32Array(count),
      blockTables: [blockTable],
    });
  };
  const table = (count: number, columns: number, element: (r: number, c: number) => number) =>
    Float32Array.from({ length: count * columns }, (_, i) =>
      Math.fround(element(Math.floor(i / columns), i % columns)),
    );
  const ops = new Set<number>();
  const { pool } = asCpu(CpuBackend, backend).context;
  const run = pool.run.bind(pool);
  pool.run = (job) => {
    ops.add(job.op);
    run(job);
  };
  try {
    begin(0, tokens);
    backend.caches.writeIndexKeys(cache, filled(table(tokens, dim, of.key), dim));
    const queries = table(rows, heads * dim, (r, c) => of.query(r, Math.floor(c / dim), c % dim));
    const weights = table(rows, heads, of.weight);
    const selection = backend.indexer.selection(tokens, width);
    const select = (first: number, count: number): Int32Array[] => {
      begin(tokens - rows + first, count);
      const q = queries.subarray(first * heads * dim, (first + count) * heads * dim);
      const w = weights.subarray(first * heads, (first + count) * heads);
      const options = { heads, dim };
      backend.indexer.selectTopK(
        selection,
        cache,
        filled(q, heads * dim),
        filled(w, heads),
        options,
      );
      return backend.indexer.readSelection(selection, count);
    };
    const alone = Array.from({ length: rows }, (_, r) => select(r, 1)).flat();
    ops.clear();
    return { together: select(0, rows), alone, ops };
  } finally {
    await backend.close();
  }
}

const random = seededRandom(17);
const noise = Array.from({ length: 65_521 }, () => random.normal());
const normal = (...at: number[]): number =>
  noise[at.reduce((hash, each) => (hash * 31 + each * 7_919 + 1) % noise.length, 7)] ?? 0;

const plain: Case = {
  heads: 8,
  dim: 64,
  width: 64,
  key: (t, d) => normal(1, t, d),
  query: (r, h, d) => normal(2, r, h, d),
  weight: (r, h) => normal(3, r, h),
};

describe('rows together select what each selects alone', () => {
  test.each<[string, Partial<Case>, 'filter alone' | 'filter']>([
    ['random scores', {}, 'filter alone'],
    ['two threads', { threads: 2 }, 'filter alone'],
    ['three heads of 6', { heads: 3, dim: 6 }, 'filter alone'],
    ['a width of 500', { width: 500 }, 'filter alone'],
    ['fp8 keys', { numerics: fp8Numerics, dim: 128 }, 'filter alone'],
    ['keys of few directions, many ties', { key: (t, d) => normal(t % 37, d) }, 'filter'],
    ['all keys equal', { key: (_, d) => normal(d) }, 'filter'],
    ['weights of zero', { weight: () => 0 }, 'filter'],
    ['negative weights', { weight: (r, h) => -Math.abs(normal(r, h)) }, 'filter'],
    [
      'scores that rise by the last bits',
      { key: (t, d) => 1 + ((t * 61) % tokens) * 2 ** -23 + d },
      'filter',
    ],
    ['one key of 1e15', { key: (t, d) => normal(t, d) * (t === 1_700 ? 1e15 : 1) }, 'filter'],
    ['keys of all sizes', { key: (t, d) => normal(t, d) * 10 ** ((t % 41) - 20) }, 'filter'],
    [
      'tiny elements',
      { key: (t, d) => normal(t, d) * 1e-20, query: (r, h, d) => normal(r, h, d) * 1e-17 },
      'filter',
    ],
    [
      'infinite keys',
      {
        key: (t, d) => (t === 99 ? Infinity : Math.abs(normal(t, d))),
        query: (r, h, d) => Math.abs(normal(r, h, d)) + 1e-3,
        weight: () => 1,
      },
      'filter',
    ],
    [
      'scores that overflow',
      {
        key: (t, d) => Math.abs(normal(t, d)) * 1e20,
        query: (r, h, d) => Math.abs(normal(r, h, d)) * 1e20,
        weight: () => 1,
      },
      'filter',
    ],
  ])('%s', async (_, changes, expected) => {
    const { together, alone, ops } = await selectBothWays({ ...plain, ...changes });
    expect(together).toEqual(alone);
    expect(ops).toContain(opIndexFilter);
    if (expected === 'filter alone') expect(ops).not.toContain(opIndexScores);
  });

  test('any seed, with scores close to each other', async () => {
    for (let seed = 0; seed < 6; seed++) {
      const spread = 10 ** -seed;
      // oxlint-disable-next-line no-await-in-loop
      const { together, alone } = await selectBothWays({
        ...plain,
        heads: 1 + seed,
        key: (t, d) => normal(seed, d) + spread * normal(seed, t, d),
      });
      expect(together, `seed ${seed}`).toEqual(alone);
    }
  });
});

test('a score that is not a number is refused in company too', async () => {
  const key = (t: number, d: number) => (t === 1_000 ? Number.NaN : normal(t, d));
  await expect(selectBothWays({ ...plain, key })).rejects.toThrow('an index score is not a number');
});
