/**
 * Prefill with expanded keys and values of rows that attend to a selection: what they did not
 * select is masked. Against the cpu backend, and where all is selected against the kernel without a
 * mask.
 */
import { maskedTokensMax } from '../../../../../gpu-worker/backend/attention-plan.ts';
import { expectClose, expectSame, tensorCoreTolerance, test } from '../../../../gpu/check.ts';
import { seededRandom } from '../../../../support/random.ts';
import type { Random } from '../../../../support/random.ts';
import {
  headOf128,
  headOf256,
  onBoth,
  seed,
  selectionOf,
  testLastAlone,
} from '../../../../support/gpu/dense-case.ts';
import type { AttentionCase, Inputs } from '../../../../support/gpu/dense-case.ts';

console.log(`seed ${seed}`);

/** The tokens that a row which sees `seen` of them selects, at most `width`. */
type Choice = (random: Random, seen: number, width: number) => number[];

const from = (start: number, count: number) => Array.from({ length: count }, (_, i) => start + i);
const choices = {
  all: (_random, seen) => from(0, seen),
  /** One of each of `width` equal parts. */
  scattered: (random, seen, width) =>
    from(0, Math.min(width, seen)).map((i) => {
      const [start, end] = [i, i + 1].map((part) =>
        Math.floor((part * Math.max(seen, width)) / width),
      );
      return seen <= width ? i : random.integer(start ?? 0, (end ?? 0) - 1);
    }),
  first: (_random, seen, width) => from(0, Math.min(width, seen)),
  /** Nothing of the first blocks, nor of the first passes. */
  last: (_random, seen, width) => from(Math.max(0, seen - width), Math.min(width, seen)),
  one: (random, seen) => [random.integer(0, seen - 1)],
  /**
   * Whole blocks of 128 tokens, and none of the two behind each; all that is left where there is
   * none.
   */
  islands: (_random, seen, width) => {
    const chosen = from(0, seen).filter((token) => Math.floor(token / 128) % 3 === 1);
    return chosen.length > 0 ? chosen.slice(-width) : from(0, seen).slice(-width);
  },
} as const satisfies Record<string, Choice>;
type ChoiceName = keyof typeof choices;
const kinds = Object.keys(choices).filter((name): name is ChoiceName => name in choices);

/** Selections of the batch's rows in order; `mixed` rows choose one way after another. */
function chosenBy(
  choice: ChoiceName | 'mixed',
  { parts }: Inputs,
  { width, turn = 0 }: { width: number; turn?: number },
): Int32Array[] {
  const random = seededRandom(seed + 2 + turn);
  const rows = parts.flatMap(({ start, rows: count }) => from(start + 1, count));
  return rows.map((seen, r) => {
    const others = kinds.filter((kind) => kind !== 'all' || seen <= width);
    const kind = choice === 'mixed' ? others[(r + turn) % others.length] : choice;
    return Int32Array.from(choices[kind ?? 'first'](random, seen, width));
  });
}

interface Case extends AttentionCase {
  readonly choice: ChoiceName | 'mixed';
  readonly width: number;
}

const cases: readonly Case[] = [
  {
    name: 'all 128 heads, 2,048 of 4,200 tokens',
    heads: 128,
    sequences: [{ context: 4200, rows: 7 }],
    choice: 'mixed',
    width: 2048,
  },
  {
    name: '2,048 of 2,049 to 5,000 tokens',
    heads: 4,
    sequences: [
      { context: 2049, rows: 2 },
      { context: 5000, rows: 300 },
      { context: 3001, rows: 130 },
    ],
    choice: 'scattered',
    width: 2048,
    pass: 2048,
  },
  { name: 'one row', heads: 4, sequences: [{ context: 130, rows: 1 }], choice: 'one', width: 1 },
  { name: 'one token', heads: 4, sequences: [{ context: 1, rows: 1 }], choice: 'all', width: 1 },
  {
    name: 'ragged sequences',
    heads: 4,
    sequences: [
      { context: 1, rows: 1 },
      { context: 63, rows: 63 },
      { context: 64, rows: 2 },
      { context: 257, rows: 129 },
      { context: 128, rows: 128 },
      { context: 129, rows: 65 },
    ],
    choice: 'mixed',
    width: 50,
  },
  {
    name: 'nothing selected of the first blocks',
    heads: 4,
    sequences: [{ context: 900, rows: 200 }],
    choice: 'last',
    width: 70,
  },
  {
    name: 'nothing selected of the first passes',
    heads: 4,
    sequences: [
      { context: 100, rows: 3 },
      { context: 900, rows: 200 },
    ],
    choice: 'last',
    width: 70,
    pass: 128,
  },
  {
    name: 'nothing selected of the last passes',
    heads: 4,
    sequences: [{ context: 900, rows: 200 }],
    choice: 'first',
    width: 70,
    pass: 256,
  },
  {
    name: 'holes of two blocks',
    heads: 4,
    sequences: [{ context: 1100, rows: 600 }],
    choice: 'islands',
    width: 300,
    pass: 384,
  },
  {
    name: 'passes that some rows end before, every choice',
    heads: 4,
    sequences: [
      { context: 600, rows: 600 },
      { context: 30, rows: 30 },
    ],
    choice: 'mixed',
    width: 150,
    pass: 128,
  },
  {
    name: 'heads of 256, every choice',
    heads: 8,
    head: headOf256,
    sequences: [
      { context: 700, rows: 330 },
      { context: 193, rows: 129 },
    ],
    choice: 'mixed',
    width: 150,
    pass: 256,
  },
  {
    name: '16 heads of 256, holes of two blocks',
    heads: 16,
    head: headOf256,
    sequences: [{ context: 1100, rows: 70 }],
    choice: 'islands',
    width: 300,
    pass: 384,
  },
  {
    name: 'steep weights',
    heads: 4,
    sequences: [{ context: 400, rows: 200 }],
    choice: 'mixed',
    width: 100,
    pass: 128,
    steep: 3,
  },
  {
    name: 'more tokens than a mask has',
    heads: 4,
    sequences: [
      { context: 40, rows: 4 },
      { context: maskedTokensMax + 1, rows: 2 },
    ],
    choice: 'scattered',
    width: 2048,
  },
];

await onBoth('masked prefill', cases, async (both, each) => {
  const { label, inputs, cuda, cpu, mine, wanted } = both;
  const { heads, head = headOf128, sequences, choice, width } = each;
  const chosen = chosenBy(choice, inputs, { width });
  const selection = selectionOf(cuda.backend, chosen, width);
  const columns = heads * head.valueDim;
  let actual: Float32Array = new Float32Array(0);
  await test(`${label}: as the cpu backend`, () => {
    actual = mine.expanded({ selection });
    const expected = wanted.expanded({ selection: selectionOf(cpu.backend, chosen, width) });
    expectClose(actual, expected, tensorCoreTolerance);
  });
  await test(`${label}: the same bits twenty times`, () => {
    for (let i = 0; i < 20; i++) expectSame(mine.expanded({ selection }), actual, `run ${i}`);
  });
  await test(`${label}: the same bits whatever the other rows select`, () => {
    const others = chosenBy('mixed', inputs, { width, turn: 1 });
    const changed = chosen.map((row, r) => (r % 2 === 0 ? row : (others[r] ?? row)));
    const out = mine.expanded({ selection: selectionOf(cuda.backend, changed, width) });
    for (let r = 0; r < chosen.length; r += 2) {
      const row = (all: Float32Array) => all.slice(r * columns, (r + 1) * columns);
      expectSame(row(out), row(actual), `row ${r}`);
    }
  });
  await testLastAlone(both, each, { actual, selection });
  const longest = Math.max(...sequences.map(({ context }) => context));
  if (longest > maskedTokensMax) return;
  await test(`${label}: without a mask's bits where all is selected`, () => {
    const all = selectionOf(cuda.backend, chosenBy('all', inputs, { width: longest }), longest);
    expectSame(mine.expanded({ selection: all }), mine.expanded(), 'all selected');
  });
});
