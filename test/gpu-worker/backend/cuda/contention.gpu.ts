/**
 * The same bits while other processes use the GPU: a block then starts, and memory answers, at moments
 * that it does not meet alone. What a kernel reads must have come before the copy engine is let in there.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Matrix, Selection, Tensor } from '../../../../gpu-worker/backend/backend.ts';
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
/** Results that are computed before the first is read: the GPU is then always busy. */
const copies = 24;
const [inputs, outputs] = [7168, 2048];
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
  const weights = weightsOf(cuda);
  for (const rows of [128, 8, 64, 640]) {
    repeat(`${rows} rows by ${inputs} x ${outputs}`, productOf(cuda, weights, rows));
  }
  repeat('scores of 4 rows', scoringOf(cuda, 4));
  repeat('scores of a row', scoringOf(cuda, 1));
  await cuda.backend.close();
}

/** `start` queues one computation into place `copy`; `read` gives what lies there. */
interface Repeated {
  readonly start: (copy: number) => void;
  readonly read: (copy: number) => Uint8Array;
}

function repeat(what: string, { start, read }: Repeated): void {
  start(0);
  const first = Buffer.from(read(0));
  const began = performance.now();
  let wrong = 0;
  let runs = 0;
  while (performance.now() - began < msEach) {
    for (let copy = 0; copy < copies; copy++) start(copy);
    for (let copy = 0; copy < copies; copy++) {
      runs++;
      if (!first.equals(read(copy))) wrong++;
    }
  }
  if (wrong === 0) return;
  console.log(`     ${what}: ${wrong} of ${runs} runs gave other bits`);
  process.exitCode = 1;
}

/** Of the same values, in places of their own: together they do not stay in L2. */
function weightsOf({ backend }: CudaTested): Matrix[] {
  const source = randomWeight(seededRandom(1), { outputs, inputs, dtype: 'F8_E4M3' });
  return Array.from({ length: copies }, () => backend.matrix(source));
}

function productOf(
  { backend, filled, poison }: CudaTested,
  weights: readonly Matrix[],
  rows: number,
): Repeated {
  const random = seededRandom(rows);
  const x = filled(toBf16(randomFloats(random, rows * inputs)), inputs, 'input');
  const outs: Tensor[] = Array.from({ length: copies }, () => backend.tensor(rows, outputs));
  const out = (copy: number) => {
    const tensor = outs[copy];
    if (tensor === undefined) throw new Error(`there is no copy ${copy}`);
    return tensor;
  };
  return {
    start: (copy) => {
      const weight = weights[copy];
      if (weight === undefined) throw new Error(`there is no weight ${copy}`);
      backend.linear(poison(out(copy)), x, weight, rows);
    },
    read: (copy) => bytesOf(backend.read(out(copy), rows)),
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
  const selections: Selection[] = Array.from({ length: copies }, () =>
    backend.selection(rows, topK),
  );
  const selection = (copy: number) => {
    const handle = selections[copy];
    if (handle === undefined) throw new Error(`there is no copy ${copy}`);
    return handle;
  };
  return {
    start: (copy) => backend.select(selection(copy), cache, q, weights, { heads, dim }),
    read: (copy) =>
      bytesOf(Int32Array.from(backend.readSelection(selection(copy), rows).flatMap((s) => [...s]))),
  };
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
