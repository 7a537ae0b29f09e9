/**
 * Attention at the published models' head dimensions on a backend under test: caches filled with
 * random entries, then prefill with expanded keys and values, or absorbed attention, of the same
 * batch.
 */
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import type { Selection } from '../../../gpu-worker/backend/shapes.ts';
import { CpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { asCpu, CpuSelection } from '../../../gpu-worker/backend/cpu/handles.ts';
import { CudaBackend } from '../../../gpu-worker/backend/cuda/cuda-backend.ts';
import { CudaSelection, asCuda } from '../../../gpu-worker/backend/cuda/handles.ts';
import { expectClose, expectSame, tensorCoreTolerance, test } from '../../gpu/check.ts';
import { seededRandom } from '../random.ts';
import type { Random } from '../random.ts';
import {
  batchOf,
  bf16Numerics,
  fp8Numerics,
  openTested,
  randomFloats,
  randomWeight,
  shuffledBlocks,
} from './backends.ts';
import type { Part, Tested } from './backends.ts';
import { isWanted, openCudaTested, toBf16 } from './tested.ts';
import type { CudaTested } from './tested.ts';

export const seed = Number(process.env['SEED'] ?? 1);
export const [latentDim, ropeDim] = [512, 64];
/** Dimensions of a head's keys without their rope part, and of its values. */
export interface HeadDims {
  readonly nopeDim: number;
  readonly valueDim: number;
}
/** DeepSeek's and GLM's. */
export const headOf128: HeadDims = { nopeDim: 128, valueDim: 128 };
export const headOf256: HeadDims = { nopeDim: 192, valueDim: 256 };

interface Heads extends HeadDims {
  readonly heads: number;
}
export const rowsMax = 640;
const scale = 0.1352;

/** The last `rows` tokens of a sequence of `context` are the batch's. */
export interface Sequence {
  readonly context: number;
  readonly rows: number;
}

export interface Inputs {
  readonly parts: readonly (Part & { readonly entries: Float32Array })[];
  readonly q: Float32Array;
  readonly absorbedQ: Float32Array;
}

function bf16Floats(random: Random, count: number, factor: number): Float32Array {
  return toBf16(randomFloats(random, count, factor));
}

interface ExpandedOptions {
  readonly firstRow?: number;
  readonly selection?: Selection | null;
}

/** Entries of every token and queries of the batch's rows; `steep` queries make weights uneven. */
function inputsOf(
  { heads, nopeDim }: Heads,
  sequences: readonly Sequence[],
  steep: number,
): Inputs {
  const random = seededRandom(seed);
  const blocksOf = ({ context }: Sequence) => Math.ceil(context / 64);
  const blocks = shuffledBlocks(
    random,
    sequences.reduce((sum, sequence) => sum + blocksOf(sequence), 0),
  );
  let used = 0;
  const parts = sequences.map((sequence) => {
    const blockTable = blocks.slice(used, (used += blocksOf(sequence)));
    const entries = bf16Floats(random, sequence.context * (latentDim + ropeDim), 0.2);
    return { start: sequence.context - sequence.rows, rows: sequence.rows, blockTable, entries };
  });
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return {
    parts,
    q: bf16Floats(random, rows * heads * (nopeDim + ropeDim), steep),
    absorbedQ: bf16Floats(random, rows * heads * (latentDim + ropeDim), steep / 2),
  };
}

/** A selection of these positions, ascending, for each row. */
export function selectionOf(
  backend: Backend,
  chosen: readonly Int32Array[],
  width: number,
): Selection {
  const selection = backend.indexer.selection(chosen.length, width);
  const positions = new Int32Array(chosen.length * width).fill(-1);
  chosen.forEach((row, r) => positions.set(row, r * width));
  const lengths = Int32Array.from(chosen, ({ length }) => length);
  if (backend instanceof CudaBackend) {
    const { at, counts } = asCuda(CudaSelection, selection);
    const { device } = backend.context;
    device.upload(at, new Uint8Array(positions.buffer));
    device.upload(counts, new Uint8Array(lengths.buffer));
  } else {
    const { at, counts } = asCpu(CpuSelection, selection);
    const { i32 } = asCpu(CpuBackend, backend).context.arena;
    i32.set(positions, at / 4);
    i32.set(lengths, counts / 4);
  }
  return selection;
}

export class DenseCase {
  readonly #tested: Tested;
  readonly #heads: Heads;
  readonly #inputs: Inputs;
  readonly #kvB;
  readonly #cache;
  readonly #q;
  readonly #out;
  readonly #absorbedQ;
  readonly #latent;
  readonly #lse;

  constructor(tested: Tested, of: Heads, inputs: Inputs) {
    const { heads, nopeDim, valueDim } = of;
    this.#tested = tested;
    this.#heads = of;
    this.#inputs = inputs;
    const { backend } = tested;
    const outputs = heads * (nopeDim + valueDim);
    const weight = { outputs, inputs: latentDim, dtype: 'F8_E4M3' } as const;
    this.#kvB = backend.weights.matrix(randomWeight(seededRandom(seed + 1), weight));
    const blocks = inputs.parts.reduce((sum, part) => sum + part.blockTable.length, 0);
    const shape = { layers: 1, blocks, latentDim, ropeDim, indexDim: 0 };
    const [cache] = backend.caches.make(shape);
    if (cache === undefined) throw new Error('no cache was made');
    this.#cache = cache;
    for (const part of inputs.parts) this.#write(part);
    this.#q = tested.filled(inputs.q, heads * (nopeDim + ropeDim));
    this.#out = backend.memory.tensor(this.#q.rows, heads * valueDim);
    this.#absorbedQ = tested.filled(inputs.absorbedQ, heads * (latentDim + ropeDim));
    this.#latent = backend.memory.tensor(this.#q.rows, heads * latentDim);
    this.#lse = backend.memory.tensor(this.#q.rows, heads, 'f32');
  }

  #write({ start, rows, blockTable, entries }: Inputs['parts'][number]): void {
    const { backend, filled } = this.#tested;
    const width = latentDim + ropeDim;
    const context = start + rows;
    for (let first = 0; first < context; first += rowsMax) {
      const count = Math.min(rowsMax, context - first);
      backend.batch.begin(batchOf([{ start: first, rows: count, blockTable }]));
      const values = entries.slice(first * width, (first + count) * width);
      backend.caches.writeLatent(this.#cache, filled(values, width));
    }
  }

  expanded({ firstRow = 0, selection = null }: ExpandedOptions = {}): Float32Array {
    const { backend, poison } = this.#tested;
    backend.batch.begin(batchOf(this.#inputs.parts));
    const options = { ...this.#heads, scale, ropeDim, firstRow };
    backend.attention.attendExpanded(
      poison(this.#out),
      this.#q,
      this.#cache,
      this.#kvB,
      selection,
      options,
    );
    return backend.memory.read(this.#out, this.#q.rows);
  }

  /** Attends with the first `rows` rows absorbed. */
  absorbed(rows = this.#q.rows): { out: Float32Array; lse: Float32Array } {
    const { backend, poison } = this.#tested;
    const [cache, absorbedQ, latent] = [this.#cache, this.#absorbedQ, this.#latent];
    const [lse, { heads }] = [this.#lse, this.#heads];
    backend.batch.begin(batchOf(this.#inputs.parts));
    poison(latent);
    poison(lse);
    backend.attention.attend(latent, absorbedQ, cache, null, { heads, scale, rows }, lse);
    return {
      out: backend.memory.read(latent, this.#q.rows),
      lse: backend.memory.read(lse, this.#q.rows),
    };
  }
}

export interface AttentionCase {
  readonly name: string;
  readonly heads: number;
  /** DeepSeek's unless given. */
  readonly head?: HeadDims;
  readonly sequences: readonly Sequence[];
  /** Tokens of a pass. */
  readonly pass?: number;
  readonly steep?: number;
}

/** One case on the backend under test and on the cpu's. */
export interface Both {
  readonly label: string;
  readonly inputs: Inputs;
  readonly cuda: CudaTested;
  readonly cpu: Tested;
  readonly mine: DenseCase;
  readonly wanted: DenseCase;
}

function headsOf({ heads, head = headOf128 }: AttentionCase): Heads {
  return { heads, ...head };
}

/** Checks the cases that CASES names, over caches of both formats. */
export async function onBoth<C extends AttentionCase>(
  what: string,
  cases: readonly C[],
  check: (both: Both, each: C) => Promise<void>,
): Promise<void> {
  const formats = [
    ['fp8', fp8Numerics],
    ['bf16', bf16Numerics],
  ] as const;
  for (const [format, numerics] of formats) {
    for (const each of cases) {
      const { name, sequences, pass, steep = 1 } = each;
      const heads = headsOf(each);
      const label = `${what}, ${format}, ${name}`;
      if (!isWanted(label)) continue;
      const inputs = inputsOf(heads, sequences, steep);
      const options = { rowsMax, ...(pass === undefined ? {} : { expandedTokens: pass }) };
      const cuda = await openCudaTested(numerics, options);
      const cpu = await openTested(numerics, { rowsMax, threads: 8 });
      const mine = new DenseCase(cuda, heads, inputs);
      const wanted = new DenseCase(cpu, heads, inputs);
      await check({ label, inputs, cuda, cpu, mine, wanted }, each);
      await cuda.backend.close();
      await cpu.backend.close();
    }
  }
}

/**
 * The last sequence has the bits of `actual` when it is expanded alone, and nothing else is
 * written.
 */
export async function testLastAlone(
  { label, mine }: Both,
  each: AttentionCase,
  result: { actual: Float32Array; selection: Selection | null },
): Promise<void> {
  const { sequences } = each;
  const { heads, valueDim } = headsOf(each);
  if (sequences.length === 1) return;
  await test(`${label}: the same bits without the sequences before the last`, () => {
    const { actual, selection } = result;
    const firstRow = sequences.slice(0, -1).reduce((sum, { rows }) => sum + rows, 0);
    const start = firstRow * heads * valueDim;
    const alone = mine.expanded({ firstRow, selection });
    expectSame(alone.slice(start), actual.slice(start), 'the last sequence');
    if (!alone.slice(0, start).every(Number.isNaN)) {
      throw new Error('rows before the first were written');
    }
  });
}

/** Prefill of each case against the cpu backend, and the same bits again. */
export async function testExpanded(cases: readonly AttentionCase[]): Promise<void> {
  await onBoth('prefill', cases, async (both, each) => {
    const { label, mine, wanted } = both;
    let actual: Float32Array = new Float32Array(0);
    await test(`${label}: as the cpu backend`, () => {
      actual = mine.expanded();
      expectClose(actual, wanted.expanded(), tensorCoreTolerance);
    });
    await test(`${label}: the same bits twenty times`, () => {
      for (let i = 0; i < 20; i++) expectSame(mine.expanded(), actual, `run ${i}`);
    });
    await testLastAlone(both, each, { actual, selection: null });
  });
}
