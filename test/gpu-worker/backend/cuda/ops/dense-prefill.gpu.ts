/**
 * Dense attention at the published models' head dimensions against the cpu backend: prefill with
 * expanded keys and values, absorbed decode, and both in the batches of a whole model.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openCudaBackend } from '../../../../../gpu-worker/backend/cuda/cuda-backend.ts';
import type { Absorption } from '../../../../../gpu-worker/backend/attention-plan.ts';
import { openModel } from '../../../../../gpu-worker/open-model.ts';
import { expectClose, expectSame, tensorCoreTolerance, test } from '../../../../gpu/check.ts';
import { randomConfig } from '../../../../support/weights/checkpoint-config.ts';
import { calcDiff } from '../../../../support/worker/golden.ts';
import { openForTest, runSchedule } from '../../../../support/worker/model-harness.ts';
import type { Step, Transcript } from '../../../../support/worker/model-harness.ts';
import { seededRandom } from '../../../../support/random.ts';
import { writeRandomCheckpoint } from '../../../../support/weights/random-checkpoint.ts';
import {
  headOf128,
  latentDim,
  onBoth,
  ropeDim,
  seed,
  testExpanded,
} from '../../../../support/gpu/dense-case.ts';
import type { AttentionCase, DenseCase } from '../../../../support/gpu/dense-case.ts';
import { isWanted } from '../../../../support/gpu/tested.ts';

console.log(`seed ${seed}`);

const cases: readonly AttentionCase[] = [
  { name: 'all 128 heads', heads: 128, sequences: [{ context: 200, rows: 70 }] },
  { name: 'a sequence from its start', heads: 4, sequences: [{ context: 300, rows: 300 }] },
  { name: 'one row', heads: 4, sequences: [{ context: 130, rows: 1 }] },
  { name: 'one token', heads: 4, sequences: [{ context: 1, rows: 1 }] },
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
  },
  ...[-1, 0, 1].map((more) => ({
    name: `passes of 256 tokens, ${512 + more} tokens`,
    heads: 4,
    sequences: [
      { context: 100, rows: 3 },
      { context: 512 + more, rows: 400 },
    ],
    pass: 256,
  })),
  {
    name: 'passes that some rows end before',
    heads: 4,
    sequences: [
      { context: 600, rows: 600 },
      { context: 30, rows: 30 },
    ],
    pass: 128,
  },
  {
    name: 'steep weights',
    heads: 4,
    sequences: [{ context: 400, rows: 200 }],
    pass: 128,
    steep: 3,
  },
];

await testExpanded(cases);

const decodeCases: readonly AttentionCase[] = [
  { name: 'few tokens', heads: 128, contexts: [1, 63, 64, 65, 128, 2, 127] },
  { name: 'a long context', heads: 128, contexts: [9000] },
  { name: 'few tokens, 16 heads', heads: 16, contexts: [1, 63, 64, 65, 128, 2, 127] },
  { name: 'a long context, 8 heads', heads: 8, contexts: [9000] },
  { name: 'long contexts, 32 heads', heads: 32, contexts: [9000, 8193, 129, 5] },
  { name: 'long and short contexts', heads: 64, contexts: [4097, 3, 2048, 2049, 1, 6000, 64] },
].map(({ contexts, ...each }) => ({
  ...each,
  sequences: contexts.map((context) => ({ context, rows: 1 })),
}));
await onBoth('decode', decodeCases, async ({ label, mine, wanted }, { heads, sequences }) => {
  let actual: ReturnType<DenseCase['absorbed']> = {
    out: new Float32Array(0),
    lse: new Float32Array(0),
  };
  await test(`${label}: as the cpu backend`, () => {
    actual = mine.absorbed();
    const expected = wanted.absorbed();
    expectClose(actual.out, expected.out, tensorCoreTolerance);
    expectClose(actual.lse, expected.lse, tensorCoreTolerance);
  });
  await test(`${label}: the same bits twenty times`, () => {
    for (let i = 0; i < 20; i++) {
      const again = mine.absorbed();
      expectSame(again.out, actual.out, `run ${i}`);
      expectSame(again.lse, actual.lse, `the log-sum-exp of run ${i}`);
    }
  });
  await test(`${label}: the same bits without the row behind`, () => {
    // The rows have as many parts as before: they depend on the number of rows.
    const rows = Math.max(1, sequences.length - 1);
    const { out, lse } = mine.absorbed(rows);
    const columns = heads * latentDim;
    expectSame(out.slice(0, rows * columns), actual.out.slice(0, rows * columns), 'out');
    expectSame(lse.slice(0, rows * heads), actual.lse.slice(0, rows * heads), 'log-sum-exp');
    if (!out.slice(rows * columns).every(Number.isNaN))
      throw new Error('the row behind was written');
  });
});

// A decoding sequence beside two with many rows, one of which sees more than it may select, then
// rows that are few.
const sequences = [300, 130, 129].map((length, i) => {
  const random = seededRandom(seed + i);
  return Array.from({ length }, () => random.integer(0, 59));
});
const schedule: Step[] = [
  [{ sequence: 1, count: 129 }],
  [
    { sequence: 1, count: 1 },
    { sequence: 0, count: 250 },
    { sequence: 2, count: 128 },
  ],
  [
    { sequence: 0, count: 50 },
    { sequence: 2, count: 1 },
  ],
];

/** The states after the first layer: later ones depend on choices that a rounding may turn. */
function medianDiff(actual: readonly Transcript[], expected: readonly Transcript[]): number {
  const diffs = expected.flatMap(({ hidden }, s) =>
    (hidden[1] ?? []).map((row, position) =>
      calcDiff(actual[s]?.hidden[1]?.[position] ?? new Float32Array(row.length), row),
    ),
  );
  return diffs.toSorted((x, y) => x - y)[Math.floor(diffs.length / 2)] ?? Number.NaN;
}

const folder = mkdtempSync(join(tmpdir(), 'sift-dense-'));
const config = {
  ...randomConfig('V3.2 with everything', seed),
  num_attention_heads: 4,
  num_key_value_heads: 4,
  kv_lora_rank: latentDim,
  qk_nope_head_dim: headOf128.nopeDim,
  qk_rope_head_dim: ropeDim,
  v_head_dim: headOf128.valueDim,
  index_head_dim: 128,
  index_topk: 200,
};
writeRandomCheckpoint(folder, config, { seed, dtype: 'F8_E4M3', shards: 1 });

for (const attention of ['dense', 'sparse'] as const) {
  const label = `model, ${attention}`;
  if (!isWanted(label)) continue;
  await test(`${label}: expanded prefill says what absorbed prefill and the cpu backend say`, async () => {
    const said: Partial<Record<Absorption | 'cpu', Transcript[]>> = {};
    for (const absorb of ['always', 'decode', 'never'] as const) {
      const {
        model,
        config: parsed,
        backend,
      } = await openModel({
        location: folder,
        compute: { numerics: 'fp8', attention },
        limits: { rowsMax: 400, logitRowsMax: 400 },
        openBackend: (numerics) => openCudaBackend({ numerics, rowsMax: 400, absorb }),
        blocks: 24,
      });
      const opened = { model, config: parsed, close: () => backend.close() };
      said[absorb] = runSchedule(opened, sequences, { schedule });
      await opened.close();
    }
    const cpu = await openForTest(folder, {
      numerics: 'fp8',
      attention,
      absorb: 'decode',
      rowsMax: 400,
      threads: 8,
    });
    said.cpu = runSchedule(cpu, sequences, { schedule });
    await cpu.close();
    for (const name of ['always', 'never', 'cpu'] as const) {
      const diff = medianDiff(said.decode ?? [], said[name] ?? []);
      console.log(`     median calc_diff to ${name}: ${diff.toExponential(2)}`);
      if (!(diff < 1e-3)) throw new Error(`calc_diff to ${name} is ${diff}`);
    }
  });
}
rmSync(folder, { recursive: true });
