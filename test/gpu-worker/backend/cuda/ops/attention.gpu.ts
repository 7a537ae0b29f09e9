/** Caches, selection and attention against the cpu backend, plain and on the tensor cores. */
import {
  bf16Tolerance,
  chainedTolerance,
  exactTolerance,
  expectClose,
  expectSame,
  tensorCoreTolerance,
  test,
} from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import type { Random } from '../../../../support/random.ts';
import {
  AttentionCase,
  oddShape,
  oneHeadShape,
  randomSequence,
  rowsOfAttended,
  wideShape,
} from '../../../../support/gpu/attention-case.ts';
import type {
  Attended,
  AttentionShape,
  InputPart,
} from '../../../../support/gpu/attention-case.ts';
import { allNumerics, shuffledBlocks } from '../../../../support/gpu/backends.ts';
import type { Tested } from '../../../../support/gpu/backends.ts';
import { isWanted, openPair, toBf16 } from '../../../../support/gpu/tested.ts';

const seed = Number(process.env['SEED'] ?? 1);
console.log(`seed ${seed}`);

const goldenShape: AttentionShape = {
  heads: 4,
  latentDim: 64,
  ropeDim: 16,
  nopeDim: 24,
  valueDim: 56,
  indexHeads: 4,
  indexDim: 32,
  topK: 16,
};
/** The widths of V3.2, with fewer heads and a smaller selection so that the cpu keeps up. */
const fullShape: AttentionShape = {
  heads: 64,
  latentDim: 512,
  ropeDim: 64,
  nopeDim: 16,
  valueDim: 8,
  indexHeads: 64,
  indexDim: 128,
  topK: 130,
};
const cases = [
  { name: 'odd', shape: oddShape },
  { name: 'wide', shape: wideShape },
  { name: 'one head', shape: oneHeadShape },
  { name: 'golden', shape: goldenShape },
  { name: 'full width', shape: fullShape },
];

function sequenceOf(random: Random, shape: AttentionShape, tokens: number, round: boolean) {
  const inputs = randomSequence(random, shape, tokens);
  if (!round) return inputs;
  // The tolerance is stated for entries and queries well below 1 (docs/engine-spec.md#tolerances).
  const factor = shape === fullShape ? 0.125 : 1;
  const scaled = (values: Float32Array) => toBf16(values.map((value) => value * factor));
  return {
    ...inputs,
    entries: scaled(inputs.entries),
    keys: toBf16(inputs.keys),
    q: toBf16(inputs.q),
    absorbedQ: scaled(inputs.absorbedQ),
    indexQ: toBf16(inputs.indexQ),
  };
}

function runAll(tested: Tested, shape: AttentionShape, steps: readonly (readonly InputPart[])[]) {
  const attention = new AttentionCase(tested, shape, seededRandom(seed + 1), 12);
  return steps.map((parts) => attention.run(parts));
}

for (const { name: numericsName, numerics } of allNumerics) {
  for (const useTensorCores of [false, true]) {
    for (const { name, shape } of cases) {
      const label = `${numericsName}, ${useTensorCores ? 'tensor cores' : 'plain'}, ${name}`;
      if (!isWanted(label)) continue;
      const { cuda, cpu, close } = await openPair(numerics, { useTensorCores });
      const round = numerics.activations === 'bf16';
      const random = seededRandom(seed);
      const [long, short] = [290, 70];
      const first = sequenceOf(random, shape, long, round);
      const second = sequenceOf(random, shape, short, round);
      const blocks = shuffledBlocks(random, 12);
      const part = (start: number, rows: number): InputPart => ({
        start,
        rows,
        blockTable: blocks.slice(0, 5),
        inputs: first,
      });
      const other = (start: number, rows: number): InputPart => ({
        start,
        rows,
        blockTable: blocks.slice(5, 7),
        inputs: second,
      });
      const steps = [
        [part(0, 150)],
        [part(150, 100), other(0, 30)],
        [other(30, 1), part(250, 1)],
        [part(251, 39), other(31, 39)],
      ];
      const unit = useTensorCores && round && shape === fullShape;
      let actual: Attended[] = [];
      let expected: Attended[] = [];
      await test(`${label}: selections`, () => {
        actual = runAll(cuda, shape, steps);
        expected = runAll(cpu, shape, steps);
        let different = 0;
        let total = 0;
        actual.forEach(({ selected }, step) =>
          selected.forEach((row, r) => {
            const wanted = new Set(expected[step]?.selected[r]);
            if (row.length !== wanted.size)
              throw new Error(`row ${r} of step ${step} has another size`);
            if (row.some((token, i) => i > 0 && token <= (row[i - 1] ?? 0))) {
              throw new Error(`row ${r} of step ${step} does not ascend`);
            }
            total += row.length;
            different += row.filter((token) => !wanted.has(token)).length;
          }),
        );
        if (different > 0) throw new Error(`${different} of ${total} selected tokens differ`);
      });
      const outputs = ['dense', 'sparse', 'lse', 'expandedDense', 'expandedSparse'] as const;
      for (const output of outputs) {
        await test(`${label}: ${output}`, () => {
          if (actual.length === 0) throw new Error('nothing ran');
          const plain = round ? bf16Tolerance : exactTolerance;
          const expanded = output.startsWith('expanded');
          const quantised = expanded && round ? chainedTolerance : plain;
          const tolerance = unit && !expanded ? tensorCoreTolerance : quantised;
          actual.forEach((step, i) => {
            const wanted = expected[i];
            if (wanted !== undefined) expectClose(step[output], wanted[output], tolerance);
          });
        });
      }
      await test(`${label}: the same bits again, and in other company`, () => {
        const again = runAll(cuda, shape, steps);
        const alone = runAll(cuda, shape, [[part(0, 150)], [part(150, 100)], [part(250, 40)]]);
        for (const output of outputs) {
          again.forEach((step, i) => {
            const before = actual[i];
            if (before !== undefined) expectSame(step[output], before[output], `${output} again`);
          });
          const [one, two] = [alone[1], actual[1]];
          if (one === undefined || two === undefined) throw new Error('nothing ran');
          const mine = rowsOfAttended(two, 0, 100);
          expectSame(mine[output], one[output], `${output} alone`);
        }
      });
      await close();
    }
  }
}
