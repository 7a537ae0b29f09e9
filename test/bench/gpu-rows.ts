import { blockTokens } from '../../gpu-worker/backend/batch.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import type { CudaTensor } from '../../gpu-worker/backend/cuda/handles.ts';
import { randomWeight } from '../support/gpu/backends.ts';
import { seededRandom } from '../support/random.ts';
import {
  batchAt,
  ceilings,
  indexDim,
  indexHeads,
  latentDim,
  measureCaptured,
  open,
  randomTensor,
  record,
  ropeDim,
} from './gpu-harness.ts';

const hidden = 7168;
const queryLatent = 1536;
const dense = 18432;
const heads = 128;
const headDim = 192;
const indexWidth = indexHeads * indexDim;
/** Bytes of a row's second form: a code a column, and a scale for 128 of them. */
const codeBytes = 1 + 4 / 128;
/**
 * Launches of a measurement, over so many sets of tensors that they do not fit the cache together.
 */
const launches = 24;
const cacheBytes = 2 ** 27;

/** An op: tensors of these widths, and the bytes that a row of them must move. */
interface RowOp {
  readonly name: string;
  readonly bytesPerRow: number;
  /** Widths of plain tensors, and of those that are kept quantised as well. */
  readonly widths: readonly (number | { readonly input: number })[];
  run(tensors: readonly CudaTensor[]): void;
}

/** Ops on rows at V3.2's widths: the share of the copy rate at which they move what they must. */
export async function rowOps(): Promise<void> {
  for (const rows of [1, 64, 4096]) {
    const backend = await open(rows);
    // A weight in fp8 is what makes tensors keep a quantised form.
    const weight = { outputs: 1, inputs: 128, dtype: 'F8_E4M3' } as const;
    backend.weights.matrix(randomWeight(seededRandom(1), weight));
    for (const op of opsOf(backend, rows)) {
      const ms = timeOf(backend, op, rows);
      const gbPerSecond = (rows * op.bytesPerRow) / ms / 1e6;
      const share = gbPerSecond / ceilings.copyGbPerSecond;
      const figures = { us: ms * 1e3, gbPerSecond, shareOfCopyRate: share };
      record(backend, 'gpu-rows', { op: op.name, rows }, figures);
    }
    await backend.close();
  }
}

/** Milliseconds of one call of many. */
function timeOf(backend: CudaBackend, op: RowOp, rows: number): number {
  const fitting = Math.ceil(cacheBytes / (rows * op.bytesPerRow));
  const sets = Array.from({ length: Math.min(launches, fitting) }, () =>
    op.widths.map((width) =>
      typeof width === 'number'
        ? randomTensor(backend, rows, width)
        : randomTensor(backend, rows, width.input, 1, 'input'),
    ),
  );
  const ms = measureCaptured(backend, () => {
    for (let i = 0; i < launches; i++) op.run(sets[i % sets.length] ?? []);
  });
  return ms / launches;
}

function opsOf(backend: CudaBackend, rows: number): readonly RowOp[] {
  const ones = (columns: number) => backend.weights.vector('w', new Float32Array(columns).fill(1));
  const blocks = Math.ceil(rows / blockTokens);
  const [cache] = backend.caches.make({ layers: 1, blocks, latentDim, ropeDim, indexDim });
  if (cache === undefined) throw new Error('no cache was made');
  const cos = Float32Array.from({ length: rows * (ropeDim / 2) }, (_, i) => Math.cos(i));
  const sin = Float32Array.from({ length: rows * (ropeDim / 2) }, (_, i) => Math.sin(i));
  backend.rows.ropeTable({ cos, sin, dim: ropeDim });
  backend.batch.begin(batchAt(1, rows, rows));
  const epsilon = 1e-6;
  const norm = { rows, epsilon };
  const [wide, narrow] = [ones(hidden), ones(queryLatent)];
  const latentNorm = { weight: ones(latentDim), epsilon };
  const keyNorm = { weight: ones(indexDim), bias: ones(indexDim), epsilon };
  // Outputs apart from inputs: an op that feeds on itself leaves the range of ordinary numbers.
  return [
    {
      name: `addRmsNorm ${hidden}`,
      bytesPerRow: hidden * (8 + codeBytes),
      widths: [{ input: hidden }, hidden, hidden],
      run: ([out, residual, x]) => {
        if (out && residual && x) backend.rows.addRmsNorm(out, residual, x, wide, norm);
      },
    },
    {
      name: `rmsNorm ${queryLatent}`,
      bytesPerRow: queryLatent * (4 + codeBytes),
      widths: [{ input: queryLatent }, queryLatent],
      run: ([out, x]) => {
        if (out && x) backend.rows.rmsNorm(out, x, narrow, norm);
      },
    },
    {
      name: `siluMultiply ${dense}`,
      bytesPerRow: dense * (6 + codeBytes),
      widths: [{ input: dense }, dense, dense],
      run: ([out, gate, up]) => {
        if (out && gate && up) backend.rows.siluMultiply(out, gate, up, rows);
      },
    },
    {
      name: `rotate ${heads} x ${ropeDim} of ${headDim}`,
      bytesPerRow: heads * ropeDim * 4,
      widths: [heads * headDim],
      run: ([x]) => {
        const start = headDim - ropeDim;
        if (x) backend.rows.rotate(x, { rows, heads, start, layout: 'interleaved' });
      },
    },
    {
      name: `rotate and transform ${indexHeads} x ${indexDim}`,
      bytesPerRow: indexWidth * 4,
      widths: [indexWidth],
      run: ([x]) => {
        const options = { rows, heads: indexHeads, start: 0, layout: 'half' } as const;
        if (x) backend.rows.rotate(x, { ...options, transform: true });
      },
    },
    {
      name: 'storeLatent',
      bytesPerRow: (latentDim + ropeDim) * 2 + 656,
      widths: [latentDim + ropeDim],
      run: ([entries]) => {
        if (entries) backend.caches.storeLatent(cache, entries, latentNorm);
      },
    },
    {
      name: 'storeIndexKeys',
      bytesPerRow: indexDim * 3 + 4,
      widths: [indexDim],
      run: ([keys]) => {
        if (keys)
          backend.caches.storeIndexKeys(cache, keys, keyNorm, { layout: 'half', transform: true });
      },
    },
  ];
}
