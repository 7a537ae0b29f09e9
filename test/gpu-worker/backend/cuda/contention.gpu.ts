/**
 * The same bits while other processes use the GPU: a block then starts, and memory answers, at moments
 * that it does not meet alone. What a kernel reads must have come before the copy engine is let in there.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Matrix } from '../../../../gpu-worker/backend/backend.ts';
import { test } from '../../../gpu/check.ts';
import { seededRandom } from '../../../support/random.ts';
import {
  batchOf,
  fp8Numerics,
  randomFloats,
  randomWeight,
  shuffledBlocks,
} from '../cpu/backends.ts';
import { type CudaTested, openCudaTested, toBf16 } from './tested.ts';

const processes = 5;
const msEach = 6000;
/** Weights in so many places do not stay in L2. */
const copies = 12;
const [hidden, inner] = [7168, 2048];
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
  repeat('scores of 4 rows', scoringOf(cuda, 4));
  repeat('scores of a row', scoringOf(cuda, 1));
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

/** Of the same values, in places of their own. */
function mlpsOf({ backend }: CudaTested): Mlp[] {
  const random = seededRandom(1);
  const weight = (outputs: number, inputs: number) =>
    randomWeight(random, { outputs, inputs, dtype: 'F8_E4M3' });
  const [gate, up, down] = [weight(inner, hidden), weight(inner, hidden), weight(hidden, inner)];
  return Array.from({ length: copies }, () => ({
    gate: backend.matrix(gate),
    up: backend.matrix(up),
    down: backend.matrix(down),
  }));
}

function mlpOf(
  { backend, filled, poison }: CudaTested,
  mlps: readonly Mlp[],
  rows: number,
): Repeated {
  const random = seededRandom(rows);
  const x = filled(toBf16(randomFloats(random, rows * hidden)), hidden, 'input');
  const gate = backend.tensor(rows, inner, 'input');
  const up = backend.tensor(rows, inner);
  const out = backend.tensor(rows, hidden);
  return (i) => {
    const mlp = mlps[i];
    if (mlp === undefined) throw new Error(`there is no MLP ${i}`);
    backend.linear(poison(gate), x, mlp.gate, rows);
    backend.linear(poison(up), x, mlp.up, rows);
    backend.siluMultiply(gate, gate, up, rows);
    backend.linear(poison(out), gate, mlp.down, rows);
    return [bytesOf(backend.read(up, rows).slice()), bytesOf(backend.read(out, rows))];
  };
}

/** Selections of the last rows of a sequence of 16,384 tokens. */
function scoringOf({ backend, filled }: CudaTested, rows: number): Repeated {
  const [tokens, heads, dim, topK, chunk] = [16_384, 64, 128, 2048, 512];
  const random = seededRandom(rows);
  const blocks = tokens / 64;
  const blockTable = shuffledBlocks(random, blocks);
  const shape = { layers: 1, blocks, latentDim: 512, ropeDim: 64, indexDim: dim };
  const [cache] = backend.caches(shape);
  if (cache === undefined) throw new Error('no cache was made');
  for (let start = 0; start < tokens; start += chunk) {
    backend.beginStep(batchOf([{ start, rows: chunk, blockTable }]));
    backend.writeIndexKeys(cache, filled(toBf16(randomFloats(random, chunk * dim)), dim));
  }
  backend.beginStep(batchOf([{ start: tokens - rows, rows, blockTable }]));
  const q = filled(toBf16(randomFloats(random, rows * heads * dim)), heads * dim);
  const weights = filled(randomFloats(random, rows * heads), heads, 'f32');
  const selection = backend.selection(rows, topK);
  return () => {
    backend.select(selection, cache, q, weights, { heads, dim });
    return backend.readSelection(selection, rows).map(bytesOf);
  };
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
