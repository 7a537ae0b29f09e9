/** The quantised form that a tensor keeps for products: made once, and never older than the rows. */
import type { Backend, Tensor } from '../../../../../gpu-worker/backend/backend.ts';
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
  const matrix = backend.matrix(randomWeight(random, shape));
  const square = backend.matrix(randomWeight(random, { ...shape, outputs: columns }));
  const table = backend.matrix(randomWeight(random, { ...shape, outputs: 9, dtype: 'BF16' }));
  const kvWeight = randomWeight(random, { outputs: 4 * (32 + 64), inputs: 48, dtype: 'BF16' });
  const kv = backend.absorb(kvWeight, { heads: 4, nopeDim: 32, valueDim: 64 });
  const wide = randomWeight(random, { outputs: 4 * 64, inputs: 64, dtype: 'BF16' });
  const wholeShape = { heads: 4, latentDim: 64, nopeDim: 32, ropeDim: 16, valueDim: 32 };
  const whole = backend.wholeKv(wide, wholeShape);
  const expert = () => backend.matrix(randomWeight(random, { ...shape, outputs: columns }));
  const experts = backend.experts(
    Array.from({ length: 4 }, () => ({ gate: expert(), up: expert(), down: expert() })),
  );
  const weight = backend.vector('w', randomFloats(random, columns));
  const half = backend.vector('w', randomFloats(random, columns / 2));
  const bias = backend.vector('b', randomFloats(random, columns));
  const cos = randomFloats(random, 40 * 8);
  backend.ropeTable({ cos, sin: cos, dim: 16 });
  const [cache] = backend.caches({
    layers: 1,
    blocks: 1,
    latentDim: 64,
    ropeDim: 16,
    indexDim: 32,
  });
  if (cache === undefined) throw new Error('no cache was made');
  const batch = batchOf([{ start: 0, rows, blockTable: Int32Array.of(0) }]);
  backend.beginStep({ ...batch, tokens: Int32Array.from({ length: rows }, (_, r) => r) });
  backend.writeLatent(cache, filled(values(80), 80));
  const routing = backend.routing(rows, 2);
  const gate = filled(randomFloats(random, rows * 4), 4, 'f32');
  const routed = { groups: 1, groupsKept: 1, normalize: true, scale: 1 };
  backend.route(routing, gate, backend.vector('b', new Float32Array(4)), rows, routed);

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
    rmsNorm: (x) => backend.rmsNorm(x, a, weight, norm),
    'rmsNorm in place': (x) => backend.rmsNorm(x, x, weight, norm),
    addRmsNorm: (x) => backend.addRmsNorm(x, b, a, weight, norm),
    'the residual of addRmsNorm': (x) => backend.addRmsNorm(b, x, a, weight, norm),
    layerNorm: (x) => backend.layerNorm(x, a, { weight, bias }, norm),
    add: (x) => backend.add(x, a, rows),
    siluMultiply: (x) => backend.siluMultiply(x, a, b, rows),
    'siluMultiply in place': (x) => backend.siluMultiply(x, x, b, rows),
    rotate: (x) => backend.rotate(x, { rows, heads: 4, start: 8, layout: 'half' }),
    'rotate and transform': (x) =>
      backend.rotate(x, { rows, heads: 4, start: 8, layout: 'half', transform: true }),
    hadamard: (x) => backend.hadamard(x, { rows, heads: 2 }),
    gatherRows: (x) => backend.gatherRows(x, a, Int32Array.of(5, 4, 3, 2, 1, 0)),
    embed: (x) => backend.embed(x, table),
    linear: (x) => backend.linear(x, a, square, rows),
    toLatent: (x) => backend.toLatent(x, narrow, kv, rows),
    fromLatent: (x) => backend.fromLatent(x, latents, kv, rows),
    attend: (x) => backend.attend(x, absorbedQ, cache, null, attend),
    moeForward: (x) => backend.moeForward(x, a, b, routing, experts, rows),
    'a view of some columns': (x) =>
      backend.rmsNorm(
        backend.columns(x, columns / 2, columns / 2),
        backend.columns(a, 0, columns / 2),
        half,
        norm,
      ),
  };
  const product = (x: Tensor, count = rows) => {
    const out = backend.tensor(rows, shape.outputs);
    backend.linear(out, x, matrix, count);
    return backend.read(out, count);
  };
  const before = backend.read(b, rows).slice();
  for (const [op, write] of Object.entries(writers)) {
    await test(`${name}: a product after ${op} reads what it wrote`, () => {
      const products = (['input', 'activation'] as const).map((precision) => {
        const x = filled(start, columns, precision);
        // addRmsNorm changes its residual, so both runs must begin with the same one.
        backend.gatherRows(b, filled(before, columns), Int32Array.of(0, 1, 2, 3, 4, 5));
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
      const inner = backend.matrix(randomWeight(seededRandom(3), { ...shape, inputs: 128 }));
      const out = backend.tensor(rows, shape.outputs);
      backend.linear(out, x, inner, rows);
      backend.attendExpanded(x, narrow, cache, whole, null, expand);
      backend.linear(out, x, inner, rows);
      return backend.read(out, rows);
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
    const out = backend.tensor(rows, shape.outputs);
    const x = filled(start, columns, 'input');
    const linear = () => backend.linear(out, x, matrix, rows);
    const counts = [
      launches(linear),
      launches(linear),
      launches(() => {
        backend.rmsNorm(x, a, weight, norm);
        linear();
        linear();
      }),
    ];
    if (counts.join() !== '2,1,3') throw new Error(`${counts.join()} launches, not 2,1,3`);
  });
  await backend.close();
}
