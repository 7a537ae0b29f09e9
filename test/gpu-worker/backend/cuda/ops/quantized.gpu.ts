/**
 * The quantised form that a tensor keeps for products: made once, and never older than the rows.
 */
import type { Backend } from '../../../../../gpu-worker/backend/backend.ts';
import type { Tensor } from '../../../../../gpu-worker/backend/shapes.ts';
import { expectSame, test } from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import {
  batchOf,
  bf16Numerics,
  fp8Numerics,
  randomFloats,
  randomWeight,
} from '../../../../support/gpu/backends.ts';
import { openCudaTested, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const rows = 6;
const columns = 256;

for (const { name, numerics } of [
  { name: 'powers of two', numerics: fp8Numerics },
  { name: 'exact scales', numerics: bf16Numerics },
]) {
  const { backend, filled } = await openCudaTested(numerics);
  const { queue } = backend.context.device;
  const random = seededRandom(seed);
  const values = (count: number) => toBf16(randomFloats(random, rows * count));
  const shape = { outputs: 72, inputs: columns, dtype: 'F8_E4M3' } as const;
  const matrix = backend.weights.matrix(randomWeight(random, shape));
  const square = backend.weights.matrix(randomWeight(random, { ...shape, outputs: columns }));
  const table = backend.weights.matrix(
    randomWeight(random, { ...shape, outputs: 9, dtype: 'BF16' }),
  );
  const kvWeight = randomWeight(random, { outputs: 4 * (32 + 64), inputs: 48, dtype: 'BF16' });
  const kv = backend.weights.absorb(kvWeight, { heads: 4, nopeDim: 32, valueDim: 64 });
  const wide = randomWeight(random, { outputs: 4 * 64, inputs: 64, dtype: 'BF16' });
  const wholeShape = { heads: 4, latentDim: 64, nopeDim: 32, ropeDim: 16, valueDim: 32 };
  const whole = backend.weights.wholeKv(wide, wholeShape);
  const expert = () => backend.weights.matrix(randomWeight(random, { ...shape, outputs: columns }));
  const experts = backend.moe.experts(
    Array.from({ length: 4 }, () => ({ gate: expert(), up: expert(), down: expert() })),
  );
  const weight = backend.weights.vector('w', randomFloats(random, columns));
  const half = backend.weights.vector('w', randomFloats(random, columns / 2));
  const bias = backend.weights.vector('b', randomFloats(random, columns));
  const cos = randomFloats(random, 40 * 8);
  backend.rows.ropeTable({ cos, sin: cos, dim: 16 });
  const [cache] = backend.caches.make({
    layers: 1,
    blocks: 1,
    latentDim: 64,
    ropeDim: 16,
    indexDim: 32,
  });
  if (cache === undefined) throw new Error('no cache was made');
  const batch = batchOf([{ start: 0, rows, blockTable: Int32Array.of(0) }]);
  backend.batch.begin({ ...batch, tokens: Int32Array.from({ length: rows }, (_, r) => r) });
  backend.caches.writeLatent(cache, filled(values(80), 80));
  const routing = backend.moe.routing(rows, 2);
  const gate = filled(randomFloats(random, rows * 4), 4, 'f32');
  const routed = { groups: 1, groupsKept: 1, normalize: true, scale: 1 };
  backend.moe.route(routing, gate, backend.weights.vector('b', new Float32Array(4)), rows, routed);

  const start = values(columns);
  const [a, b] = [filled(values(columns), columns), filled(values(columns), columns)];
  const narrow = filled(values(192), 192);
  const latents = filled(values(192), 192);
  const absorbedQ = filled(values(320), 320);
  const norm = { rows, epsilon: 1e-6 };
  const attend = { heads: 4, scale: 0.2 };
  const expand = { ...attend, nopeDim: 32, ropeDim: 16, valueDim: 32 };
  /** Every op that writes activations, here to x. */
  const writers: Readonly<Record<string, (x: Tensor) => void>> = {
    rmsNorm: (x) => backend.rows.rmsNorm(x, a, weight, norm),
    'rmsNorm in place': (x) => backend.rows.rmsNorm(x, x, weight, norm),
    addRmsNorm: (x) => backend.rows.addRmsNorm(x, b, a, weight, norm),
    'the residual of addRmsNorm': (x) => backend.rows.addRmsNorm(b, x, a, weight, norm),
    layerNorm: (x) => backend.rows.layerNorm(x, a, { weight, bias }, norm),
    add: (x) => backend.rows.add(x, a, rows),
    siluMultiply: (x) => backend.rows.siluMultiply(x, a, b, rows),
    'siluMultiply in place': (x) => backend.rows.siluMultiply(x, x, b, rows),
    rotate: (x) => backend.rows.rotate(x, { rows, heads: 4, start: 8, layout: 'half' }),
    'rotate and transform': (x) =>
      backend.rows.rotate(x, { rows, heads: 4, start: 8, layout: 'half', transform: true }),
    hadamard: (x) => backend.rows.hadamard(x, { rows, heads: 2 }),
    gatherRows: (x) => backend.rows.gatherRows(x, a, Int32Array.of(5, 4, 3, 2, 1, 0)),
    embed: (x) => backend.rows.embed(x, table),
    linear: (x) => backend.gemm.linear(x, a, square, rows),
    toLatent: (x) => backend.gemm.toLatent(x, narrow, kv, rows),
    fromLatent: (x) => backend.gemm.fromLatent(x, latents, kv, rows),
    attend: (x) => backend.attention.attend(x, absorbedQ, cache, null, attend),
    moeForward: (x) => backend.moe.forward(x, a, b, routing, experts, rows),
    'a view of some columns': (x) =>
      backend.rows.rmsNorm(
        backend.memory.columns(x, columns / 2, columns / 2),
        backend.memory.columns(a, 0, columns / 2),
        half,
        norm,
      ),
  };
  const product = (x: Tensor, count = rows) => {
    const out = backend.memory.tensor(rows, shape.outputs);
    backend.gemm.linear(out, x, matrix, count);
    return backend.memory.read(out, count);
  };
  const before = backend.memory.read(b, rows).slice();
  for (const [op, write] of Object.entries(writers)) {
    await test(`${name}: a product after ${op} reads what it wrote`, () => {
      const products = (['input', 'activation'] as const).map((precision) => {
        const x = filled(start, columns, precision);
        // addRmsNorm changes its residual, so both runs must begin with the same one.
        backend.rows.gatherRows(b, filled(before, columns), Int32Array.of(0, 1, 2, 3, 4, 5));
        const old = product(x);
        write(x);
        const now = product(x);
        if (old.every((value, i) => value === now[i])) throw new Error('nothing was written');
        return now;
      });
      const [kept, fresh] = products;
      if (kept === undefined || fresh === undefined) throw new Error('nothing ran');
      expectSame(kept, fresh, 'with a quantised form');
    });
  }
  await test(`${name}: attendExpanded too`, () => {
    const [kept, fresh] = (['input', 'activation'] as const).map((precision) => {
      const x = filled(values(128).fill(0.5), 128, precision);
      const inner = backend.weights.matrix(
        randomWeight(seededRandom(3), { ...shape, inputs: 128 }),
      );
      const out = backend.memory.tensor(rows, shape.outputs);
      backend.gemm.linear(out, x, inner, rows);
      backend.attention.attendExpanded(x, narrow, cache, whole, null, expand);
      backend.gemm.linear(out, x, inner, rows);
      return backend.memory.read(out, rows);
    });
    if (kept === undefined || fresh === undefined) throw new Error('nothing ran');
    expectSame(kept, fresh, 'with a quantised form');
  });
  await test(`${name}: rows that were not quantised with the first are quantised when needed`, () => {
    const x = filled(start, columns, 'input');
    product(x, 2);
    expectSame(product(x), product(filled(start, columns)), 'with a quantised form');
  });
  await test(`${name}: an input is quantised once, and by the op that writes it`, () => {
    const launches = (run: (backend: Backend) => void) => {
      backend.context.device.synchronize();
      const { alone, inGraphs } = queue.counts;
      run(backend);
      backend.context.device.synchronize();
      return queue.counts.alone + queue.counts.inGraphs - alone - inGraphs;
    };
    const out = backend.memory.tensor(rows, shape.outputs);
    const x = filled(start, columns, 'input');
    const linear = () => backend.gemm.linear(out, x, matrix, rows);
    const counts = [
      launches(linear),
      launches(linear),
      launches(() => {
        backend.rows.rmsNorm(x, a, weight, norm);
        linear();
        linear();
      }),
    ];
    if (counts.join() !== '2,1,3') throw new Error(`${counts.join()} launches, not 2,1,3`);
  });
  await backend.close();
}
