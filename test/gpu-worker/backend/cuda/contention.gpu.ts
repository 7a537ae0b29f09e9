/**
 * The same bits while other processes use the GPU: a block then starts, and memory answers, at
 * moments that it does not meet alone. What a kernel reads must have come before the copy engine is
 * let in there.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { LayerCache, Matrix } from '../../../../gpu-worker/backend/shapes.ts';
import { test } from '../../../gpu/check.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  batchOf,
  fp8Numerics,
  randomFloats,
  randomWeight,
  shuffledBlocks,
} from '../../../support/gpu/backends.ts';
import { openCudaTested, toBf16 } from '../../../support/gpu/tested.ts';
import type { CudaTested } from '../../../support/gpu/tested.ts';

const processes = 5;
const msEach = 5000;
/** Weights in so many places do not stay in L2. */
const copies = 12;
const [hidden, inner] = [7168, 2048];
const [tokens, heads, topK] = [16_384, 128, 2048];
const [latentDim, ropeDim, nopeDim, valueDim] = [512, 64, 128, 128];
const [indexHeads, indexDim] = [64, 128];
const blockTable = shuffledBlocks(seededRandom(2), tokens / 64);
const scale = 0.1;
const childName = 'SIFT_GPU_CONTENDER';

if (process.env[childName] === undefined) await contend();
else await repeatAll();

async function contend(): Promise<void> {
  await test(`${processes} processes at once: each repeats its own bits`, async () => {
    const env = { ...process.env, [childName]: '1' };
    const children = Array.from({ length: processes }, () =>
      spawn(process.execPath, [fileURLToPath(import.meta.url)], { env, stdio: 'inherit' }),
    );
    const exits = await Promise.all(children.map((child) => once(child, 'exit')));
    const failed = exits.filter(([code]) => code !== 0).length;
    if (failed > 0) throw new Error(`${failed} of ${processes} got other bits`);
  });
}

async function repeatAll(): Promise<void> {
  const rowsMax = 640;
  const cuda = await openCudaTested(fp8Numerics, { rowsMax, graphs: false });
  const mlps = mlpsOf(cuda);
  for (const rows of [128, 8, 64, 640]) repeat(`an MLP of ${rows} rows`, mlpOf(cuda, mlps, rows));
  for (const rows of [1, 64, 640]) repeat(`experts of ${rows} rows`, expertsOf(cuda, mlps, rows));
  const cache = filledCache(cuda);
  for (const rows of [1, 4, 48]) repeat(`attention of ${rows} rows`, absorbedOf(cuda, cache, rows));
  repeat('attention of 96 rows, dequantized', absorbedOf(cuda, cache, 96));
  repeat('attention of 160 rows, masked', maskedOf(cuda, cache, 160));
  await cuda.backend.close();
}

/** Computes with copy `i` of the weights. */
type Repeated = (i: number) => readonly Uint8Array[];

function repeat(what: string, compute: Repeated): void {
  const first = compute(0).map((bytes) => Buffer.from(bytes));
  const began = performance.now();
  let wrong = 0;
  let runs = 0;
  while (performance.now() - began < msEach) {
    const results = compute(runs++ % copies);
    if (!first.every((bytes, i) => bytes.equals(results[i] ?? new Uint8Array()))) wrong++;
  }
  if (wrong === 0) return;
  console.log(`     ${what}: ${wrong} of ${runs} runs gave other bits`);
  process.exitCode = 1;
}

interface Mlp {
  readonly gate: Matrix;
  readonly up: Matrix;
  readonly down: Matrix;
}

/** Matrices of the same values, in places of their own. */
function mlpsOf({ backend }: CudaTested): Mlp[] {
  const random = seededRandom(1);
  const weight = (outputs: number, inputs: number) =>
    randomWeight(random, { outputs, inputs, dtype: 'F8_E4M3' });
  const [gate, up, down] = [weight(inner, hidden), weight(inner, hidden), weight(hidden, inner)];
  return Array.from({ length: copies }, () => ({
    gate: backend.weights.matrix(gate),
    up: backend.weights.matrix(up),
    down: backend.weights.matrix(down),
  }));
}

function mlpOf(
  { backend, filled, poison }: CudaTested,
  mlps: readonly Mlp[],
  rows: number,
): Repeated {
  const random = seededRandom(rows);
  const x = filled(toBf16(randomFloats(random, rows * hidden)), hidden, 'input');
  const gate = backend.memory.tensor(rows, inner, 'input');
  const up = backend.memory.tensor(rows, inner);
  const out = backend.memory.tensor(rows, hidden);
  return (i) => {
    const mlp = mlps[i];
    if (mlp === undefined) throw new Error(`there is no MLP ${i}`);
    backend.gemm.linear(poison(gate), x, mlp.gate, rows);
    backend.gemm.linear(poison(up), x, mlp.up, rows);
    backend.rows.siluMultiply(gate, gate, up, rows);
    backend.gemm.linear(poison(out), gate, mlp.down, rows);
    return [
      bytesOf(backend.memory.read(up, rows).slice()),
      bytesOf(backend.memory.read(out, rows)),
    ];
  };
}

function expertsOf(
  { backend, filled, poison }: CudaTested,
  mlps: readonly Mlp[],
  rows: number,
): Repeated {
  const random = seededRandom(rows);
  const x = filled(toBf16(randomFloats(random, rows * hidden)), hidden, 'input');
  const shared = filled(toBf16(randomFloats(random, rows * hidden)), hidden);
  const logits = filled(randomFloats(random, rows * mlps.length), mlps.length, 'f32');
  const bias = backend.weights.vector('bias', new Float32Array(mlps.length));
  const [experts, routing] = [backend.moe.experts(mlps), backend.moe.routing(rows, 4)];
  const out = backend.memory.tensor(rows, hidden);
  const options = { groups: 4, groupsKept: 2, normalize: true, scale: 2.5 };
  return () => {
    backend.moe.route(routing, logits, bias, rows, options);
    backend.moe.forward(poison(out), x, shared, routing, experts, rows);
    return [bytesOf(backend.memory.read(out, rows))];
  };
}

/** Latents and index keys of a sequence of 16,384 tokens. */
function filledCache({ backend, filled }: CudaTested): LayerCache {
  const chunk = 512;
  const random = seededRandom(3);
  const shape = { layers: 1, blocks: blockTable.length, latentDim, ropeDim, indexDim };
  const [cache] = backend.caches.make(shape);
  if (cache === undefined) throw new Error('no cache was made');
  const some = (columns: number, deviation: number) =>
    filled(toBf16(randomFloats(random, chunk * columns, deviation)), columns);
  for (let start = 0; start < tokens; start += chunk) {
    backend.batch.begin(batchOf([{ start, rows: chunk, blockTable }]));
    backend.caches.writeLatent(cache, some(latentDim + ropeDim, 0.2));
    backend.caches.writeIndexKeys(cache, some(indexDim, 1));
  }
  return cache;
}

/** Makes a step of the sequence's last rows; the result selects tokens for each of them. */
function selectingOf({ backend, filled }: CudaTested, cache: LayerCache, rows: number) {
  const random = seededRandom(rows);
  backend.batch.begin(batchOf([{ start: tokens - rows, rows, blockTable }]));
  const columns = indexHeads * indexDim;
  const q = filled(toBf16(randomFloats(random, rows * columns)), columns);
  const weights = filled(randomFloats(random, rows * indexHeads), indexHeads, 'f32');
  const selection = backend.indexer.selection(rows, topK);
  const select = () =>
    backend.indexer.selectTopK(selection, cache, q, weights, { heads: indexHeads, dim: indexDim });
  return { selection, select };
}

function absorbedOf(cuda: CudaTested, cache: LayerCache, rows: number): Repeated {
  const { backend, filled, poison } = cuda;
  const { selection, select } = selectingOf(cuda, cache, rows);
  const columns = heads * (latentDim + ropeDim);
  const q = filled(toBf16(randomFloats(seededRandom(rows), rows * columns)), columns);
  const out = backend.memory.tensor(rows, heads * latentDim);
  return () => {
    select();
    backend.attention.attend(poison(out), q, cache, selection, { heads, scale });
    const chosen = backend.indexer.readSelection(selection, rows).map(bytesOf);
    return [...chosen, bytesOf(backend.memory.read(out, rows))];
  };
}

function maskedOf(cuda: CudaTested, cache: LayerCache, rows: number): Repeated {
  const { backend, filled, poison } = cuda;
  const { selection, select } = selectingOf(cuda, cache, rows);
  const random = seededRandom(rows);
  const outputs = heads * (nopeDim + valueDim);
  const kvB = backend.weights.matrix(
    randomWeight(random, { outputs, inputs: latentDim, dtype: 'BF16' }),
  );
  const columns = heads * (nopeDim + ropeDim);
  const q = filled(toBf16(randomFloats(random, rows * columns)), columns);
  const out = backend.memory.tensor(rows, heads * valueDim);
  const options = { heads, scale, nopeDim, ropeDim, valueDim };
  return () => {
    select();
    backend.attention.attendExpanded(poison(out), q, cache, kvB, selection, options);
    return [bytesOf(backend.memory.read(out, rows))];
  };
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
