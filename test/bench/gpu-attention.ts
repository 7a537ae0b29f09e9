import { blockTokens } from '../../gpu-worker/backend/batch.ts';
import { CudaSelection, asCuda } from '../../gpu-worker/backend/cuda/handles.ts';
import {
  batchAt,
  cacheFrom,
  ceilings,
  deployed,
  heads as publishedHeads,
  latentDim,
  measure,
  measureCaptured,
  nextSeed,
  open,
  randomTensor,
  record,
  ropeDim,
  topK,
} from './gpu-harness.ts';

const blocks = 16384;

/** Absorbed attention over selected tokens, of the published heads and of a rank's. */
export async function sparseAttention(): Promise<void> {
  await attention(publishedHeads);
}

export async function fewerHeads(): Promise<void> {
  for (const heads of [64, 32, 16, 8]) await attention(heads);
}

async function attention(heads: number): Promise<void> {
  const cases = [
    ...[8192, 32768, 131072].map((context) => ({ sequences: 1, rows: 4096, context })),
    ...[1, 32, 64, 128].map((sequences) => ({ sequences, rows: 1, context: 8192 })),
  ];
  for (const latentCache of ['fp8', 'bf16'] as const) {
    const backend = await open(4096, { ...deployed, latentCache });
    const { device, step } = backend.context;
    const shape = { layers: 1, blocks, latentDim, ropeDim, indexDim: 0 };
    const [cache] = backend.caches.make(shape);
    if (cache === undefined) throw new Error('no cache was made');
    const entries = randomTensor(backend, 4096, latentDim + ropeDim, 0.3);
    const q = randomTensor(backend, 4096, heads * (latentDim + ropeDim), 0.3);
    const out = backend.memory.tensor(4096, heads * latentDim);
    const selection = asCuda(CudaSelection, backend.indexer.selection(4096, topK));
    for (let start = 0; start < blocks * blockTokens; start += 4096) {
      const rows = Int32Array.from({ length: 4096 }, (_, r) => start + r);
      const table = Int32Array.from({ length: blocks }, (_, b) => b);
      backend.batch.begin({
        tokens: new Int32Array(4096),
        positions: rows,
        slots: rows,
        sequences: new Int32Array(4096),
        blockTables: [table],
      });
      backend.caches.writeLatent(cache, entries);
    }
    for (const { sequences, rows, context } of cases) {
      if (latentCache === 'bf16' && sequences > 1) continue;
      backend.batch.begin(batchAt(sequences, rows, context));
      const all = sequences * rows;
      device.launch(
        device.kernel('random', 'random_selection'),
        { grid: [all, 1, 1], threads: 256 },
        {
          selected: selection.at,
          width: topK,
          counts: selection.counts,
          positions: step.positions,
          seed: nextSeed(),
        },
      );
      const options = { heads, scale: 0.1352 };
      // Steps of few rows are timed many times in a row, over entries that do not stay in L2.
      const blocksOfAll = (sequences * context) / blockTokens;
      const count = rows === 1 ? Math.min(16, Math.floor(blocks / blocksOfAll)) : 1;
      const views = Array.from({ length: count }, (_, i) => cacheFrom(cache, i * blocksOfAll));
      const run = () => {
        for (const view of views) backend.attention.attend(out, q, view, selection, options);
      };
      const ms = (rows === 1 ? measureCaptured(backend, run) : measure(backend, run)) / count;
      const operations = 2 * all * heads * topK * (2 * latentDim + ropeDim);
      const teraflops = operations / ms / 1e9;
      record(
        backend,
        rows === 1 ? 'gpu-sparse-decode' : 'gpu-sparse-prefill',
        { latentCache, sequences, rows: all, context, heads, topK },
        { ms, teraflops, shareOfMatrixRate: teraflops / ceilings.bf16Teraflops },
      );
    }
    await backend.close();
  }
}
