/**
 * Measures the cost of a token at a position, sparse and dense, over a slice of V3.2
 * (v32-slice.ts): prefill chunks that end at each context, and decode steps of batches whose
 * sequences have that context. The caches hold what the slice itself computed for a whole prefill.
 */
import type { Backend } from '../../gpu-worker/backend/backend.ts';
import { blockTokens } from '../../gpu-worker/backend/batch.ts';
import type { Batch } from '../../gpu-worker/backend/batch.ts';
import type { CacheOps } from '../../gpu-worker/backend/caches.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import type { CudaLayerCache } from '../../gpu-worker/backend/cuda/handles.ts';
import { prepareModel } from '../../gpu-worker/model/mla-moe/forward.ts';
import type { Model } from '../../gpu-worker/model/model.ts';
import type { ModelWeights } from '../../gpu-worker/model/mla-moe/weights.ts';
import { deployed, open, record } from './gpu-harness.ts';
import { median } from './results.ts';
import { sliceConfig, sliceWeights } from './v32-slice.ts';

const contexts = [1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072];
const longest = 131072;
const chunk = 4096;
const batches = [1, 32, 64, 128];
const blocksEach = longest / blockTokens;
const layers = sliceConfig.layers;

interface Slice {
  readonly attention: 'sparse' | 'dense';
  readonly backend: CudaBackend;
  readonly model: Model;
  readonly caches: readonly CudaLayerCache[];
  /** Sequences of the longest context that the caches hold. */
  readonly sequences: number;
  /** Milliseconds per op since it was last cleared, in steps that are taken apart. */
  readonly opMs: Map<string, number>;
  takeApart: boolean;
}

export async function slice(attention: 'sparse' | 'dense'): Promise<void> {
  await withSlice(attention, (opened) => {
    fillCaches(opened);
    prefill(opened);
    spreadCaches(opened);
    decode(opened, 'gpu-slice-decode', contexts);
    bytesPerToken(opened);
  });
}

/**
 * Decode steps alone, at the longest context, of as many streams as fit: 128 of them take some 97
 * GB. Lines of their own, since they are from another GPU than the whole slice's where that has
 * less.
 */
export async function streams(): Promise<void> {
  for (const attention of ['sparse', 'dense'] as const) {
    await withSlice(attention, (opened) => {
      fillCaches(opened);
      spreadCaches(opened);
      decode(opened, 'gpu-slice-streams', [longest]);
    });
  }
}

async function withSlice(
  attention: 'sparse' | 'dense',
  run: (opened: Slice) => void,
): Promise<void> {
  const backend = await open(chunk, deployed, { graphs: true });
  try {
    run(openSlice(attention, backend, sliceWeights(backend)));
  } finally {
    await backend.close();
  }
}

function openSlice(
  attention: 'sparse' | 'dense',
  backend: CudaBackend,
  weights: ModelWeights,
): Slice {
  const opMs = new Map<string, number>();
  let caches: readonly CudaLayerCache[] = [];
  const timed = <T extends object>(group: T): T =>
    new Proxy(group, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]) => {
          const run = () => Reflect.apply(member, target, args) as unknown;
          if (!opened.takeApart) return run();
          const op = String(name);
          opMs.set(op, (opMs.get(op) ?? 0) + backend.context.device.time(run));
          return undefined;
        };
      },
    });
  const watched: Backend = {
    ...backend,
    rows: timed(backend.rows),
    gemm: timed(backend.gemm),
    caches: timed({
      blockBytes: (shape) => backend.caches.blockBytes(shape),
      make: (shape) => (caches = backend.caches.make(shape)),
      writeLatent: (cache, entries) => backend.caches.writeLatent(cache, entries),
      writeIndexKeys: (cache, keys) => backend.caches.writeIndexKeys(cache, keys),
      storeLatent: (cache, entries, norm) => backend.caches.storeLatent(cache, entries, norm),
      storeIndexKeys: (cache, keys, norm, rotation) =>
        backend.caches.storeIndexKeys(cache, keys, norm, rotation),
    } satisfies CacheOps),
    indexer: timed(backend.indexer),
    mla: timed(backend.mla),
    moe: timed(backend.moe),
    batch: {
      begin: (batch) => backend.batch.begin(batch),
      // Steps that are taken apart call their ops each time.
      captureOrReplay: (ops) => (opened.takeApart ? ops() : backend.batch.captureOrReplay(ops)),
    },
    close: () => backend.close(),
  };
  const opened = { attention, backend, opMs, takeApart: false };
  const limits = { rowsMax: chunk, logitRowsMax: Math.max(...batches) };
  const prepared = prepareModel(sliceConfig, weights, watched, { attention, limits });
  const memory = backend.memory.use();
  const free = memory.limitBytes - memory.weightBytes - memory.activationBytes - memory.cacheBytes;
  const affordable = Math.floor(free / (prepared.blockBytes * blocksEach));
  const sequences = Math.min(Math.max(...batches), affordable);
  console.log(`gpu-slice ${attention}: ${JSON.stringify(memory)}, ${sequences} sequences`);
  const model = prepared.withCache(sequences * blocksEach);
  return Object.assign(opened, { model, caches, sequences });
}

/** Ops in which the two kinds of attention differ; projections are the same. */
const attentionOps = ['selectTopK', 'attend'] as const;

/** `rows` last tokens of `sequences` sequences of `context` tokens. */
function batchOf(sequences: number, rows: number, context: number): Batch {
  const count = sequences * rows;
  const positions = Int32Array.from({ length: count }, (_, r) => context - rows + (r % rows));
  const owners = Int32Array.from({ length: count }, (_, r) => Math.floor(r / rows));
  return {
    tokens: positions.map((position, r) => ((position + (owners[r] ?? 0)) * 7919) % 129_280),
    positions,
    slots: positions.map((position, r) => (owners[r] ?? 0) * longest + position),
    sequences: owners,
    blockTables: Array.from({ length: sequences }, (_, s) =>
      Int32Array.from(
        { length: Math.ceil(context / blockTokens) },
        (_unused, b) => s * blocksEach + b,
      ),
    ),
  };
}

/** The whole prefill of the first sequence. */
function fillCaches({ model }: Slice): void {
  for (let end = chunk; end <= longest; end += chunk) model.forward(batchOf(1, chunk, end));
}

function prefill(opened: Slice): void {
  const { model, backend, attention } = opened;
  const { device } = backend.context;
  for (const context of contexts) {
    const rows = Math.min(chunk, context);
    const batch = batchOf(1, rows, context);
    // A list of launches is captured when it comes the second time.
    for (let i = 0; i < 2; i++) model.forward(batch);
    const ms = median([1, 2, 3].map(() => device.time(() => model.forward(batch))));
    const { total, ...apart } = takenApart(opened, batch);
    record(
      backend,
      'gpu-slice-prefill',
      { attention, context, rows, layers },
      {
        ms,
        tokensPerSecond: (rows / ms) * 1e3,
        usPerTokenAndLayer: (ms / rows / layers) * 1e3,
        ...apart,
      },
    );
    console.log(`  ops of a chunk at ${context}, ${total.toFixed(2)} ms: ${opText(opened)}`);
  }
}

function decode(opened: Slice, benchmark: string, at: readonly number[]): void {
  const { model, backend, attention, sequences } = opened;
  const { device } = backend.context;
  for (const count of batches.filter((batch) => batch <= sequences)) {
    for (const context of at) {
      const batch = batchOf(count, 1, context);
      // A list of launches is captured when it comes the second time.
      for (let i = 0; i < 3; i++) model.forward(batch);
      device.synchronize();
      const ms = median(
        Array.from({ length: 9 }, () => {
          const start = performance.now();
          model.forward(batch);
          device.synchronize();
          return performance.now() - start;
        }),
      );
      const { total, ...apart } = takenApart(opened, batch);
      record(
        backend,
        benchmark,
        { attention, batch: count, context, layers },
        {
          ms,
          usPerLayer: (ms / layers) * 1e3,
          tokensPerSecondPerStreamOfALayer: (layers / ms) * 1e3,
          ...apart,
        },
      );
      console.log(
        `  ops of a step of ${count} at ${context}, ${total.toFixed(3)} ms: ${opText(opened)}`,
      );
    }
  }
}

/** One step with every op timed alone: in all, and of what the kinds of attention do not share. */
function takenApart(opened: Slice, batch: Batch): { total: number; attentionMs: number } {
  opened.takeApart = true;
  opened.opMs.clear();
  opened.model.forward(batch);
  opened.takeApart = false;
  const total = [...opened.opMs.values()].reduce((sum, ms) => sum + ms, 0);
  const attentionMs = attentionOps.reduce((sum, op) => sum + (opened.opMs.get(op) ?? 0), 0);
  return { total, attentionMs };
}

function opText({ opMs }: Slice): string {
  return [...opMs]
    .toSorted((a, b) => b[1] - a[1])
    .map(([op, ms]) => `${op} ${ms.toFixed(3)}`)
    .join(', ');
}

/** Gives every sequence the caches of the first, in blocks of its own. */
function spreadCaches({ backend, caches, sequences }: Slice): void {
  const { device } = backend.context;
  const copy = (to: number, from: number, bytes: number) =>
    device.driver.call('MemcpyDtoDAsync_v2', [to, from, bytes, device.stream]);
  device.synchronize();
  for (const { latents, entryBytes, keys, pageBytes } of caches) {
    for (let s = 1; s < sequences; s++) {
      copy(latents + s * longest * entryBytes, latents, longest * entryBytes);
      if (pageBytes > 0) copy(keys + s * blocksEach * pageBytes, keys, blocksEach * pageBytes);
    }
  }
  device.synchronize();
}

/** Cache bytes of a token in a layer, against a dense bfloat16 cache. */
function bytesPerToken({ attention, backend, caches }: Slice): void {
  const [cache] = caches;
  if (cache === undefined) throw new Error('the slice has no caches');
  const bytes = cache.entryBytes + cache.pageBytes / blockTokens;
  const { latentDim, ropeDim } = sliceConfig.attention;
  const denseBytes = (latentDim + ropeDim) * 2;
  record(
    backend,
    'gpu-slice-cache',
    { attention },
    { bytesPerTokenAndLayer: bytes, denseBf16Bytes: denseBytes, share: bytes / denseBytes },
  );
}
