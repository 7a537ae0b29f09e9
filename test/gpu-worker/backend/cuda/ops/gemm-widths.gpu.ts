/**
 * Products at the deployed model's shapes and at the edges of the kernels' tiles: against the cpu
 * backend, and every number of rows against every other, to the bit.
 */
import type { Backend } from '../../../../../gpu-worker/backend/backend.ts';
import type { Tensor } from '../../../../../gpu-worker/backend/shapes.ts';
import type { WeightDtype } from '../../../../../gpu-worker/backend/weights.ts';
import {
  bf16Tolerance,
  exactTolerance,
  expectClose,
  expectSame,
  tensorCoreTolerance,
  test,
} from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import { fp8Numerics, randomFloats, randomWeight } from '../../../../support/gpu/backends.ts';
import { openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const random = seededRandom(seed);
const rowsMax = 300;
const { cuda, cpu, close } = await openPair(fp8Numerics, { rowsMax });

const bothDtypes = ['F8_E4M3', 'BF16'] as const satisfies readonly WeightDtype[];
/** Inputs with a tail behind the last 128, outputs that fill no tile, and V3.2's own. */
const shapes = [
  { inputs: 16, outputs: 8, dtypes: bothDtypes },
  { inputs: 1040, outputs: 200, dtypes: bothDtypes },
  { inputs: 272, outputs: 12424, dtypes: bothDtypes },
  { inputs: 7168, outputs: 64, dtypes: bothDtypes },
  { inputs: 7168, outputs: 576, dtypes: bothDtypes },
  { inputs: 2048, outputs: 7168, dtypes: bothDtypes },
  { inputs: 7168, outputs: 1536, dtypes: ['F8_E4M3'] },
  { inputs: 1536, outputs: 24576, dtypes: ['F8_E4M3'] },
] as const;
const fewRows = [1, 2, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 127, 128];

for (const { inputs, outputs, dtypes } of shapes) {
  for (const dtype of dtypes) {
    for (const exact of dtype === 'BF16' ? [false, true] : [false]) {
      const kind = `${inputs} by ${dtype} ${outputs}${exact ? ' to float32' : ''}`;
      const weight = randomWeight(random, { outputs, inputs, dtype });
      const x = toBf16(randomFloats(random, rowsMax * inputs));
      const matrix = cuda.backend.weights.matrix(weight);
      const from = cuda.filled(x, inputs);
      const out = cuda.backend.memory.tensor(rowsMax, outputs, exact ? 'f32' : 'activation');
      const op = (backend: Backend, to: Tensor, rows: number) => {
        if (exact) backend.gemm.linearF32(to, from, matrix, rows);
        else backend.gemm.linear(to, from, matrix, rows);
        return backend.memory.read(to, rows);
      };
      const all = op(cuda.backend, cuda.poison(out), rowsMax).slice();
      await test(`${kind}: few rows as the cpu backend has them`, () => {
        const rows = 5;
        const to = cpu.backend.memory.tensor(rows, outputs, exact ? 'f32' : 'activation');
        const cpuMatrix = cpu.backend.weights.matrix(weight);
        const held = cpu.filled(x.slice(0, rows * inputs), inputs);
        if (exact) cpu.backend.gemm.linearF32(to, held, cpuMatrix, rows);
        else cpu.backend.gemm.linear(to, held, cpuMatrix, rows);
        const expected = cpu.backend.memory.read(to, rows);
        const rounded = exact ? exactTolerance : bf16Tolerance;
        const tolerance = dtype === 'BF16' ? rounded : tensorCoreTolerance;
        expectClose(all.slice(0, rows * outputs), expected, tolerance);
      });
      await test(`${kind}: a row has the same bits among any number of rows`, () => {
        for (const rows of [...fewRows, 129, 191, 193, 256, 257]) {
          const some = op(cuda.backend, cuda.poison(out), rows);
          expectSame(some, all.slice(0, rows * outputs), `${rows} rows`);
        }
      });
      if (exact || inputs < 1024) continue;
      await test(`${kind}: twenty runs are equal to the bit`, () => {
        for (let run = 0; run < 20; run++) {
          for (const rows of [8, rowsMax]) {
            const again = op(cuda.backend, cuda.poison(out), rows);
            expectSame(again, all.slice(0, rows * outputs), `run ${run} of ${rows} rows`);
          }
        }
      });
    }
  }
}

for (const { heads, nope, rope, value, latent } of [
  { heads: 5, nope: 24, rope: 8, value: 72, latent: 136 },
  { heads: 16, nope: 128, rope: 64, value: 128, latent: 512 },
]) {
  const source = { outputs: heads * (nope + value), inputs: latent, dtype: 'F8_E4M3' } as const;
  const weight = randomWeight(random, source);
  const rows = 260;
  const q = toBf16(randomFloats(random, rows * heads * (nope + rope)));
  const attended = toBf16(randomFloats(random, rows * heads * latent));
  const shape = { heads, nopeDim: nope, valueDim: value };
  const kv = cuda.backend.weights.absorb(weight, shape);
  const queries = cuda.filled(q, heads * (nope + rope));
  const latents = cuda.filled(attended, heads * latent);
  const lifted = cuda.backend.memory.tensor(rows, heads * (latent + rope));
  const lowered = cuda.backend.memory.tensor(rows, heads * value);
  const run = (count: number) => {
    cuda.backend.gemm.toLatent(cuda.poison(lifted), queries, kv, count);
    cuda.backend.gemm.fromLatent(cuda.poison(lowered), latents, kv, count);
    return [
      cuda.backend.memory.read(lifted, count),
      cuda.backend.memory.read(lowered, count),
    ] as const;
  };
  const all = run(rows).map((values) => values.slice());
  await test(`${heads} heads of ${nope} and ${value}: few rows as the cpu backend has them`, () => {
    const count = 3;
    const cpuKv = cpu.backend.weights.absorb(weight, shape);
    const cpuLifted = cpu.backend.memory.tensor(count, heads * (latent + rope));
    const cpuLowered = cpu.backend.memory.tensor(count, heads * value);
    const few = cpu.filled(q.slice(0, count * heads * (nope + rope)), heads * (nope + rope));
    const fewLatents = cpu.filled(attended.slice(0, count * heads * latent), heads * latent);
    cpu.backend.gemm.toLatent(cpuLifted, few, cpuKv, count);
    cpu.backend.gemm.fromLatent(cpuLowered, fewLatents, cpuKv, count);
    [cpuLifted, cpuLowered].forEach((tensor, i) => {
      const expected = cpu.backend.memory.read(tensor, count);
      expectClose((all[i] ?? expected).slice(0, expected.length), expected, bf16Tolerance);
    });
  });
  await test(`${heads} heads of ${nope} and ${value}: the same bits among any rows`, () => {
    for (const count of [...fewRows, 129, 193, 257]) {
      run(count).forEach((values, i) => {
        expectSame(values, (all[i] ?? values).slice(0, values.length), `${count} rows`);
      });
    }
  });
}
await close();
