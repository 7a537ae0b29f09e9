import type { AbsorbedKv } from '../../gpu-worker/backend/shapes.ts';
import { CublasLt } from '../../gpu-worker/backend/cuda/runtime/cublaslt.ts';
import { CudaMissing } from '../../gpu-worker/backend/cuda/runtime/libraries.ts';
import type { CudaBackend } from '../../gpu-worker/backend/cuda/cuda-backend.ts';
import { CudaMatrix, dtypeCode, elementBytes } from '../../gpu-worker/backend/cuda/handles.ts';
import type { CudaTensor } from '../../gpu-worker/backend/cuda/handles.ts';
import { unscaled } from '../../gpu-worker/backend/cuda/ops/gemm-inputs.ts';
import type { Input } from '../../gpu-worker/backend/cuda/ops/gemm-inputs.ts';
import {
  absorbedKv,
  ceilings,
  deployed,
  headDim,
  heads,
  latentDim,
  measure,
  measureCaptured,
  open,
  randomize,
  randomTensor,
  record,
  ropeDim,
} from './gpu-harness.ts';

type Dtype = 'F8_E4M3' | 'BF16';

const hidden = 7168;
const expertInner = 2048;
const expertCount = 256;
const perToken = 8;
/** Weights that a measurement goes round, so that none of them is read from L2. */
const rotatedBytes = 256 * 2 ** 20;
/** Products of few rows in one measurement, so that what a list costs to start does not count. */
const fewCalls = 256;
const fewRows = 128;

/** Few rows take about as long as the host to queue them, so they are captured before. */
function timed(backend: CudaBackend, rows: number, run: () => void): number {
  return rows <= fewRows ? measureCaptured(backend, run) : measure(backend, run);
}

function callsOf(rows: number, copies: number): number {
  return rows <= fewRows ? Math.max(fewCalls, copies) : copies;
}

/** The matrices again and again until there are `count`. */
function rotate(matrices: readonly CudaMatrix[], count: number): CudaMatrix[] {
  return Array.from({ length: count }, (_, i) => matrices[i % matrices.length]).filter(
    (matrix) => matrix !== undefined,
  );
}

function randomMatrix(
  backend: CudaBackend,
  shape: { name: string; inputs: number; outputs: number },
  dtype: Dtype,
): CudaMatrix {
  const { device } = backend.context;
  const { name, inputs, outputs } = shape;
  const code = dtypeCode[dtype];
  const at = device.allocate(inputs * outputs * elementBytes[code], 'weight', name);
  randomize(backend, { at, count: inputs * outputs, dtype: code }, 1);
  const blocks = Math.ceil(inputs / 128) * Math.ceil(outputs / 128);
  const scales = dtype === 'BF16' ? 0 : device.allocate(blocks * 4, 'weight', name);
  if (scales !== 0) randomize(backend, { at: scales, count: blocks, dtype: dtypeCode.F32 }, 0.01);
  return new CudaMatrix({ name, inputs, outputs }, { at, dtype: code, scales });
}

function shares(ms: number, weightBytes: number): Record<string, number> {
  const weightGbPerSecond = weightBytes / ms / 1e6;
  const weightShareOfCopyRate = weightGbPerSecond / ceilings.copyGbPerSecond;
  return { weightGbPerSecond, weightShareOfCopyRate };
}

function matrixShare(teraflops: number, dtype: Dtype): Record<string, number> {
  const rate = dtype === 'BF16' ? ceilings.bf16Teraflops : ceilings.fp8Teraflops;
  return { teraflops, shareOfMatrixRate: teraflops / rate };
}

/** Products at V3.2's shapes: with the quantisation of their inputs, and without. */
export async function products(): Promise<void> {
  const backend = await open(8192, deployed, { graphs: true });
  const library = new CublasLt(backend.context.device);
  const shapes = [
    { name: 'q_a', inputs: hidden, outputs: 1536, rowCounts: [1, 128, 4096] },
    { name: 'kv_a', inputs: hidden, outputs: 576, rowCounts: [1, 128, 4096] },
    { name: 'q_b', inputs: 1536, outputs: 24576, rowCounts: [1, 32, 64, 128, 512, 4096] },
    { name: 'o', inputs: 16384, outputs: hidden, rowCounts: [1, 8, 32, 64, 128, 512, 4096] },
    { name: 'up', inputs: hidden, outputs: 18432, rowCounts: [1, 32, 128, 4096] },
    { name: 'down', inputs: 18432, outputs: hidden, rowCounts: [1, 32, 128, 4096] },
    { name: 'expert', inputs: hidden, outputs: 2048, rowCounts: [1, 32, 128, 4096] },
    { name: 'square', inputs: 8192, outputs: 8192, rowCounts: [8192] },
  ];
  for (const dtype of ['F8_E4M3', 'BF16'] as const) {
    for (const { name, inputs, outputs, rowCounts } of shapes) {
      const weightBytes = inputs * outputs * elementBytes[dtypeCode[dtype]];
      const copies = Math.ceil(rotatedBytes / weightBytes) + 1;
      const copiesOfOne = Array.from({ length: copies }, () =>
        randomMatrix(backend, { name, inputs, outputs }, dtype),
      );
      for (const rows of rowCounts) {
        const calls = callsOf(rows, copies);
        const matrices = rotate(copiesOfOne, calls);
        const x = randomTensor(backend, rows, inputs);
        const out = randomTensor(backend, rows, outputs);
        const whole = timed(backend, rows, () => {
          for (const matrix of matrices) backend.gemm.linear(out, x, matrix, rows);
        });
        const alone = multiplyAlone(backend, matrices, { x, out, rows });
        const ms = alone / calls;
        const byLibrary = multiplyByLibrary(backend, library, matrices, { x, out, rows });
        record(
          backend,
          'gpu-product',
          { name, dtype, rows, inputs, outputs },
          {
            ms,
            withQuantisationMs: whole / calls,
            ...(Number.isNaN(byLibrary) ? {} : { cublasLtMs: byLibrary / calls }),
            ...matrixShare((2 * rows * inputs * outputs) / ms / 1e9, dtype),
            ...shares(ms, weightBytes),
          },
        );
      }
    }
  }
  library.close();
  await backend.close();
}

interface ProductCall {
  readonly x: CudaTensor;
  readonly out: CudaTensor;
  readonly rows: number;
}

/** Milliseconds of cuBLASLt's product of two square matrices; NaN where it has none. */
export function librarySquare(backend: CudaBackend, dtype: Dtype, side: number): number {
  let library: CublasLt;
  try {
    library = new CublasLt(backend.context.device);
  } catch (cause) {
    if (cause instanceof CudaMissing) return Number.NaN;
    throw cause;
  }
  const matrix = randomMatrix(backend, { name: 'square', inputs: side, outputs: side }, dtype);
  const x = randomTensor(backend, side, side);
  const out = randomTensor(backend, side, side);
  const ms = multiplyByLibrary(backend, library, [matrix], { x, out, rows: side });
  library.close();
  return ms;
}

/** Milliseconds of the same by cuBLASLt; NaN where it has no such product. */
function multiplyByLibrary(
  backend: CudaBackend,
  library: CublasLt,
  matrices: readonly CudaMatrix[],
  call: ProductCall,
): number {
  const { x, out, rows } = call;
  const [first] = matrices;
  if (first === undefined) return Number.NaN;
  const scaled = first.scales !== 0;
  const plain = { at: x.at, stride: x.stride, columns: x.columns, rowIndices: 0 };
  const input = scaled
    ? backend.gemm.inputs.prepare(plain, { ...first, scaled }, { rows, exact: false })
    : unscaled(x);
  const matmul = library.matmul({
    fp8: scaled,
    rows,
    outputs: first.outputs,
    inputs: first.inputs,
    xStride: input.stride,
    outStride: out.stride,
    outFormat: out.format,
  });
  if (matmul === null) return Number.NaN;
  const { device } = backend.context;
  device.synchronize();
  return measure(backend, () => {
    for (const matrix of matrices) {
      const { at, scales } = matrix;
      device.queue.pushCall(matmul, [at, input.at, out.at, scales, input.scales, rows]);
    }
  });
}

/** Milliseconds of the products of one input with every matrix, the input made before. */
function multiplyAlone(
  backend: CudaBackend,
  matrices: readonly CudaMatrix[],
  call: ProductCall,
): number {
  const { x, out, rows } = call;
  const { gemm } = backend;
  let input: Input = unscaled(x);
  const [first] = matrices;
  if (first !== undefined && first.scales !== 0) {
    const plain = { at: x.at, stride: x.stride, columns: x.columns, rowIndices: 0 };
    input = gemm.inputs.prepare(plain, { ...first, scaled: true }, { rows, exact: false });
    backend.context.device.synchronize();
  }
  return timed(backend, rows, () => {
    for (const matrix of matrices) {
      gemm.multiply(input, { ...matrix, scaled: matrix.scales !== 0 }, out, { rows });
    }
  });
}

/** Every head's queries to the latent space, and its attended latents back. */
export async function perHead(): Promise<void> {
  const backend = await open(4096, deployed, { graphs: true });
  const { device } = backend.context;
  const copies = 8;
  const kvs = Array.from({ length: copies }, () => absorbedKv(backend));
  const weightBytes = heads * headDim * latentDim * 2;
  for (const rows of [1, 32, 128, 4096]) {
    const q = randomTensor(backend, rows, heads * (headDim + ropeDim));
    const lifted = randomTensor(backend, rows, heads * (latentDim + ropeDim));
    const attended = randomTensor(backend, rows, heads * latentDim);
    const lowered = randomTensor(backend, rows, heads * headDim);
    const operations = 2 * rows * heads * headDim * latentDim;
    for (const [name, run] of [
      ['toLatent', (kv: AbsorbedKv) => backend.gemm.toLatent(lifted, q, kv, rows)],
      ['fromLatent', (kv: AbsorbedKv) => backend.gemm.fromLatent(lowered, attended, kv, rows)],
    ] as const) {
      const rounds = rows <= fewRows ? 16 : 1;
      const ms =
        timed(backend, rows, () => {
          for (let i = 0; i < rounds; i++) for (const kv of kvs) run(kv);
        }) /
        (rounds * copies);
      const figures = { ms, teraflops: operations / ms / 1e9, ...shares(ms, weightBytes) };
      record(backend, 'gpu-per-head', { name, rows, heads, headDim, latentDim }, figures);
    }
  }
  device.synchronize();
  await backend.close();
}

/** The routed experts of one layer: gate, up, activation, down, combination. */
export async function grouped(): Promise<void> {
  for (const dtype of ['F8_E4M3', 'BF16'] as const) {
    const backend = await open(4096, deployed, { graphs: true });
    const into = { name: 'expert', inputs: hidden, outputs: expertInner };
    const outOf = { name: 'expert', inputs: expertInner, outputs: hidden };
    const experts = backend.moe.experts(
      Array.from({ length: expertCount }, () => ({
        gate: randomMatrix(backend, into, dtype),
        up: randomMatrix(backend, into, dtype),
        down: randomMatrix(backend, outOf, dtype),
      })),
    );
    const bias = backend.weights.vector('bias', new Float32Array(expertCount));
    const expertBytes = 3 * hidden * expertInner * elementBytes[dtypeCode[dtype]];
    for (const rows of [1, 32, 128, 4096]) {
      const routing = backend.moe.routing(rows, perToken);
      const logits = randomTensor(backend, rows, expertCount, 1, 'f32');
      backend.moe.route(routing, logits, bias, rows, {
        groups: 8,
        groupsKept: 4,
        normalize: true,
        scale: 2.5,
      });
      const touched = new Set(backend.moe.readRouting(routing, rows).experts).size;
      const x = randomTensor(backend, rows, hidden);
      const shared = randomTensor(backend, rows, hidden);
      const out = backend.memory.tensor(rows, hidden);
      const rounds = rows === 1 ? 8 : 1;
      const ms =
        timed(backend, rows, () => {
          for (let i = 0; i < rounds; i++) {
            backend.moe.forward(out, x, shared, routing, experts, rows);
          }
        }) / rounds;
      const operations = 2 * rows * perToken * 3 * hidden * expertInner;
      record(
        backend,
        'gpu-experts',
        { dtype, rows, hidden, inner: expertInner, experts: expertCount, perToken, touched },
        {
          ms,
          ...matrixShare(operations / ms / 1e9, dtype),
          ...shares(ms, touched * expertBytes),
        },
      );
    }
    await backend.close();
  }
}
