/** Batching, paging and the form of attention must not change what a model says. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import { limitMaskedTokens, maskedTokensMax } from '../../../gpu-worker/backend/attention-plan.ts';
import type { Absorption } from '../../../gpu-worker/backend/attention-plan.ts';
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import { CpuAttention } from '../../../gpu-worker/backend/cpu/attention.ts';
import { CpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { Mla } from '../../../gpu-worker/backend/mla.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import type { CheckpointConfig, ModelKind } from '../../support/weights/checkpoint-config.ts';
import { maxDifference } from '../../support/worker/golden.ts';
import {
  inChunks,
  interleaved,
  openForTest,
  runAlone,
  runSchedule,
} from '../../support/worker/model-harness.ts';
import type { OpenOptions, Step, Transcript } from '../../support/worker/model-harness.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import { seededRandom } from '../../support/random.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { firstDifference } from '../../support/worker/transcripts.ts';

const directory = temporaryDirectory();
const seed = 42;

function writeModel(
  name: string,
  change: Partial<CheckpointConfig> = {},
  kind: ModelKind = 'V3.2 with everything',
): string {
  const config = { ...randomConfig(kind, seed), ...change };
  const path = join(directory, name);
  return writeRandomCheckpoint(path, config, { seed, dtype: 'F8_E4M3', shards: 2 });
}

function randomTokens(count: number, tokenSeed: number): number[] {
  const random = seededRandom(tokenSeed);
  return Array.from({ length: count }, () => random.integer(0, 59));
}

async function say(path: string, tokens: number[], options: OpenOptions): Promise<Transcript> {
  const opened = await openForTest(path, options);
  const transcript = runAlone(opened, tokens);
  await opened.close();
  return transcript;
}

const models = (['V3.2 with everything', 'GLM with shared selections'] as const).flatMap((kind) =>
  (['f32', 'fp8'] as const).map((numerics) => ({ kind, numerics })),
);

describe.each(models)(`$kind in $numerics numerics, seed ${seed}`, ({ kind, numerics }) => {
  const name = `${kind} ${numerics}`;
  const path = writeModel(name, {}, kind);
  const tokens = randomTokens(150, seed);

  test('says the same bits wherever its blocks lie and however it is chunked', async () => {
    const opened = await openForTest(path, { numerics });
    const alone = runAlone(opened, tokens);
    for (const chunk of [1, 7, 63, 64, 65, 128, 149]) {
      const schedule = inChunks(tokens.length, chunk);
      const chunked = at(runSchedule(opened, [tokens], { schedule, blockSeed: chunk }), 0);
      expect(firstDifference(chunked, alone), `chunks of ${chunk}`).toBe(null);
    }
    await opened.close();
  });

  test('says the same bits to every sequence of a mixed batch as to the sequence alone', async () => {
    const opened = await openForTest(path, { numerics });
    const sequences = [tokens, randomTokens(100, 2), randomTokens(1, 3), randomTokens(65, 4)];
    const alone = sequences.map((sequence) => runAlone(opened, sequence));
    const lengths = sequences.map(({ length }) => length);
    const schedule = interleaved(lengths, { seed, chunkMax: 50 });
    const together = runSchedule(opened, sequences, { schedule, blockSeed: 9 });
    together.forEach((transcript, i) => {
      expect(firstDifference(transcript, at(alone, i)), `sequence ${i}`).toBe(null);
    });
    await opened.close();
  });

  test('attends densely, bit for bit, when its top-k is wider than the context', async () => {
    const wide = writeModel(`${name}, wide`, { index_topk: 200 }, kind);
    const sparse = await say(wide, tokens, { numerics });
    const dense = await say(wide, tokens, { numerics, attention: 'dense' });
    expect(firstDifference(sparse, { ...dense, selected: sparse.selected })).toBe(null);
    sparse.selected.forEach((rows) =>
      rows.forEach((row, position) =>
        expect([...row]).toEqual([...tokens.keys()].slice(0, position + 1)),
      ),
    );
  });

  test('says something else with dense attention when the context is longer than its top-k', async () => {
    const sparse = await say(path, tokens, { numerics });
    const dense = await say(path, tokens, { numerics, attention: 'dense' });
    const topK = at(at(sparse.selected, 0), 149).length;
    const differences = sparse.logits.map((row, i) => maxDifference(row, at(dense.logits, i)));
    expect(differences.slice(0, topK)).toEqual(Array(topK).fill(0));
    expect(Math.max(...differences.slice(topK))).toBeGreaterThan(0.01);
  });
});

describe('weight absorption', () => {
  // Sums in another order only: float32 rounding over three layers, on logits of order 1.
  test('changes nothing but rounding in float32', async () => {
    const path = writeModel('absorption');
    const tokens = randomTokens(100, 5);
    const absorbed = await say(path, tokens, {});
    const expanded = await say(path, tokens, { absorb: 'never' });
    expect(expanded.selected).toEqual(absorbed.selected);
    absorbed.logits.forEach((logits, position) => {
      expect(maxDifference(logits, at(expanded.logits, position))).toBeLessThan(5e-5);
    });
  });

  const tokens = [randomTokens(300, 6), randomTokens(130, 7), randomTokens(129, 8)];
  // One that decodes and two with many rows in the second step; two with few in the third.
  const schedule: Step[] = [
    [{ sequence: 1, count: 129 }],
    [
      { sequence: 1, count: 1 },
      { sequence: 0, count: 200 },
      { sequence: 2, count: 128 },
    ],
    [
      { sequence: 0, count: 100 },
      { sequence: 2, count: 1 },
    ],
  ];
  const runMixed = async (path: string, options: OpenOptions, run = { tokens, schedule }) => {
    const calls: ExpandedCall[] = [];
    const opened = await openForTest(path, {
      ...options,
      rowsMax: 600,
      wrap: (backend) => recorded(backend, calls, options.absorb),
    });
    const transcripts = runSchedule(opened, run.tokens, { schedule: run.schedule });
    const { layers } = opened.config;
    await opened.close();
    return { transcripts, calls: calls.filter((_, i) => i % layers === 0) };
  };
  /** Sums in another order only, over tokens that are the same. */
  const expectAlike = (mixed: readonly Transcript[], absorbed: readonly Transcript[]) =>
    mixed.forEach(({ logits, selected }, sequence) => {
      const other = at(absorbed, sequence);
      expect(selected).toEqual(other.selected);
      logits.forEach((row, position) =>
        expect(maxDifference(row, at(other.logits, position))).toBeLessThan(5e-5),
      );
    });

  test('is left out, with `decode`, for the sequences of a batch that have many rows', async () => {
    const path = writeModel('dense-mixed');
    const absorbed = await runMixed(path, { attention: 'dense' });
    const mixed = await runMixed(path, { attention: 'dense', absorb: 'decode' });
    expect(absorbed.calls).toEqual([]);
    expect(mixed.calls).toEqual([
      { firstRow: 0, masked: false },
      { firstRow: 1, masked: false },
    ]);
    expectAlike(mixed.transcripts, absorbed.transcripts);
  });

  test('is left out, with `decode`, for many rows that leave out some of not too many tokens', async () => {
    const topK = 190;
    const path = writeModel('sparse-mixed', { index_topk: topK });
    const limit = limitMaskedTokens({ rows: 256, topK });
    expect(limit).toBeGreaterThan(256);
    expect(limit).toBeLessThan(150 + 256);
    const run = {
      tokens: [randomTokens(150 + 256, 6), randomTokens(256 + 20, 7), randomTokens(130, 8)],
      schedule: [
        // Rows that select all that they see, and need no mask.
        [{ sequence: 2, count: 129 }],
        [{ sequence: 0, count: 150 }],
        // Few rows, rows of too many tokens, and rows that mask.
        [
          { sequence: 2, count: 1 },
          { sequence: 0, count: 256 },
          { sequence: 1, count: 256 },
        ],
        [{ sequence: 1, count: 20 }],
      ],
    };
    const absorbed = await runMixed(path, {}, run);
    const mixed = await runMixed(path, { absorb: 'decode' }, run);
    expect(mixed.calls).toEqual([
      { firstRow: 0, masked: false },
      { firstRow: 0, masked: false },
      { firstRow: 257, masked: true },
    ]);
    expectAlike(mixed.transcripts, absorbed.transcripts);
  });
});

describe('the limit of masked attention', () => {
  test('grows with the rows that share the expansion, up to what backends mask', () => {
    const limits = [128, 512, 2048, 4096].map((rows) => limitMaskedTokens({ rows, topK: 2048 }));
    expect(limits).toEqual(limits.toSorted((a, b) => a - b));
    expect(limits[3]).toBeGreaterThan(4096 + 2048);
    expect(limitMaskedTokens({ rows: 65_536, topK: 2048 })).toBe(maskedTokensMax);
  });
});

interface ExpandedCall {
  readonly firstRow: number | undefined;
  readonly masked: boolean;
}

/** Notes from which row on keys and values are expanded, and whether some are masked. */
class RecordingAttention extends CpuAttention {
  readonly #calls: ExpandedCall[];

  constructor(backend: CpuBackend, calls: ExpandedCall[]) {
    super(backend.context, backend.gemm);
    this.#calls = calls;
  }

  override attendExpanded(...args: Parameters<CpuAttention['attendExpanded']>): void {
    this.#calls.push({ firstRow: args[5].firstRow, masked: args[4] !== null });
    super.attendExpanded(...args);
  }
}

function recorded(backend: Backend, calls: ExpandedCall[], absorb?: Absorption): Backend {
  if (!(backend instanceof CpuBackend)) throw new Error('only the CPU backend is recorded');
  const attention = new RecordingAttention(backend, calls);
  const mla = new Mla({ ...backend, attention, step: backend.context.step }, absorb);
  return { ...backend, attention, mla, close: () => backend.close() };
}
