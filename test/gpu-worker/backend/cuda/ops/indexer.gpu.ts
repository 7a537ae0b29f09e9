/**
 * The indexer at V3.2's width: the top-k of given scores exactly, the scores of the tensor cores
 * within their rounding bound, and selections that do not depend on what else is in the step.
 *
 * The tensor cores add 32 products of fp8 at a time, cut off some bits below the greatest: a score
 * is within `roundingBound` of scale_s sum_j |w_j| sum_d |q_jd k_sd| of the exact one. A token that
 * is selected here and not by the cpu backend has a score within twice that of the threshold.
 */
import type { Batch } from '../../../../../gpu-worker/backend/batch.ts';
import type { LayerCache, Selection } from '../../../../../gpu-worker/backend/shapes.ts';
import type { CudaBackend } from '../../../../../gpu-worker/backend/cuda/cuda-backend.ts';
import {
  CudaLayerCache,
  CudaSelection,
  asCuda,
} from '../../../../../gpu-worker/backend/cuda/handles.ts';
import { test } from '../../../../gpu/check.ts';
import { fromE4m3, toE4m3 } from '../../../../oracle/number-formats.ts';
import { seededRandom } from '../../../../support/random.ts';
import type { Random } from '../../../../support/random.ts';
import { fp8Numerics, randomFloats, shuffledBlocks } from '../../../../support/gpu/backends.ts';
import type { Tested } from '../../../../support/gpu/backends.ts';
import { isSmall, openCudaTested, openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
const dim = 128;
const roundingBound = 2 ** -16;
console.log(`seed ${seed}`);
type Scores = (random: Random, index: number, count: number) => number;

const bits = new DataView(new ArrayBuffer(4));
function floatOf(word: number): number {
  bits.setUint32(0, word);
  return bits.getFloat32(0);
}

const kinds: Record<string, Scores> = {
  normal: (random) => random.normal(),
  negative: (random) => -5 - Math.abs(random.normal()),
  equal: () => 1.5,
  ascending: (_, i) => i * 0.25 - 100,
  descending: (_, i) => 3 - i * 0.5,
  'three values': (random) => random.integer(0, 2),
  'fifty values': (random) => random.integer(-25, 24),
  zeros: (random) => (random.integer(0, 1) === 1 ? 0 : -0),
  denormals: (random) => floatOf(random.integer(0, 5000) + 0x80000000 * random.integer(0, 1)),
  infinities: (random) => random.choose([Infinity, -Infinity, random.normal(), 1]),
  'minus infinity': () => -Infinity,
  outlier: (random, i) => (i === 7 ? 3e38 : random.normal() * 1e-3),
  'any bits': (random) => {
    const value = floatOf(Math.floor(random.uniform() * 2 ** 32));
    return Number.isNaN(value) ? 1 : value;
  },
  'late cluster': (random, i, count) => random.normal() + (i > count - 3000 ? 5 : 0),
  'whole groups': (random, i) =>
    Math.floor(i / 16) % 64 === 0 ? 10 + random.normal() * 0.01 : random.normal(),
  'ties at the threshold': (_, i) => (i % 7 === 0 ? 1 : i % 3 === 0 ? 2 : 0.5),
};

/** Score descending, index ascending; the indices ascending. */
function topOf(scores: Float32Array, width: number): Int32Array {
  const count = scores.length;
  if (count <= width) return Int32Array.from({ length: count }, (_, i) => i);
  // Adding 0 makes -0 and 0 one.
  const sorted = scores.map((score) => score + 0).toSorted();
  const threshold = sorted[count - width] ?? 0;
  let equalLeft = width - scores.reduce((above, score) => above + Number(score > threshold), 0);
  const out: number[] = [];
  scores.forEach((score, i) => {
    if (score > threshold || (score === threshold && equalLeft-- > 0)) out.push(i);
  });
  return Int32Array.from(out);
}

/** Rows that all see `count` tokens of sequences of their own, which share one block. */
function rowsSeeing(rows: number, count: number): Batch {
  const position = count - 1;
  const table = new Int32Array(Math.ceil(count / 64));
  return {
    tokens: new Int32Array(rows),
    positions: new Int32Array(rows).fill(position),
    slots: new Int32Array(rows).fill(position % 64),
    sequences: Int32Array.from({ length: rows }, (_, r) => r),
    blockTables: Array.from({ length: rows }, () => table),
  };
}

function expectSameTokens(actual: Int32Array, expected: Int32Array, what: string): void {
  const at = expected.findIndex((token, i) => token !== actual[i]);
  if (actual.length !== expected.length || at >= 0) {
    throw new Error(
      `${what}: ${actual.length} tokens for ${expected.length}, first differs at ${at}: ${actual[at]} for ${expected[at]}`,
    );
  }
}

async function topOfGiven(): Promise<void> {
  const { backend } = await openCudaTested(fp8Numerics, { rowsMax: 160 });
  const { device } = backend.context;
  const { indexer } = backend;
  backend.caches.make({ layers: 1, blocks: 1, latentDim: 64, ropeDim: 0, indexDim: dim });
  const names = Object.keys(kinds);
  const shapes = [
    { count: 17, width: 16 },
    { count: 1000, width: 999 },
    { count: 5000, width: 130 },
    { count: 2047, width: 2048 },
    { count: 2049, width: 2048 },
    { count: 8191, width: 2048 },
    { count: 8191, width: 2048, rows: 150 },
    ...(isSmall
      ? []
      : [40_000, 70_000, 131_071, 131_072, 300_000].map((count) => ({ count, width: 2048 }))),
  ];
  for (const { count, width, rows = names.length } of shapes) {
    const label = `the top ${width} of ${count} scores, ${rows} rows`;
    await test(label, () => {
      const random = seededRandom(seed + count);
      const selection = asCuda(CudaSelection, backend.indexer.selection(rows, width));
      backend.batch.begin(rowsSeeing(rows, count));
      const tokens = 2 ** Math.ceil(Math.log2(Math.max(count, 1024)));
      const all = { tokens, first: 0, count: rows };
      const places = indexer.places(all);
      device.fill(places.scores, rows * tokens * 4 * (17 / 16), 0xff);
      const given = names.map((name) => {
        const kind = kinds[name] ?? (() => 0);
        return Float32Array.from({ length: count }, (_, i) => kind(random, i, count));
      });
      for (let row = 0; row < rows; row++) {
        const scores = given[row % names.length] ?? new Float32Array(0);
        device.upload(places.scores + row * tokens * 4, new Uint8Array(scores.buffer));
      }
      const expected = given.map((scores) => topOf(scores, width));
      for (let repeat = 0; repeat < 2; repeat++) {
        device.fill(selection.at, rows * width * 4, 0xff);
        device.fill(selection.counts, rows * 4, 0xff);
        indexer.maxima(width, all);
        indexer.topK(selection, all);
        backend.indexer.readSelection(selection, rows).forEach((tokensOfRow, row) => {
          const name = names[row % names.length] ?? '';
          const wanted = expected[row % names.length] ?? new Int32Array(0);
          expectSameTokens(tokensOfRow, wanted, `${name}, row ${row}`);
        });
      }
    });
  }
  await backend.close();
}
interface Side {
  readonly heads: number;
  readonly tested: Tested;
  readonly cache: LayerCache;
  readonly selection: Selection;
}

/** Keys of a sequence, [tokens][dim], on both sides. */
function sideOf(
  tested: Tested,
  { heads, blocks, rows, width }: { heads: number; blocks: number; rows: number; width: number },
): Side {
  const { backend } = tested;
  const selection = backend.indexer.selection(rows, width);
  const shape = { layers: 1, blocks, latentDim: 64, ropeDim: 0, indexDim: dim };
  const [cache] = backend.caches.make(shape);
  if (cache === undefined) throw new Error('no cache was made');
  return { heads, tested, cache, selection };
}

/** Rows at given positions, each of the sequence that `sequences` names. */
function batchAt(
  positions: readonly number[],
  sequences: readonly number[],
  tables: readonly Int32Array[],
): Batch {
  return {
    tokens: new Int32Array(positions.length),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(positions, (position, r) => {
      const table = tables[sequences[r] ?? 0];
      return (table?.[Math.floor(position / 64)] ?? 0) * 64 + (position % 64);
    }),
    sequences: Int32Array.from(sequences),
    blockTables: tables,
  };
}

function writeKeys({ tested, cache }: Side, keys: Float32Array, table: Int32Array): void {
  const { backend, filled } = tested;
  const tokens = keys.length / dim;
  for (let start = 0; start < tokens; start += 4096) {
    const count = Math.min(4096, tokens - start);
    const positions = Array.from({ length: count }, (_, i) => start + i);
    backend.batch.begin(
      batchAt(
        positions,
        Array.from(positions, () => 0),
        [table],
      ),
    );
    backend.caches.writeIndexKeys(
      cache,
      filled(keys.subarray(start * dim, (start + count) * dim), dim),
    );
  }
}

interface Rows {
  readonly q: Float32Array;
  readonly w: Float32Array;
}

function selectedBy(side: Side, batch: Batch, rows: Rows): Int32Array[] {
  const { backend, filled } = side.tested;
  const { heads } = side;
  backend.batch.begin(batch);
  const q = filled(rows.q, heads * dim);
  const w = filled(rows.w, heads, 'f32');
  backend.indexer.selectTopK(side.selection, side.cache, q, w, { heads, dim });
  return backend.indexer.readSelection(side.selection, batch.positions.length);
}

function quantised(values: Float32Array): { codes: Float32Array; scale: number } {
  const amax = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-4);
  const scale = 2 ** Math.ceil(Math.log2(Math.fround(amax / 448)));
  return { codes: values.map((value) => toE4m3(value / scale)), scale };
}

/** The cache's keys of a page: codes [64][dim] as values, and scales [64]. */
function pageOf(backend: CudaBackend, cache: LayerCache, block: number) {
  const { keys, pageBytes } = asCuda(CudaLayerCache, cache);
  const page = backend.context.device.download(keys + block * pageBytes, pageBytes);
  const scales = new Float32Array(page.slice(64 * dim).buffer);
  return { codes: Float32Array.from(page.subarray(0, 64 * dim), fromE4m3), scales };
}

/** Worst |score - exact| of a page, in units of scale_s sum_j |w_j| sum_d |q_jd k_sd|. */
function worstOfPage(
  page: { codes: Float32Array; scales: Float32Array },
  queries: { codes: Float32Array; weight: number }[],
  scores: Float32Array,
): number {
  let worst = 0;
  scores.forEach((score, token) => {
    let exact = 0;
    let size = 0;
    for (const { codes, weight } of queries) {
      let dot = 0;
      let dotSize = 0;
      for (let d = 0; d < dim; d++) {
        const product = (codes[d] ?? 0) * (page.codes[token * dim + d] ?? 0);
        dot += product;
        dotSize += Math.abs(product);
      }
      exact += weight * Math.max(dot, 0);
      size += Math.abs(weight) * dotSize;
    }
    const scale = page.scales[token] ?? 0;
    const off = Math.abs(score - exact * scale) / (size * scale);
    if (!(off <= worst)) worst = off;
  });
  return worst;
}

async function fullWidth(heads: number, contextMax: number): Promise<void> {
  const width = 2048;
  const context = isSmall ? 5000 : contextMax;
  const { cuda, cpu, close } = await openPair(fp8Numerics, { rowsMax: 4096 });
  const random = seededRandom(seed);
  const blocks = Math.ceil(context / 64);
  const table = shuffledBlocks(random, blocks);
  const shape = { heads, blocks, rows: 32, width };
  const sides = [sideOf(cuda, shape), sideOf(cpu, shape)] as const;
  const keys = toBf16(randomFloats(random, context * dim));
  for (const side of sides) writeKeys(side, keys, table);
  const positions = [0, 2046, 2047, 2048, 4095, 8190, 39_999, 131_070]
    .filter((position) => position < context)
    .slice(isSmall ? -3 : 0);
  const rows = positions.length;
  const inputs = {
    q: toBf16(randomFloats(random, rows * heads * dim)),
    w: randomFloats(random, rows * heads),
  };
  const one = positions.map(() => 0);
  const apart = one.map((_, r) => r);
  const together = batchAt(positions, one, [table]);
  const ofTheirOwn = batchAt(
    positions,
    apart,
    apart.map(() => table),
  );
  const { backend } = cuda;
  const { device } = backend.context;
  const tokens = 2 ** Math.ceil(Math.log2(Math.max(...positions) + 1));
  const scoresOf = (row: number, count: number) => {
    const { scores } = backend.indexer.places({ tokens, first: 0, count: rows });
    return new Float32Array(device.download(scores + row * tokens * 4, count * 4).slice().buffer);
  };
  const poisonScores = () => {
    device.fill(
      backend.indexer.places({ tokens, first: 0, count: 0 }).scores,
      rows * tokens * 5,
      0xff,
    );
  };

  let selected: Int32Array[] = [];
  await test(`${heads} heads, full width: the top of the scores that the tensor cores give`, () => {
    poisonScores();
    selected = selectedBy(sides[0], together, inputs);
    selected.forEach((row, r) => {
      const seen = (positions[r] ?? 0) + 1;
      const wanted =
        seen <= width
          ? Int32Array.from({ length: seen }, (_, i) => i)
          : topOf(scoresOf(r, seen), width);
      expectSameTokens(row, wanted, `row ${r}`);
    });
  });

  await test(`${heads} heads, full width: scores within their rounding bound of the exact ones`, () => {
    let worst = 0;
    for (let r = 0; r < rows; r++) {
      const seen = (positions[r] ?? 0) + 1;
      if (seen <= width) continue;
      const scores = scoresOf(r, seen);
      const queries = Array.from({ length: heads }, (_, h) => {
        const at = (r * heads + h) * dim;
        const { codes, scale } = quantised(inputs.q.subarray(at, at + dim));
        const weight = (inputs.w[r * heads + h] ?? 0) * scale * (heads * dim) ** -0.5;
        return { codes, weight };
      });
      const last = Math.floor((seen - 1) / 64);
      for (const index of [0, 1, Math.floor(last / 2), last - 1, last]) {
        const page = pageOf(backend, sides[0].cache, table[index] ?? 0);
        const part = scores.subarray(index * 64, Math.min(index * 64 + 64, seen));
        worst = Math.max(worst, worstOfPage(page, queries, part));
      }
    }
    console.log(`     worst rounding ${worst.toExponential(2)} of the sum of magnitudes`);
    if (!(worst < roundingBound)) throw new Error(`a score is off by ${worst}`);
  });

  await test(`${heads} heads, full width: selections of the cpu backend, but for tokens at the threshold`, () => {
    const expected = selectedBy(sides[1], together, inputs);
    let different = 0;
    expected.forEach((wanted, r) => {
      const mine = selected[r] ?? new Int32Array(0);
      if (mine.length !== wanted.length) throw new Error(`row ${r} has another size`);
      const known = new Set(wanted);
      const extra = mine.filter((token) => !known.has(token));
      different += extra.length;
      if (extra.length === 0) return;
      const scores = scoresOf(r, (positions[r] ?? 0) + 1);
      const threshold = mine.reduce((least, t) => Math.min(least, scores[t] ?? 0), Infinity);
      // The sum of magnitudes of any token here is at most this: 128 normal products a head.
      const magnitudes = 128 * heads * (heads * dim) ** -0.5;
      for (const token of extra) {
        const over = (scores[token] ?? 0) - threshold;
        if (over > 2 * roundingBound * magnitudes) throw new Error(`row ${r}: token ${token}`);
      }
    });
    console.log(`     ${different} of ${rows * width} selected tokens differ`);
  });

  await test(`${heads} heads, full width: the same bits again, and for rows of sequences of their own`, () => {
    const before = positions.map((position, r) => scoresOf(r, position + 1));
    for (const batch of [together, ofTheirOwn, together]) {
      poisonScores();
      selectedBy(sides[0], batch, inputs).forEach((row, r) => {
        expectSameTokens(row, selected[r] ?? new Int32Array(0), `row ${r}`);
        const seen = (positions[r] ?? 0) + 1;
        if (seen <= width) return;
        const scores = scoresOf(r, seen);
        const off = scores.findIndex((score, i) => !Object.is(score, before[r]?.[i]));
        if (off >= 0) throw new Error(`the score of token ${off} of row ${r} differs`);
      });
    }
  });

  await ragged(sides[0], table, context);
  await notNumbers(sides[0], table, inputs);
  await close();
}

/** Chunks of several sequences beside single rows, in groups that straddle the sequences. */
async function ragged(side: Side, table: Int32Array, context: number): Promise<void> {
  const random = seededRandom(seed + 7);
  const { heads } = side;
  const width = side.selection.width;
  const parts = [
    { end: context, rows: 1 },
    { end: 3001, rows: 3 },
    { end: 2048, rows: 1 },
    { end: 4100, rows: 2 },
    { end: 100, rows: 1 },
    { end: 2500, rows: 5 },
    { end: 2900, rows: 13 },
    { end: context, rows: 1 },
    { end: 2050, rows: 2 },
  ];
  await test(`${heads} heads: rows of many sequences select as each does alone`, () => {
    const rowCount = parts.reduce((sum, part) => sum + part.rows, 0);
    const inputs = {
      q: toBf16(randomFloats(random, rowCount * heads * dim)),
      w: randomFloats(random, rowCount * heads),
    };
    const positions = parts.flatMap(({ end, rows }) =>
      Array.from({ length: rows }, (_, r) => end - rows + r),
    );
    const sequences = parts.flatMap(({ rows }, s) => Array.from({ length: rows }, () => s));
    const tables = parts.map(() => table);
    const all = selectedBy(side, batchAt(positions, sequences, tables), inputs);
    all.forEach((row, r) => {
      const alone = selectedBy(side, batchAt(positions.slice(r, r + 1), [0], [table]), {
        q: inputs.q.slice(r * heads * dim, (r + 1) * heads * dim),
        w: inputs.w.slice(r * heads, (r + 1) * heads),
      });
      expectSameTokens(row, alone[0] ?? new Int32Array(0), `row ${r}`);
      if (row.length !== Math.min(width, (positions[r] ?? 0) + 1)) throw new Error(`row ${r}`);
    });
  });
}

async function notNumbers(side: Side, table: Int32Array, inputs: Rows): Promise<void> {
  const position = 4500;
  const { heads } = side;
  const row = {
    q: inputs.q.slice(0, heads * dim),
    w: inputs.w.slice(0, heads),
  };
  const batch = batchAt([position], [0], [table]);
  const pair = batchAt([position - 1, position], [0, 0], [table]);
  const throws = (what: string, which: Batch, rows: Rows) => {
    try {
      selectedBy(side, which, rows);
    } catch (cause) {
      if (cause instanceof Error && cause.message.includes('not a number')) return;
      throw cause;
    }
    throw new Error(`${what} went unseen`);
  };
  await test(`${heads} heads: a query, a weight or a key that is not a number is told`, () => {
    const q = row.q.slice();
    q[777] = Number.NaN;
    throws('a query', batch, { ...row, q });
    const w = row.w.slice();
    w[heads - 1] = Number.NaN;
    throws('a weight', batch, { ...row, w });
    const twice = (values: Float32Array, other: Float32Array) =>
      Float32Array.from([...values, ...other]);
    throws('a query of two', pair, { q: twice(row.q, q), w: twice(row.w, row.w) });
    selectedBy(side, batch, row);
    const { backend, filled } = side.tested;
    const keys = new Float32Array(dim).fill(1);
    keys[5] = Number.NaN;
    backend.batch.begin(batch);
    backend.caches.writeIndexKeys(side.cache, filled(keys, dim));
    throws('a key', batch, row);
  });
}

await topOfGiven();
await fullWidth(64, 131_071);
await fullWidth(32, 40_001);
