/**
 * The GPU benchmarks share this: DeepSeek-V3.2's dimensions, random data made on the device,
 * batches, medians of repeated runs after a warm-up, and the ceilings of the same run that shares
 * refer to.
 */
import { blockTokens } from '../../gpu-worker/backend/batch.ts';
import type { Batch } from '../../gpu-worker/backend/batch.ts';
import type { Numerics } from '../../gpu-worker/backend/numerics.ts';
import type { AbsorbedKv, LayerCache, TensorPrecision } from '../../gpu-worker/backend/shapes.ts';
import { CudaBackend, openCudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import { CudaLayerCache, CudaTensor, asCuda } from '../../gpu-worker/backend/cuda/handles.ts';
import { median, recordResult } from './results.ts';

export const heads = 128;
export const latentDim = 512;
export const ropeDim = 64;
export const topK = 2048;
/** The width of a head's keys without their rope part, and of its values. */
export const headDim = 128;
export const indexHeads = 64;
export const indexDim = 128;
export const deployed: Numerics = {
  activations: 'bf16',
  quantizedLinear: true,
  latentCache: 'fp8',
  indexKeys: 'fp8',
  hadamard: true,
  scaleFormat: 'ue8m0',
};

/** Measured by the `ceilings` part, which runs first; NaN without it, or without cuBLASLt. */
export const ceilings = {
  copyGbPerSecond: Number.NaN,
  bf16Teraflops: Number.NaN,
  fp8Teraflops: Number.NaN,
};

let seed = 1;

/** A new seed at every call, the same ones in every process. */
export function nextSeed(): number {
  return seed++;
}

export async function open(
  rowsMax: number,
  numerics: Numerics = deployed,
  { graphs }: { graphs: boolean } = { graphs: false },
): Promise<CudaBackend> {
  return asCuda(CudaBackend, await openCudaBackend({ numerics, rowsMax, graphs }));
}

/** Fills device memory with random values of deviation `scale`. */
export function randomize(
  { context: { device } }: CudaBackend,
  to: { at: number; count: number; dtype: number },
  scale: number,
): void {
  device.launch(
    device.kernel('random', 'random_values'),
    { grid: [4096, 1, 1], threads: 256 },
    {
      out: to.at,
      count: to.count,
      seed: nextSeed(),
      scale,
      dtype: to.dtype,
    },
  );
}

export function randomTensor(
  backend: CudaBackend,
  rows: number,
  columns: number,
  scale = 1,
  precision: TensorPrecision = 'activation',
): CudaTensor {
  const tensor = asCuda(CudaTensor, backend.memory.tensor(rows, columns, precision));
  const { at, stride, format: dtype } = tensor;
  randomize(backend, { at, count: rows * stride, dtype }, scale);
  return tensor;
}

/** kv_b of all heads in bf16, for absorption; values of one size, made on the host. */
export function absorbedKv(backend: CudaBackend): AbsorbedKv {
  const outputs = heads * 2 * headDim;
  const bytes = new Uint8Array(outputs * latentDim * 2).map((_, i) => (i % 2 ? 60 : (i * 7) % 251));
  const source = { name: 'kv_b', shape: [outputs, latentDim], bytes, scales: null };
  const shape = { heads, nopeDim: headDim, valueDim: headDim };
  return backend.weights.absorb({ ...source, dtype: 'BF16' }, shape);
}

/** Median milliseconds on the GPU. */
export function measure(backend: CudaBackend, run: () => void, repeats = 7): number {
  run();
  backend.context.device.synchronize();
  return median(Array.from({ length: repeats }, () => backend.context.device.time(run)));
}

/** The same of launches that are captured beforehand, so that queueing them is not counted. */
export function measureCaptured(backend: CudaBackend, run: () => void): number {
  const { device } = backend.context;
  device.synchronize();
  run();
  const graph = device.queue.capture();
  if (graph === null) throw new Error('nothing was launched');
  const ms = measure(backend, () => device.queue.launch(graph));
  device.queue.destroy(graph);
  return ms;
}

/** Records what is finite: a share of a ceiling that was not measured is left out. */
export function record(
  backend: CudaBackend,
  benchmark: string,
  shapes: Record<string, unknown>,
  figures: Record<string, number>,
): void {
  const rounded = Object.fromEntries(
    Object.entries(figures)
      .filter(([, value]) => Number.isFinite(value))
      .map(([name, value]) => [name, Number(value.toPrecision(4))]),
  );
  const { name } = backend.context.device;
  console.log(benchmark.padEnd(24), JSON.stringify(shapes), JSON.stringify(rounded));
  recordResult({ benchmark, shapes: { gpu: name, ...shapes }, figures: rounded });
}

/** Rows at the ends of sequences of `context` tokens each, their blocks one after another. */
export function batchAt(sequences: number, rowsEach: number, context: number): Batch {
  const blocks = Math.ceil(context / blockTokens);
  const rows = sequences * rowsEach;
  const positions = Int32Array.from(
    { length: rows },
    (_, r) => context - rowsEach + (r % rowsEach),
  );
  const owners = Int32Array.from({ length: rows }, (_, r) => Math.floor(r / rowsEach));
  return {
    tokens: new Int32Array(rows),
    positions,
    slots: positions.map((position, r) => (owners[r] ?? 0) * blocks * blockTokens + position),
    sequences: owners,
    blockTables: Array.from({ length: sequences }, (_, s) =>
      Int32Array.from({ length: blocks }, (_unused, b) => s * blocks + b),
    ),
  };
}

/** The cache as if it began at block `start`: reads of few rows that go round do not stay in L2. */
export function cacheFrom(cache: LayerCache, start: number): CudaLayerCache {
  const { layer, shape, ...place } = asCuda(CudaLayerCache, cache);
  return new CudaLayerCache(layer, shape, {
    ...place,
    latents: place.latents + start * blockTokens * place.entryBytes,
    keys: place.keys + start * place.pageBytes,
  });
}
