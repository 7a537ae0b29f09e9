import type { LayerCache, Selection, Tensor } from '../../gpu-worker/backend/shapes.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import {
  CudaLayerCache,
  CudaSelection,
  CudaTensor,
  asCuda,
} from '../../gpu-worker/backend/cuda/handles.ts';
import type { ScoredRows } from '../../gpu-worker/backend/cuda/ops/indexer.ts';
import {
  batchAt,
  cacheFrom,
  ceilings,
  indexDim,
  indexHeads as publishedHeads,
  measureCaptured,
  open,
  randomize,
  randomTensor,
  record,
  topK,
} from './gpu-harness.ts';

/** The indexer: scores, then the top. */
export async function indexer(): Promise<void> {
  const backend = await open(4096);
  const cache = filledKeys(backend);
  for (const indexHeads of [publishedHeads, 32]) selections(backend, cache, indexHeads);
  top(backend, cache);
  backend.context.device.synchronize();
  await backend.close();
}

/** Index keys of 128 sequences of 131,072 tokens, all of them written. */
function filledKeys(backend: CudaBackend): LayerCache {
  const blocks = 128 * 2048;
  const [cache] = backend.caches.make({ layers: 1, blocks, latentDim: 64, ropeDim: 0, indexDim });
  if (cache === undefined) throw new Error('no cache was made');
  const keys = randomTensor(backend, 4096, indexDim);
  const table = Int32Array.from({ length: blocks }, (_, b) => b);
  for (let start = 0; start < blocks * 64; start += 4096) {
    const rows = Int32Array.from({ length: 4096 }, (_, r) => start + r);
    backend.batch.begin({
      tokens: new Int32Array(4096),
      positions: rows,
      slots: rows,
      sequences: new Int32Array(4096),
      blockTables: [table],
    });
    if (start % (64 * 4096) === 0)
      randomize(backend, { at: keys.at, count: 4096 * 128, dtype: keys.format }, 1);
    backend.caches.writeIndexKeys(cache, keys);
  }
  return cache;
}

function selections(backend: CudaBackend, cache: LayerCache, indexHeads: number): void {
  const inputs = inputsOf(backend, indexHeads);
  const { queries, weights, selection } = inputs;
  for (const { sequences, rows, context } of [
    ...[8192, 32768, 131072].map((tokens) => ({ sequences: 1, rows: 4096, context: tokens })),
    ...[1, 32, 128].map((batch) => ({ sequences: batch, rows: 1, context: 131072 })),
  ]) {
    const batch = batchAt(sequences, rows, context);
    backend.batch.begin(batch);
    const options = { heads: indexHeads, dim: indexDim };
    // Few rows are timed many times in a row, each over other keys: those of one would stay in L2.
    const shift = sequences + 16 <= 128 ? 2048 : 0;
    const views =
      rows === 1 ? Array.from({ length: 16 }, (_, i) => cacheFrom(cache, i * shift)) : [cache];
    const each = (run: (view: LayerCache) => void) =>
      measureCaptured(backend, () => views.forEach((view) => run(view))) / views.length;
    const { chunks, scores, top: topOf } = halves(backend, inputs);
    const ms = each((view) =>
      backend.indexer.selectTopK(selection, view, queries, weights, options),
    );
    const scoresMs = each((view) => chunks.forEach((chunk) => scores(view, chunk)));
    const topMs = each(() => chunks.forEach((chunk) => topOf(chunk)));
    const pairs = batch.positions.reduce((sum, position) => sum + position + 1, 0);
    const operations = 2 * pairs * indexHeads * indexDim;
    const bytes = sequences * context * (indexDim + 4);
    record(
      backend,
      'gpu-indexer',
      { sequences, rows: sequences * rows, context, indexHeads, indexDim, topK },
      {
        ms,
        scoresMs,
        topMs,
        teraflops: operations / ms / 1e9,
        shareOfMatrixRate: operations / ms / 1e9 / ceilings.fp8Teraflops,
        scoresShareOfMatrixRate: operations / scoresMs / 1e9 / ceilings.fp8Teraflops,
        keyGbPerSecond: bytes / ms / 1e6,
        shareOfCopyRate: bytes / ms / 1e6 / ceilings.copyGbPerSecond,
      },
    );
  }
}

function inputsOf(backend: CudaBackend, indexHeads: number) {
  return {
    indexHeads,
    queries: randomTensor(backend, 4096, indexHeads * indexDim),
    weights: randomTensor(backend, 4096, indexHeads, 1, 'f32'),
    selection: backend.indexer.selection(4096, topK),
  };
}

function top(backend: CudaBackend, cache: LayerCache): void {
  const inputs = inputsOf(backend, publishedHeads);
  // The top alone, over what the last scores left: with the maxima that scoring leaves, and from
  // nothing but scores, as a library's top-k has it.
  for (const rows of [1, 64, 4096]) {
    backend.batch.begin(batchAt(1, rows, 131072));
    const { chunks, scores, top: topOf, maxima } = halves(backend, inputs);
    chunks.forEach((chunk) => scores(cache, chunk));
    const repeats = rows === 4096 ? 1 : 16;
    const each = (run: (chunk: ScoredRows) => void) =>
      measureCaptured(backend, () => {
        for (let i = 0; i < repeats; i++) chunks.forEach((chunk) => run(chunk));
      }) / repeats;
    const afterScoringMs = each(topOf);
    const ms = each((chunk) => {
      maxima(chunk);
      topOf(chunk);
    });
    const bytes = rows * 131072 * 4;
    record(
      backend,
      'gpu-top-k',
      { rows, context: 131072, topK },
      { ms, afterScoringMs, scoreGbPerSecond: bytes / ms / 1e6 },
    );
  }
}

/** The parts of a selection over the current step. */
function halves(
  backend: CudaBackend,
  of: { indexHeads: number; selection: Selection; queries: Tensor; weights: Tensor },
) {
  const { indexHeads } = of;
  const ops = backend.indexer;
  const selection = asCuda(CudaSelection, of.selection);
  const q = asCuda(CudaTensor, of.queries);
  const w = asCuda(CudaTensor, of.weights);
  const call = { q, w, heads: indexHeads, dim: indexDim, width: topK };
  return {
    chunks: ops.chunks(topK, indexHeads * (indexDim + 4)),
    scores: (cache: LayerCache, chunk: ScoredRows) =>
      ops.scores({ ...call, cache: asCuda(CudaLayerCache, cache) }, chunk),
    maxima: (chunk: ScoredRows) => ops.maxima(topK, chunk),
    top: (chunk: ScoredRows) => ops.topK(selection, chunk),
  };
}
