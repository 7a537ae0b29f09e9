/**
 * Measures the CPU backend's hot ops at the shapes of the tiny model and of a medium one, on one
 * thread and on all: `npm exec -- node test/bench/cpu-ops.ts`. Prints a table; it asserts nothing.
 * GFLOP/s count a multiply-add as two.
 */
import { availableParallelism } from 'node:os';
import type { Backend } from '../../gpu-worker/backend/backend.ts';
import type { Numerics } from '../../gpu-worker/backend/numerics.ts';
import type { LayerCache, Matrix, Tensor } from '../../gpu-worker/backend/shapes.ts';
import type { HostTensor } from '../../gpu-worker/backend/weights.ts';
import { openCpuBackend } from '../../gpu-worker/backend/cpu/cpu-backend.ts';
import { seededRandom } from '../support/random.ts';

const random = seededRandom(1);
const repeatsMin = 3;
const measureMs = 150;

const f32Numerics: Numerics = {
  activations: 'f32',
  quantizedLinear: false,
  latentCache: 'f32',
  indexKeys: 'f32',
  hadamard: false,
  scaleFormat: 'f32',
};
const fp8Numerics: Numerics = {
  activations: 'bf16',
  quantizedLinear: true,
  latentCache: 'fp8',
  indexKeys: 'fp8',
  hadamard: true,
  scaleFormat: 'ue8m0',
};

/** The dimensions of one layer's ops. */
interface Shape {
  readonly name: string;
  readonly hidden: number;
  readonly inner: number;
  readonly experts: number;
  readonly perToken: number;
  readonly heads: number;
  readonly latentDim: number;
  readonly ropeDim: number;
  readonly nopeDim: number;
  readonly valueDim: number;
  readonly indexHeads: number;
  readonly indexDim: number;
  readonly topK: number;
}

const tiny: Shape = {
  name: 'tiny',
  hidden: 256,
  inner: 256,
  experts: 8,
  perToken: 2,
  heads: 8,
  latentDim: 128,
  ropeDim: 16,
  nopeDim: 48,
  valueDim: 64,
  indexHeads: 8,
  indexDim: 64,
  topK: 256,
};
const medium: Shape = {
  name: 'medium',
  hidden: 1024,
  inner: 512,
  experts: 16,
  perToken: 4,
  heads: 16,
  latentDim: 256,
  ropeDim: 64,
  nopeDim: 64,
  valueDim: 64,
  indexHeads: 16,
  indexDim: 128,
  topK: 512,
};

const contextTokens = 4096;
const rowsMax = 512;

function weight(outputs: number, inputs: number, dtype: HostTensor['dtype']): HostTensor {
  const count = outputs * inputs;
  const shape = [outputs, inputs];
  const name = `${dtype} ${outputs} x ${inputs}`;
  if (dtype === 'F8_E4M3') {
    const bytes = Uint8Array.from(
      { length: count },
      () => random.integer(0, 1) * 128 + 40 + random.integer(0, 40),
    );
    const scales = new Float32Array(Math.ceil(outputs / 128) * Math.ceil(inputs / 128)).fill(0.01);
    return { name, dtype, shape, bytes, scales };
  }
  const values = Float32Array.from({ length: count }, () => random.normal() / Math.sqrt(inputs));
  if (dtype === 'F32') {
    return { name, dtype, shape, bytes: new Uint8Array(values.buffer), scales: null };
  }
  const codes = Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
  return { name, dtype, shape, bytes: new Uint8Array(codes.buffer), scales: null };
}

/** Best times of several runs: of the clock, and of the processors that all threads took. */
function timesOf(run: () => void): { ms: number; cpuMs: number } {
  let [ms, cpuMs] = [Infinity, Infinity];
  const end = performance.now() + measureMs;
  for (let i = 0; i < repeatsMin || performance.now() < end; i++) {
    const start = performance.now();
    const startedCpu = process.cpuUsage();
    run();
    const cpu = process.cpuUsage(startedCpu);
    ms = Math.min(ms, performance.now() - start);
    cpuMs = Math.min(cpuMs, (cpu.user + cpu.system) / 1000);
  }
  return { ms, cpuMs };
}

interface Measure {
  readonly op: string;
  readonly multiplyAdds: number;
  readonly run: () => void;
}

/** Puts the last `rows` of a 4,096-token sequence into the batch. */
function beginRows(backend: Backend, rows: number): void {
  const positions = Int32Array.from({ length: rows }, (_, r) => contextTokens - rows + r);
  const blockTable = Int32Array.from({ length: contextTokens / 64 }, (_, block) => block);
  backend.batch.begin({
    tokens: new Int32Array(rows),
    positions,
    slots: positions,
    sequences: new Int32Array(rows),
    blockTables: [blockTable],
  });
}

function filled(backend: Backend, identity: Matrix, columns: number): Tensor {
  const tensor = backend.memory.tensor(rowsMax, columns);
  const seed = backend.memory.tensor(rowsMax, 8);
  const ones = backend.weights.vector('ones', new Float32Array(8).fill(1));
  backend.batch.begin({
    tokens: Int32Array.from({ length: rowsMax }, (_, r) => r % 64),
    positions: Int32Array.from({ length: rowsMax }, (_, r) => r),
    slots: Int32Array.from({ length: rowsMax }, (_, r) => r),
    sequences: new Int32Array(rowsMax),
    blockTables: [Int32Array.from({ length: 8 }, (_, block) => block)],
  });
  backend.rows.embed(seed, identity);
  backend.rows.rmsNorm(seed, seed, ones, { rows: rowsMax, epsilon: 1e-6 });
  backend.gemm.linearF32(tensor, seed, backend.weights.matrix(weight(columns, 8, 'F32')), rowsMax);
  return tensor;
}

function linearMeasures(backend: Backend, shape: Shape, dtype: HostTensor['dtype']): Measure[] {
  const { hidden } = shape;
  const outputs = 3 * hidden;
  const identity = backend.weights.matrix(weight(64, 8, 'F32'));
  const x = filled(backend, identity, hidden);
  const out = backend.memory.tensor(rowsMax, outputs);
  const matrix = backend.weights.matrix(weight(outputs, hidden, dtype));
  return [1, 8, 512].map((rows) => ({
    op: `linear ${dtype} ${hidden} -> ${outputs}, ${rows} rows`,
    multiplyAdds: rows * hidden * outputs,
    run: () => backend.gemm.linear(out, x, matrix, rows),
  }));
}

function layerMeasures(backend: Backend, shape: Shape): Measure[] {
  const { heads, latentDim, ropeDim, indexHeads, indexDim, topK } = shape;
  const cacheShape = { layers: 1, blocks: contextTokens / 64, latentDim, ropeDim, indexDim };
  const [cache] = backend.caches.make(cacheShape);
  if (cache === undefined) throw new Error('no cache was made');
  const identity = backend.weights.matrix(weight(64, 8, 'F32'));
  const make = (columns: number) => filled(backend, identity, columns);
  const entries = make(latentDim + ropeDim);
  const keys = make(indexDim);
  for (let start = 0; start < contextTokens; start += rowsMax) {
    const positions = Int32Array.from({ length: rowsMax }, (_, r) => start + r);
    backend.batch.begin({
      tokens: new Int32Array(rowsMax),
      positions,
      slots: positions,
      sequences: new Int32Array(rowsMax),
      blockTables: [Int32Array.from({ length: contextTokens / 64 }, (_, block) => block)],
    });
    backend.caches.writeLatent(cache, entries);
    backend.caches.writeIndexKeys(cache, keys);
  }
  const q = make(heads * (latentDim + ropeDim));
  const attended = backend.memory.tensor(rowsMax, heads * latentDim);
  const indexQueries = make(indexHeads * indexDim);
  const indexWeights = make(indexHeads);
  const selection = backend.indexer.selection(rowsMax, topK);
  const perKey = heads * (2 * latentDim + ropeDim);
  const measures: Measure[] = [];
  // Rows by 15 are selected by exact scores of all tokens, more by the filter.
  for (const rows of [1, 15, 512]) {
    const seen = contextTokens - (rows - 1) / 2;
    measures.push(
      {
        op: `select ${topK} of ${contextTokens}, ${rows} rows`,
        multiplyAdds: rows * seen * indexHeads * indexDim,
        run: () => {
          beginRows(backend, rows);
          const options = { heads: indexHeads, dim: indexDim };
          backend.indexer.selectTopK(selection, cache, indexQueries, indexWeights, options);
        },
      },
      {
        op: `attend to ${topK}, ${rows} rows`,
        multiplyAdds: rows * topK * perKey,
        run: () => backend.attention.attend(attended, q, cache, selection, { heads, scale: 0.1 }),
      },
    );
  }
  measures.push(
    ...expandedMeasures(backend, shape, { cache, q: make }),
    ...mixMeasures(backend, shape),
  );
  return measures;
}

function expandedMeasures(
  backend: Backend,
  shape: Shape,
  made: { cache: LayerCache; q: (columns: number) => Tensor },
): Measure[] {
  const { heads, nopeDim, ropeDim, valueDim, latentDim } = shape;
  const q = made.q(heads * (nopeDim + ropeDim));
  const out = backend.memory.tensor(rowsMax, heads * valueDim);
  const kvB = backend.weights.matrix(weight(heads * (nopeDim + valueDim), latentDim, 'BF16'));
  const options = { heads, nopeDim, ropeDim, valueDim, scale: 0.1 };
  const attend = rowsMax * (contextTokens - rowsMax / 2) * heads * (nopeDim + ropeDim + valueDim);
  const expand = contextTokens * latentDim * heads * (nopeDim + valueDim);
  return [
    {
      op: `attendExpanded to ${contextTokens}, ${rowsMax} rows`,
      multiplyAdds: attend + expand,
      run: () => {
        beginRows(backend, rowsMax);
        backend.attention.attendExpanded(out, q, made.cache, kvB, null, options);
      },
    },
  ];
}

function mixMeasures(backend: Backend, shape: Shape): Measure[] {
  const { hidden, inner, experts: count, perToken } = shape;
  const identity = backend.weights.matrix(weight(64, 8, 'F32'));
  const x = filled(backend, identity, hidden);
  const logits = filled(backend, identity, count);
  const out = backend.memory.tensor(rowsMax, hidden);
  const bias = backend.weights.vector('bias', new Float32Array(count));
  const routing = backend.moe.routing(rowsMax, perToken);
  const experts = backend.moe.experts(
    Array.from({ length: count }, () => ({
      gate: backend.weights.matrix(weight(inner, hidden, 'BF16')),
      up: backend.weights.matrix(weight(inner, hidden, 'BF16')),
      down: backend.weights.matrix(weight(hidden, inner, 'BF16')),
    })),
  );
  const options = { groups: 1, groupsKept: 1, normalize: true, scale: 1 };
  return [1, 512].map((rows) => ({
    op: `route and mix ${perToken} of ${count} experts, ${rows} rows`,
    multiplyAdds: rows * perToken * 3 * hidden * inner,
    run: () => {
      backend.moe.route(routing, logits, bias, rows, options);
      backend.moe.forward(out, x, x, routing, experts, rows);
    },
  }));
}

async function measure(shape: Shape, numerics: Numerics, threads: number): Promise<void> {
  const backend = await openCpuBackend({ numerics, rowsMax, threads });
  const dtypes = numerics.quantizedLinear ? (['F8_E4M3'] as const) : (['F32', 'BF16'] as const);
  const measures = [
    ...dtypes.flatMap((dtype) => linearMeasures(backend, shape, dtype)),
    ...layerMeasures(backend, shape),
  ];
  for (const { op, multiplyAdds, run } of measures) {
    const { ms, cpuMs } = timesOf(run);
    const rate = (2 * multiplyAdds) / ms / 1e6;
    const mode = `${shape.name} ${numerics.latentCache} x${threads}`;
    process.stdout.write(
      `${mode.padEnd(16)}${op.padEnd(52)}${ms.toFixed(3).padStart(9)} ms${cpuMs.toFixed(3).padStart(9)} cpu ms${rate.toFixed(1).padStart(8)} GFLOP/s\n`,
    );
  }
  await backend.close();
}

const only = process.argv[2];
for (const shape of [tiny, medium]) {
  if (only !== undefined && only !== shape.name) continue;
  for (const numerics of [f32Numerics, fp8Numerics]) {
    for (const threads of new Set([1, availableParallelism()])) {
      // One after the other: they are measured.
      // oxlint-disable-next-line no-await-in-loop
      await measure(shape, numerics, threads);
    }
  }
}
