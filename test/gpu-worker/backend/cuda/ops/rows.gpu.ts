/** The ops on rows against the cpu backend, in every numerics, with widths that fit no block. */
import type { Tensor } from '../../../../../gpu-worker/backend/shapes.ts';
import {
  bf16Tolerance,
  exactTolerance,
  expectClose,
  expectSame,
  test,
} from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import {
  allNumerics,
  batchOf,
  randomFloats,
  randomWeight,
} from '../../../../support/gpu/backends.ts';
import type { Tested } from '../../../../support/gpu/backends.ts';
import { openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);

for (const { name, numerics } of allNumerics) {
  const { cuda, cpu, close } = await openPair(numerics);
  const round = numerics.activations === 'bf16';
  const tolerance = round ? bf16Tolerance : exactTolerance;
  const random = seededRandom(seed);
  const rows = 7;
  const inOrder = Int32Array.from({ length: rows }, (_, r) => r);
  const activations = (columns: number) => {
    const values = randomFloats(random, rows * columns);
    return round ? toBf16(values) : values;
  };
  /** Runs the same on both and compares; twice on the GPU, to the bit. */
  const both = (what: string, columns: number, run: (tested: Tested, out: Tensor) => void) =>
    test(`${name}: ${what}`, () => {
      const onGpu = () => {
        const out = cuda.poison(cuda.backend.memory.tensor(rows, columns));
        run(cuda, out);
        return cuda.backend.memory.read(out, rows).slice();
      };
      const actual = onGpu();
      const out = cpu.poison(cpu.backend.memory.tensor(rows, columns));
      run(cpu, out);
      expectClose(actual, cpu.backend.memory.read(out, rows), tolerance);
      expectSame(onGpu(), actual, 'a second run');
    });

  for (const columns of [1, 5, 96, 160, 576, 1030, 7168]) {
    const x = activations(columns);
    const y = activations(columns);
    const weights = randomFloats(random, columns);
    const bias = randomFloats(random, columns);
    const options = { rows, epsilon: 1e-6 };
    await both(`rmsNorm of ${columns}`, columns, ({ backend, filled }, out) =>
      backend.rows.rmsNorm(out, filled(x, columns), backend.weights.vector('w', weights), options),
    );
    await both(`addRmsNorm of ${columns}`, columns, ({ backend, filled }, out) =>
      backend.rows.addRmsNorm(
        out,
        filled(y, columns),
        filled(x, columns),
        backend.weights.vector('w', weights),
        options,
      ),
    );
    await both(`the residual of addRmsNorm of ${columns}`, columns, ({ backend, filled }, out) => {
      const residual = filled(y, columns);
      const w = backend.weights.vector('w', weights);
      backend.rows.addRmsNorm(out, residual, filled(x, columns), w, options);
      backend.rows.gatherRows(out, residual, inOrder);
    });
    await both(`layerNorm of ${columns}, in place`, columns, ({ backend, filled }, out) => {
      const norm = {
        weight: backend.weights.vector('w', weights),
        bias: backend.weights.vector('b', bias),
      };
      const held = filled(x, columns);
      backend.rows.layerNorm(held, held, norm, options);
      backend.rows.gatherRows(
        out,
        held,
        Int32Array.from({ length: rows }, (_, r) => rows - 1 - r),
      );
    });
    await both(`siluMultiply of ${columns}`, columns, ({ backend, filled }, out) =>
      backend.rows.siluMultiply(out, filled(x, columns), filled(y, columns), rows),
    );
    await both(`add of ${columns}`, columns, ({ backend, filled }, out) => {
      const residual = filled(x, columns);
      backend.rows.add(residual, filled(y, columns), rows);
      backend.rows.gatherRows(out, residual, inOrder);
    });
  }

  const positions = 40;
  const cos = Float32Array.from({ length: positions * 4 }, () => Math.cos(random.uniform() * 9));
  const sin = Float32Array.from({ length: positions * 4 }, () => Math.sin(random.uniform() * 9));
  for (const { backend } of [cuda, cpu]) {
    backend.caches.make({ layers: 1, blocks: 2, latentDim: 8, ropeDim: 8, indexDim: 8 });
    backend.rows.ropeTable({ cos, sin, dim: 8 });
    const batch = batchOf([{ start: 3, rows, blockTable: Int32Array.of(1) }]);
    backend.batch.begin({
      ...batch,
      tokens: Int32Array.from({ length: rows }, (_, r) => (r * 5) % 9),
    });
  }
  const heads = activations(3 * 21);
  for (const layout of ['interleaved', 'half'] as const) {
    await both(`rotate, ${layout}`, 63, ({ backend, filled }, out) => {
      const x = filled(heads, 63);
      backend.rows.rotate(x, { rows, heads: 3, start: 11, layout });
      backend.rows.gatherRows(out, x, inOrder);
    });
  }
  for (const layout of ['interleaved', 'half'] as const) {
    for (const [dim, start] of [
      [8, 0],
      [32, 11],
      [64, 0],
      [128, 64],
    ] as const) {
      const x = activations(3 * dim);
      await both(
        `rotate and transform 3 x ${dim}, ${layout}`,
        3 * dim,
        ({ backend, filled }, out) => {
          const held = filled(x, 3 * dim);
          backend.rows.rotate(held, { rows, heads: 3, start, layout, transform: true });
          backend.rows.gatherRows(out, held, inOrder);
        },
      );
      await test(`${name}: rotate and transform 3 x ${dim}, ${layout}, as two ops`, () => {
        const { backend, filled } = cuda;
        const [one, two] = [filled(x, 3 * dim), filled(x, 3 * dim)];
        backend.rows.rotate(one, { rows, heads: 3, start, layout, transform: true });
        backend.rows.rotate(two, { rows, heads: 3, start, layout });
        backend.rows.hadamard(two, { rows, heads: 3 });
        expectSame(
          backend.memory.read(one, rows),
          backend.memory.read(two, rows).slice(),
          'at once',
        );
      });
    }
  }
  for (const dim of [1, 2, 32, 128]) {
    const x = activations(3 * dim);
    await both(`hadamard of 3 x ${dim}`, 3 * dim, ({ backend, filled }, out) => {
      const held = filled(x, 3 * dim);
      backend.rows.hadamard(held, { rows, heads: 3 });
      backend.rows.gatherRows(out, held, inOrder);
    });
  }
  for (const dtype of ['F32', 'BF16', 'F8_E4M3'] as const) {
    const table = randomWeight(random, { outputs: 9, inputs: 133, dtype });
    await both(`embed from ${dtype}`, 133, ({ backend }, out) =>
      backend.rows.embed(out, backend.weights.matrix(table)),
    );
  }
  await close();
}
