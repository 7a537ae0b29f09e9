/**
 * Absorbed attention at the published widths over up to 2,048 selected tokens of longer contexts,
 * by a number of heads: against the cpu backend, and the same bits in steps of one range of rows.
 */
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import type { Selection } from '../../../gpu-worker/backend/shapes.ts';
import { splitsFor } from '../../../gpu-worker/backend/cuda/ops/sparse-mla.ts';
import { expectClose, expectSame, tensorCoreTolerance, test } from '../../gpu/check.ts';
import { seededRandom } from '../random.ts';
import {
  bf16Numerics,
  batchOf,
  fp8Numerics,
  openTested,
  randomFloats,
  shuffledBlocks,
} from './backends.ts';
import type { Tested } from './backends.ts';
import { isWanted, openCudaTested, toBf16 } from './tested.ts';

const seed = Number(process.env['SEED'] ?? 1);

const [latentDim, ropeDim, indexHeads, indexDim, topK] = [512, 64, 4, 128, 2048];
const width = latentDim + ropeDim;
const rowsMax = 160;
const scale = 0.1;

/** Two sequences, one just past the selection's width; their blocks lie anywhere. */
const lengths = [2400, 2065];
const tables = (() => {
  const blocks = shuffledBlocks(seededRandom(seed), 38 + 33);
  return [blocks.slice(0, 38), blocks.slice(38)];
})();
/** The first and the last tokens, and both sides of a block's and of the selection's end. */
const edges = [2399, 0, 1, 62, 63, 64, 126, 127, 128, 191, 1023, 2046, 2047, 2048, 2111, 2398];

interface Row {
  readonly sequence: number;
  readonly position: number;
}

const random = seededRandom(seed + 1);
const entries = lengths.map((tokens) => {
  const values = randomFloats(random, tokens * width, 0.125);
  // One token that some queries cannot but look at.
  for (let c = 0; c < width; c++) values[70 * width + c] = (values[70 * width + c] ?? 0) * 16;
  return toBf16(values);
});
const keys = lengths.map((tokens) => toBf16(randomFloats(random, tokens * indexDim)));

/** Queries from gentle to such that one token takes all, by position; made once. */
const queries = new Map<string, Float32Array>();
function queriesOf({ sequence, position }: Row, columns: number): Float32Array {
  const key = `${sequence} ${position} ${columns}`;
  const known = queries.get(key);
  if (known !== undefined) return known;
  const own = seededRandom(seed + 2 + sequence * 10_000 + position);
  const made = toBf16(randomFloats(own, columns, [0.125, 2, 100][position % 3] ?? 1));
  queries.set(key, made);
  return made;
}

/** Values of which none is what the output was filled with before. */
function written(values: Float32Array): Float32Array {
  const missing = values.findIndex((value) => !Number.isFinite(value));
  if (missing >= 0) throw new Error(`value ${missing} of ${values.length} was not written`);
  return values;
}

/** Rows of a step for every range of row counts that is split alike. */
function rowsFor(count: number): Row[] {
  return Array.from({ length: count }, (_, i) => {
    const sequence = i % 5 === 4 ? 1 : 0;
    const position = edges[i] ?? (i * 97) % (lengths[sequence] ?? 1);
    return { sequence, position: Math.min(position, (lengths[sequence] ?? 1) - 1) };
  });
}

/** Rows that follow one another in their sequence come as its chunk. */
function runsOf(rows: readonly Row[]): { start: number; rows: number; blockTable: Int32Array }[] {
  const runs: { start: number; rows: number; blockTable: Int32Array }[] = [];
  rows.forEach(({ sequence, position }, r) => {
    const before = rows[r - 1];
    const run = runs.at(-1);
    const follows = before?.sequence === sequence && before.position === position - 1;
    if (follows && run !== undefined) run.rows++;
    else runs.push({ start: position, rows: 1, blockTable: tables[sequence] ?? new Int32Array() });
  });
  return runs;
}

function withTablesReversed(batch: Batch): Batch {
  const last = batch.blockTables.length - 1;
  const sequences = batch.sequences.map((sequence) => last - sequence);
  return { ...batch, sequences, blockTables: batch.blockTables.toReversed() };
}

function chunk(sequence: number, start: number, count: number): Row[] {
  return Array.from({ length: count }, (_, i) => ({ sequence, position: start + i }));
}

interface Attention {
  readonly dense: Float32Array;
  readonly sparse: Float32Array;
  /** The log-sum-exps of the sparse attention. */
  readonly lse: Float32Array;
}

class Deployed {
  readonly #tested: Tested;
  readonly #heads: number;
  readonly #cache;
  readonly #selection;

  constructor(tested: Tested, heads: number) {
    const { backend } = tested;
    this.#tested = tested;
    this.#heads = heads;
    const [cache] = backend.caches.make({ layers: 1, blocks: 71, latentDim, ropeDim, indexDim });
    if (cache === undefined) throw new Error('no cache was made');
    this.#cache = cache;
    this.#selection = backend.indexer.selection(rowsMax, topK);
    lengths.forEach((tokens, s) => {
      for (let start = 0; start < tokens; start += rowsMax) {
        const end = Math.min(tokens, start + rowsMax);
        const blockTable = tables[s] ?? new Int32Array();
        backend.batch.begin(batchOf([{ start, rows: end - start, blockTable }]));
        const part = (all: readonly Float32Array[], columns: number) =>
          tested.filled(
            (all[s] ?? new Float32Array()).slice(start * columns, end * columns),
            columns,
          );
        backend.caches.writeLatent(cache, part(entries, width));
        backend.caches.writeIndexKeys(cache, part(keys, indexDim));
      }
    });
  }

  /**
   * Makes a step of these rows; what it returns computes their attention, as often as it is called.
   */
  step(rows: readonly Row[], tableOrder: 'as rows' | 'reversed' = 'as rows'): () => Attention {
    const { backend, filled, poison } = this.#tested;
    const heads = this.#heads;
    const batch = batchOf(runsOf(rows));
    backend.batch.begin(tableOrder === 'reversed' ? withTablesReversed(batch) : batch);
    const gathered = (columns: number) => {
      const values = new Float32Array(rows.length * columns);
      rows.forEach((row, r) => values.set(queriesOf(row, columns), r * columns));
      return filled(values, columns);
    };
    const q = gathered(heads * width);
    const weights = filled(new Float32Array(rows.length * indexHeads).fill(1), indexHeads, 'f32');
    const indexOptions = { heads: indexHeads, dim: indexDim };
    const indexQ = gathered(indexHeads * indexDim);
    backend.indexer.selectTopK(this.#selection, this.#cache, indexQ, weights, indexOptions);
    const out = backend.memory.tensor(rows.length, heads * latentDim);
    const lse = backend.memory.tensor(rows.length, heads, 'f32');
    const attend = (selection: Selection | null) => {
      poison(out);
      poison(lse);
      backend.attention.attend(out, q, this.#cache, selection, { heads, scale }, lse);
      return written(backend.memory.read(out, rows.length));
    };
    return () => ({
      dense: attend(null),
      sparse: attend(this.#selection),
      lse: written(backend.memory.read(lse, rows.length)),
    });
  }
}

/** Rows of the steps of each kind of test. */
export interface Counts {
  /** Against the cpu backend: both ends of every range of rows that are split alike. */
  readonly compared: readonly number[];
  readonly repeated: readonly number[];
  /** Two in one range. */
  readonly alike: readonly (readonly [few: number, many: number])[];
  /** No row is split from this many rows on. */
  readonly whole: number;
}

/** Tests a number of heads over caches of both formats. */
export async function testHeads(heads: number, counts: Counts): Promise<void> {
  console.log(`seed ${seed}`);
  for (const [format, numerics] of [
    ['fp8', fp8Numerics],
    ['bf16', bf16Numerics],
  ] as const) {
    const name = `${format}, ${heads} heads`;
    if (!isWanted(name)) continue;
    const cuda = await openCudaTested(numerics, { rowsMax });
    const cpu = await openTested(numerics, { rowsMax, threads: 8 });
    const actual = new Deployed(cuda, heads);
    await testAgainst(new Deployed(cpu, heads), actual, { name, heads, counts });
    await testBits(actual, { name, counts });
    await testDequantized(actual, { name, counts });
    await cuda.backend.close();
    await cpu.backend.close();
  }
}

async function testAgainst(
  expected: Deployed,
  actual: Deployed,
  { name, heads, counts }: { name: string; heads: number; counts: Counts },
): Promise<void> {
  for (const count of counts.compared) {
    const rows = rowsFor(count);
    const splits = splitsFor(count, { heads, isDense: false });
    await test(`${name}: ${count} rows, each split into ${splits}`, () => {
      const [mine, wanted] = [actual.step(rows)(), expected.step(rows)()];
      expectClose(mine.dense, wanted.dense, tensorCoreTolerance);
      expectClose(mine.sparse, wanted.sparse, tensorCoreTolerance);
      expectClose(mine.lse, wanted.lse, tensorCoreTolerance);
    });
  }
}

async function testBits(
  actual: Deployed,
  { name, counts }: { name: string; counts: Counts },
): Promise<void> {
  for (const count of counts.repeated) {
    await test(`${name}: ${count} rows, the same bits in twenty runs`, () => {
      const attend = actual.step(rowsFor(count));
      const first = attend();
      for (let run = 0; run < 20; run++) {
        const again = attend();
        expectSame(again.sparse, first.sparse, `run ${run}`);
        expectSame(again.dense, first.dense, `run ${run}`);
      }
    });
  }
  for (const [few, many] of counts.alike) {
    await test(`${name}: a row has the same bits among ${few} and among ${many}`, () => {
      const rows = rowsFor(many);
      const [alone, among] = [actual.step(rows.slice(0, few))(), actual.step(rows)()];
      for (const output of ['dense', 'sparse', 'lse'] as const) {
        expectSame(among[output].subarray(0, alone[output].length), alone[output], output);
      }
    });
  }
}

/**
 * A sequence of many rows has its fp8 entries dequantized before; a step may end with such
 * sequences.
 */
async function testDequantized(
  actual: Deployed,
  { name, counts: { whole } }: { name: string; counts: Counts },
): Promise<void> {
  const size = whole + 15;
  for (const [what, rows] of [
    ['from the start', chunk(0, 0, 100)],
    ['to the end', chunk(0, 2300, 100)],
    ['of two sequences', [...chunk(1, 1995, 70), ...chunk(0, 2070, 72)]],
    ['behind few', [{ sequence: 1, position: 70 }, ...chunk(0, 2290, 30), ...chunk(1, 1900, 64)]],
  ] as const) {
    await test(`${name}: ${rows.length} rows ${what}, the bits of steps of fewer`, () => {
      const all = actual.step(rows)();
      const reversed = actual.step(rows, 'reversed')();
      expectSame(reversed.sparse, all.sparse, 'with block tables in another order');
      for (let first = 0; first < rows.length; first += size) {
        const last = Math.min(first + size, rows.length);
        // Not so few that they are split.
        const start = Math.min(first, last - whole);
        const few = actual.step(rows.slice(start, last))();
        for (const output of ['dense', 'sparse', 'lse'] as const) {
          const each = all[output].length / rows.length;
          const among = all[output].subarray(start * each, last * each);
          expectSame(few[output], among, `${output} of rows from ${start} on`);
        }
      }
    });
  }
}
