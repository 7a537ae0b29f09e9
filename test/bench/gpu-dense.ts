import type { ExpandedAttendOptions } from '../../gpu-worker/backend/attention.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import {
  CudaLayerCache,
  CudaMatrix,
  CudaSelection,
  dtypeCode,
  asCuda,
} from '../../gpu-worker/backend/cuda/handles.ts';
import {
  absorbedKv,
  batchAt,
  ceilings,
  deployed,
  heads,
  latentDim,
  measure,
  nextSeed,
  open,
  randomize,
  randomTensor,
  record,
  ropeDim,
  topK,
} from './gpu-harness.ts';

const [nopeDim, valueDim] = [128, 128];
const published: Heads = { heads, nopeDim, valueDim };
const rows = 4096;
const contexts = [8192, 32_768, 131_072];
const scale = 0.1352;

interface Heads {
  readonly heads: number;
  readonly nopeDim: number;
  readonly valueDim: number;
}

/** Dense attention, the baseline of sparse attention: every row attends to all that it sees. */
export async function denseAttention(): Promise<void> {
  const backend = await open(rows, deployed);
  const cache = filledCache(backend, 128 * 2048);
  densePrefill(backend, cache, published);
  denseDecode(backend, cache);
  await backend.close();
}

/** Expanded prefill of 64 heads and fewer, of DeepSeek's dimensions and of GLM's. */
export async function densePrefillOfHeads(): Promise<void> {
  const wide = [64, 32, 16, 8].map((count) => ({ heads: count, nopeDim: 192, valueDim: 256 }));
  for (const shape of [{ ...published, heads: 64 }, ...wide]) {
    // A backend has buffers for one shape of heads.
    const backend = await open(rows, deployed);
    densePrefill(backend, filledCache(backend, 2048), shape);
    await backend.close();
  }
}

/** Absorbed: one row of each of some sequences. */
function denseDecode(backend: CudaBackend, cache: CudaLayerCache): void {
  const q = randomTensor(backend, 128, heads * (latentDim + ropeDim), 0.3);
  const out = randomTensor(backend, 128, heads * latentDim);
  for (const context of contexts) {
    for (const sequences of [1, 8, 32, 128]) {
      backend.batch.begin(batchAt(sequences, 1, context));
      const ms = measure(
        backend,
        () => backend.attention.attend(out, q, cache, null, { heads, scale }),
        5,
      );
      const operations = 2 * sequences * context * heads * (2 * latentDim + ropeDim);
      const bytes = sequences * context * cache.entryBytes;
      record(
        backend,
        'gpu-dense-decode',
        { sequences, context, heads },
        {
          ms,
          teraflops: operations / ms / 1e9,
          shareOfMatrixRate: operations / ms / 1e9 / ceilings.bf16Teraflops,
          gbPerSecond: bytes / ms / 1e6,
        },
      );
    }
  }
}

/** Keys and values expanded: 4,096 rows at the end of a context. */
function densePrefill(backend: CudaBackend, cache: CudaLayerCache, shape: Heads): void {
  const { prefill } = backend.attention;
  const options: ExpandedAttendOptions = { ...shape, scale, ropeDim };
  const q = randomTensor(backend, rows, shape.heads * (shape.nopeDim + ropeDim));
  const out = randomTensor(backend, rows, shape.heads * shape.valueDim);
  const matrix = randomKvB(backend, shape);
  for (const context of contexts) {
    backend.batch.begin(batchAt(1, rows, context));
    const call = { out, q, cache, matrix, selection: null, firstRow: 0, options };
    const passes = prefill.passes(call);
    const ms = measure(backend, () => prefill.attend(call), 3);
    const kernelMs = measure(
      backend,
      () => {
        for (const pass of passes) prefill.attendPass(call, pass);
      },
      3,
    );
    const pairs = pairsOf(rows, context);
    const operations = 2 * pairs * shape.heads * (shape.nopeDim + ropeDim + shape.valueDim);
    record(
      backend,
      'gpu-dense-prefill',
      { rows, context, ...(shape === published ? { heads } : shape) },
      {
        ms,
        teraflops: operations / ms / 1e9,
        kernelMs,
        kernelTeraflops: operations / kernelMs / 1e9,
        kernelShareOfMatrixRate: operations / kernelMs / 1e9 / ceilings.bf16Teraflops,
      },
    );
  }
}

/** Rows at the end of a context and the tokens that each sees, at most `width` of them. */
function pairsOf(count: number, context: number, width = context): number {
  let pairs = 0;
  for (let seen = context - count + 1; seen <= context; seen++) pairs += Math.min(seen, width);
  return pairs;
}

/**
 * Prefill of rows that attend to a selection, expanded with a mask and absorbed. `expansionCost`
 * and `absorbedCost` are what backend/attention-plan.ts calls so, as measured.
 */
export async function maskedAttention(): Promise<void> {
  const backend = await open(rows, deployed);
  const { device, step } = backend.context;
  const { prefill } = backend.attention;
  const cache = filledCache(backend, 16_384 / 64);
  const kv = absorbedKv(backend);
  const matrix = randomKvB(backend, published);
  const q = randomTensor(backend, rows, heads * (nopeDim + ropeDim));
  const out = randomTensor(backend, rows, heads * valueDim);
  const lifted = randomTensor(backend, rows, heads * (latentDim + ropeDim), 0.3);
  const attended = randomTensor(backend, rows, heads * latentDim);
  const selection = asCuda(CudaSelection, backend.indexer.selection(rows, topK));
  const options: ExpandedAttendOptions = { heads, scale, nopeDim, ropeDim, valueDim };
  for (const count of [512, 1024, 2048, 4096]) {
    for (const context of [4096, 8192, 12_288, 16_384]) {
      backend.batch.begin(batchAt(1, count, context));
      const select = device.kernel('random', 'random_selection');
      device.launch(
        select,
        { grid: [count, 1, 1], threads: 256 },
        {
          selected: selection.at,
          width: topK,
          counts: selection.counts,
          positions: step.positions,
          seed: nextSeed(),
        },
      );
      const call = { out, q, cache, matrix, selection, firstRow: 0, options };
      const passes = prefill.passes(call);
      const overPasses = (run: (pass: (typeof passes)[number]) => void) =>
        measure(backend, () => passes.forEach(run), 5);
      const ms = measure(backend, () => prefill.attend(call), 5);
      const bitsMs = measure(backend, () => prefill.markSelected(call, selection), 5);
      const expandMs = overPasses((pass) => prefill.expand(call, pass));
      const kernelMs = overPasses((pass) => prefill.attendPass(call, pass));
      const unmasked = { ...call, selection: null };
      const unmaskedKernelMs = overPasses((pass) => prefill.attendPass(unmasked, pass));
      const attend = () =>
        backend.attention.attend(attended, lifted, cache, selection, { heads, scale });
      const absorbedKernelMs = measure(backend, attend, 5);
      const absorb = () => {
        backend.gemm.toLatent(lifted, q, kv, count);
        attend();
        backend.gemm.fromLatent(out, attended, kv, count);
      };
      const absorbedMs = measure(backend, absorb, 5);
      const [pairs, selected] = [pairsOf(count, context), pairsOf(count, context, topK)];
      const operations = 2 * pairs * heads * (nopeDim + ropeDim + valueDim);
      const absorbedOperations = 2 * selected * heads * (2 * latentDim + ropeDim);
      record(
        backend,
        'gpu-masked-prefill',
        { rows: count, context, heads, topK },
        {
          ms,
          teraflops: operations / ms / 1e9,
          bitsMs,
          expandMs,
          kernelMs,
          kernelTeraflops: operations / kernelMs / 1e9,
          unmaskedKernelMs,
          absorbedMs,
          absorbedKernelMs,
          absorbedKernelTeraflops: absorbedOperations / absorbedKernelMs / 1e9,
          expansionCost: expandMs / context / (kernelMs / pairs),
          absorbedCost: absorbedMs / selected / (kernelMs / pairs),
        },
      );
    }
  }
  await backend.close();
}

function randomKvB(backend: CudaBackend, shape: Heads): CudaMatrix {
  const { device } = backend.context;
  const outputs = shape.heads * (shape.nopeDim + shape.valueDim);
  const count = outputs * latentDim;
  const at = device.allocate(count, 'weight', 'kv_b');
  randomize(backend, { at, count, dtype: dtypeCode.F8_E4M3 }, 1);
  const blocks = (outputs / 128) * (latentDim / 128);
  const scales = device.allocate(blocks * 4, 'weight', 'kv_b');
  randomize(backend, { at: scales, count: blocks, dtype: dtypeCode.F32 }, 0.03);
  const of = { name: 'kv_b', inputs: latentDim, outputs };
  return new CudaMatrix(of, { at, dtype: dtypeCode.F8_E4M3, scales });
}

/** One layer of latent entries, all of them written. */
function filledCache(backend: CudaBackend, blocks: number): CudaLayerCache {
  const shape = { layers: 1, blocks, latentDim, ropeDim, indexDim: 0 };
  const [cache] = backend.caches.make(shape);
  const entries = randomTensor(backend, rows, latentDim + ropeDim, 0.3);
  const table = Int32Array.from({ length: blocks }, (_, b) => b);
  for (let start = 0; start < blocks * 64; start += rows) {
    const positions = Int32Array.from({ length: rows }, (_, r) => start + r);
    backend.batch.begin({
      tokens: new Int32Array(rows),
      positions,
      slots: positions,
      sequences: new Int32Array(rows),
      blockTables: [table],
    });
    backend.caches.writeLatent(asCuda(CudaLayerCache, cache), entries);
  }
  return asCuda(CudaLayerCache, cache);
}
