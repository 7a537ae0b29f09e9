/** The gate and the experts against the cpu backend. */
import {
  bf16Tolerance,
  chainedTolerance,
  exactTolerance,
  expectClose,
  expectSame,
  test,
} from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import {
  allNumerics,
  fp8Numerics,
  randomFloats,
  randomWeight,
} from '../../../../support/gpu/backends.ts';
import type { Tested } from '../../../../support/gpu/backends.ts';
import { isWanted, openCudaTested, openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);
const shapes = [
  { rows: 1, hidden: 5, inner: 3, experts: 4, perToken: 1, groups: 4, kept: 2 },
  { rows: 9, hidden: 37, inner: 21, experts: 12, perToken: 3, groups: 3, kept: 2 },
  { rows: 130, hidden: 256, inner: 128, experts: 8, perToken: 2, groups: 1, kept: 1 },
  { rows: 160, hidden: 40, inner: 16, experts: 16, perToken: 8, groups: 1, kept: 1 },
  { rows: 70, hidden: 288, inner: 96, experts: 256, perToken: 8, groups: 8, kept: 4 },
  // Tiles of 16, 32, 64 and 192 rows; those above have 8 and 192.
  { rows: 16, hidden: 256, inner: 144, experts: 4, perToken: 2, groups: 1, kept: 1 },
  { rows: 31, hidden: 144, inner: 256, experts: 4, perToken: 2, groups: 1, kept: 1 },
  { rows: 60, hidden: 512, inner: 208, experts: 4, perToken: 2, groups: 2, kept: 2 },
  { rows: 150, hidden: 640, inner: 384, experts: 3, perToken: 2, groups: 1, kept: 1 },
];

for (const { name, numerics } of allNumerics) {
  for (const useTensorCores of [false, true]) {
    const unit = useTensorCores ? 'tensor cores' : 'plain';
    if (!isWanted(`${name}, ${unit}`)) continue;
    const { cuda, cpu, close } = await openPair(numerics, { useTensorCores });
    const random = seededRandom(seed);
    const round = numerics.activations === 'bf16';
    for (const shape of shapes) {
      const { rows, hidden, inner, experts: count, perToken, groups, kept } = shape;
      const logits = randomFloats(random, rows * count, 2);
      // Ties among the logits must be broken alike.
      logits.copyWithin(Math.floor(count / 2), 0, Math.floor(count / 4));
      const bias = randomFloats(random, count, 0.5);
      const options = { groups, groupsKept: kept, normalize: true, scale: 2.5 };
      const x = toBf16(randomFloats(random, rows * hidden));
      const shared = toBf16(randomFloats(random, rows * hidden));
      for (const dtype of ['F32', 'BF16', 'F8_E4M3'] as const) {
        const weights = Array.from({ length: count }, () => ({
          gate: randomWeight(random, { outputs: inner, inputs: hidden, dtype }),
          up: randomWeight(random, { outputs: inner, inputs: hidden, dtype }),
          down: randomWeight(random, { outputs: hidden, inputs: inner, dtype }),
        }));
        await test(`${name}, ${unit}: ${rows} rows to ${perToken} of ${count} ${dtype} experts`, () => {
          const run = ({ backend, filled, poison }: Tested) => {
            const routing = backend.moe.routing(rows, perToken);
            const scores = filled(logits, count, 'f32');
            backend.moe.route(routing, scores, backend.weights.vector('b', bias), rows, options);
            const experts = backend.moe.experts(
              weights.map(({ gate, up, down }) => ({
                gate: backend.weights.matrix(gate),
                up: backend.weights.matrix(up),
                down: backend.weights.matrix(down),
              })),
            );
            const out = poison(backend.memory.tensor(rows, hidden));
            const from = filled(x, hidden, 'input');
            const added = filled(shared, hidden);
            backend.moe.forward(out, from, added, routing, experts, rows);
            const mixed = backend.memory.read(out, rows).slice();
            backend.moe.forward(poison(out), from, added, routing, experts, rows);
            expectSame(backend.memory.read(out, rows), mixed, 'a second run');
            return { mixed, routed: backend.moe.readRouting(routing, rows) };
          };
          const actual = run(cuda);
          const expected = run(cpu);
          const chosen = (experts: Int32Array) => Float32Array.from(experts);
          expectSame(chosen(actual.routed.experts), chosen(expected.routed.experts), 'experts');
          expectClose(actual.routed.weights, expected.routed.weights, exactTolerance);
          const quantised = dtype === 'F8_E4M3' && numerics.quantizedLinear;
          const tolerance = quantised ? chainedTolerance : round ? bf16Tolerance : exactTolerance;
          expectClose(actual.mixed, expected.mixed, tolerance);
        });
      }
    }
    await close();
  }
}

// The experts' products have another kernel, or other tiles, for every number of rows here.
for (const dtype of ['F8_E4M3', 'BF16'] as const) {
  const { backend, filled, poison } = await openCudaTested(fp8Numerics, { rowsMax: 300 });
  const random = seededRandom(seed);
  const { rows, hidden, inner, count, perToken } = {
    rows: 300,
    hidden: 1152,
    inner: 640,
    count: 16,
    perToken: 4,
  };
  const experts = backend.moe.experts(
    Array.from({ length: count }, () => ({
      gate: backend.weights.matrix(randomWeight(random, { outputs: inner, inputs: hidden, dtype })),
      up: backend.weights.matrix(randomWeight(random, { outputs: inner, inputs: hidden, dtype })),
      down: backend.weights.matrix(randomWeight(random, { outputs: hidden, inputs: inner, dtype })),
    })),
  );
  const bias = backend.weights.vector('bias', new Float32Array(count));
  const logits = filled(randomFloats(random, rows * count, 2), count, 'f32');
  const x = filled(toBf16(randomFloats(random, rows * hidden)), hidden);
  const shared = filled(toBf16(randomFloats(random, rows * hidden)), hidden);
  const routing = backend.moe.routing(rows, perToken);
  const out = backend.memory.tensor(rows, hidden);
  const mix = (some: number) => {
    const options = { groups: 1, groupsKept: 1, normalize: true, scale: 2.5 };
    backend.moe.route(routing, logits, bias, some, options);
    backend.moe.forward(poison(out), x, shared, routing, experts, some);
    return backend.memory.read(out, some).slice();
  };
  await test(`${dtype} experts: a row has the same bits among any number of rows`, () => {
    const all = mix(rows);
    for (const some of [1, 3, 16, 30, 60, 120, 290]) {
      expectSame(mix(some), all.slice(0, some * hidden), `${some} rows`);
    }
  });
  await backend.close();
}
