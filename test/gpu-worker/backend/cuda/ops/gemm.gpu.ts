/** Matrix products against the cpu backend: every weight dtype, odd and real shapes, per head. */
import { strict as assert } from 'node:assert';
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
import { allNumerics, randomFloats, randomWeight } from '../../../../support/gpu/backends.ts';
import { openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const shapes = [
  { rows: 1, inputs: 1, outputs: 1 },
  { rows: 3, inputs: 37, outputs: 5 },
  { rows: 5, inputs: 160, outputs: 96 },
  { rows: 65, inputs: 96, outputs: 130 },
  { rows: 150, inputs: 264, outputs: 200 },
  { rows: 33, inputs: 1536, outputs: 576 },
  { rows: 130, inputs: 2048, outputs: 384 },
];

for (const { name, numerics } of allNumerics) {
  for (const useTensorCores of [false, true]) {
    const { cuda, cpu, close } = await openPair(numerics, { useTensorCores });
    const random = seededRandom(seed);
    const round = numerics.activations === 'bf16';
    for (const { rows, inputs, outputs } of shapes) {
      for (const dtype of ['F32', 'BF16', 'F8_E4M3'] as const satisfies readonly WeightDtype[]) {
        const weight = randomWeight(random, { outputs, inputs, dtype });
        const values = randomFloats(random, rows * inputs);
        const x = round ? toBf16(values) : values;
        const unit = useTensorCores ? 'tensor cores' : 'plain';
        await test(`${name}, ${unit}: ${rows} x ${inputs} by ${dtype} ${outputs}`, () => {
          const exacts = dtype === 'F8_E4M3' ? [false] : [false, true];
          for (const exact of exacts) {
            const op = (backend: Backend, out: Tensor, from: Tensor, count: number) => {
              const matrix = backend.weights.matrix(weight);
              if (exact) backend.gemm.linearF32(out, from, matrix, count);
              else backend.gemm.linear(out, from, matrix, count);
            };
            const out = cuda.poison(
              cuda.backend.memory.tensor(rows, outputs, exact ? 'f32' : 'activation'),
            );
            const from = cuda.filled(x, inputs);
            op(cuda.backend, out, from, rows);
            const actual = cuda.backend.memory.read(out, rows).slice();
            const cpuOut = cpu.backend.memory.tensor(rows, outputs);
            op(cpu.backend, cpuOut, cpu.filled(x, inputs), rows);
            const expected = cpu.backend.memory.read(cpuOut, rows);
            const quantised = dtype === 'F8_E4M3' && numerics.quantizedLinear && useTensorCores;
            const tolerance = quantised
              ? tensorCoreTolerance
              : exact || !round
                ? exactTolerance
                : bf16Tolerance;
            expectClose(actual, expected, tolerance);
            op(cuda.backend, cuda.poison(out), from, rows);
            expectSame(cuda.backend.memory.read(out, rows), actual, 'a second run');
            op(cuda.backend, cuda.poison(out), from, 1);
            expectSame(
              cuda.backend.memory.read(out, 1),
              actual.slice(0, outputs),
              'the first row alone',
            );
          }
        });
      }
    }
    await test(`${name}: tensors of the other precision are refused`, () => {
      const { backend } = cuda;
      const dtype = 'F32';
      const matrix = backend.weights.matrix(randomWeight(random, { outputs: 8, inputs: 8, dtype }));
      const [rounded, exact] = [backend.memory.tensor(2, 8), backend.memory.tensor(2, 8, 'f32')];
      assert.throws(() => backend.gemm.linear(exact, rounded, matrix, 2), /precision f32 is given/);
      assert.throws(() => backend.gemm.linear(rounded, exact, matrix, 2), /precision f32 is given/);
      assert.throws(
        () => backend.gemm.linearF32(rounded, rounded, matrix, 2),
        /where f32 is needed/,
      );
    });
    for (const shape of [
      { heads: 3, nope: 9, rope: 6, value: 11, latent: 37, rows: 5 },
      { heads: 4, nope: 24, rope: 16, value: 56, latent: 64, rows: 70 },
      { heads: 5, nope: 128, rope: 64, value: 128, latent: 512, rows: 66 },
    ]) {
      for (const dtype of ['F32', 'BF16', 'F8_E4M3'] as const) {
        const { heads, nope, rope, value, latent, rows } = shape;
        const weight = randomWeight(random, {
          outputs: heads * (nope + value),
          inputs: latent,
          dtype,
        });
        const q = toBf16(randomFloats(random, rows * heads * (nope + rope)));
        const attended = toBf16(randomFloats(random, rows * heads * latent));
        await test(`${name}: absorbed ${dtype}, ${heads} heads of ${nope} and ${value}`, () => {
          const run = ({ backend, filled, poison }: typeof cpu) => {
            const kv = backend.weights.absorb(weight, { heads, nopeDim: nope, valueDim: value });
            const lifted = poison(backend.memory.tensor(rows, heads * (latent + rope)));
            backend.gemm.toLatent(lifted, filled(q, heads * (nope + rope)), kv, rows);
            const lowered = poison(backend.memory.tensor(rows, heads * value));
            backend.gemm.fromLatent(lowered, filled(attended, heads * latent), kv, rows);
            return [
              backend.memory.read(lifted, rows).slice(),
              backend.memory.read(lowered, rows).slice(),
            ] as const;
          };
          const [lifted, lowered] = run(cuda);
          const [expectedLifted, expectedLowered] = run(cpu);
          const tolerance = round ? bf16Tolerance : exactTolerance;
          expectClose(lifted, expectedLifted, tolerance);
          expectClose(lowered, expectedLowered, tolerance);
        });
      }
    }
    await close();
  }
}
