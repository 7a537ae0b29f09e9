import { CudaSelection, own } from '../../gpu-worker/backend/cuda/handles.ts';
import {
  batchAt,
  ceilings,
  indexDim,
  indexHeads,
  measure,
  open,
  randomize,
  randomTensor,
  record,
  topK,
} from './gpu-harness.ts';

/** The indexer: scores, then the top. */
export async function indexer(): Promise<void> {
  const backend = await open(4096);
  const { device } = backend.machine;
  const blocks = 128 * 2048;
  const [cache] = backend.caches({ layers: 1, blocks, latentDim: 64, ropeDim: 0, indexDim });
  if (cache === undefined) throw new Error('no cache was made');
  const keys = randomTensor(backend, 4096, indexDim);
  const queries = randomTensor(backend, 4096, indexHeads * indexDim);
  const weights = randomTensor(backend, 4096, indexHeads, 1, 'f32');
  const selection = backend.selection(4096, topK);
  const table = Int32Array.from({ length: blocks }, (_, b) => b);
  for (let start = 0; start < blocks * 64; start += 4096) {
    const rows = Int32Array.from({ length: 4096 }, (_, r) => start + r);
    backend.beginStep({
      tokens: new Int32Array(4096),
      positions: rows,
      slots: rows,
      sequences: new Int32Array(4096),
      blockTables: [table],
    });
    if (start % (64 * 4096) === 0)
      randomize(backend, { at: keys.at, count: 4096 * 128, dtype: keys.format }, 1);
    backend.writeIndexKeys(cache, keys);
  }
  for (const { sequences, rows, context } of [
    ...[8192, 32768, 131072].map((tokens) => ({ sequences: 1, rows: 4096, context: tokens })),
    ...[1, 32, 128].map((batch) => ({ sequences: batch, rows: 1, context: 131072 })),
  ]) {
    const batch = batchAt(sequences, rows, context);
    backend.beginStep(batch);
    const options = { heads: indexHeads, dim: indexDim };
    const ms = measure(backend, () => backend.select(selection, cache, queries, weights, options));
    const pairs = batch.positions.reduce((sum, position) => sum + position + 1, 0);
    const operations = 2 * pairs * indexHeads * indexDim;
    const bytes = sequences * context * (indexDim + 4);
    record(
      backend,
      'gpu-indexer',
      { sequences, rows: sequences * rows, context, indexHeads, indexDim, topK },
      {
        ms,
        teraflops: operations / ms / 1e9,
        keyGbPerSecond: bytes / ms / 1e6,
        shareOfCopyRate: bytes / ms / 1e6 / ceilings.copyGbPerSecond,
      },
    );
  }
  // Top-k alone, over what the last scores left.
  for (const rows of [64, 512]) {
    const batch = batchAt(1, rows, 131072);
    backend.beginStep(batch);
    backend.select(selection, cache, queries, weights, { heads: indexHeads, dim: indexDim });
    const ms = measure(backend, () =>
      backend.selector.top(own(CudaSelection, selection), {
        tokens: 131072,
        first: 0,
        count: rows,
      }),
    );
    const perRow = { ms, usPerRow: (ms / rows) * 1e3, of4096RowsMs: (ms / rows) * 4096 };
    record(backend, 'gpu-top-k', { rows, context: 131072, topK }, perRow);
  }
  device.synchronize();
  await backend.close();
}
