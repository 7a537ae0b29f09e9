/** A model over several ranks says to the bit what one rank says that has it whole. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { at } from '../../../gpu-worker/at.ts';
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import { randomConfig } from '../../support/weights/checkpoint-config.ts';
import type { ModelKind } from '../../support/weights/checkpoint-config.ts';
import { writeRandomCheckpoint } from '../../support/weights/random-checkpoint.ts';
import type { CheckpointOptions } from '../../support/weights/random-checkpoint.ts';
import { seededRandom } from '../../support/random.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { readGolden } from '../../support/worker/golden.ts';
import {
  continueGreedily,
  inChunks,
  openForTest,
  runSchedule,
} from '../../support/worker/model-harness.ts';
import { openRanksForTest } from '../../support/worker/ranks-harness.ts';
import { firstDifference } from '../../support/worker/transcripts.ts';

const directory = temporaryDirectory();
const seed = 19;

interface Shape {
  readonly tensorParallel: number;
  readonly dataParallel: number;
}

const shape = (tensorParallel: number, dataParallel: number): Shape => ({
  tensorParallel,
  dataParallel,
});

function randomTokens(count: number, tokenSeed: number): number[] {
  const random = seededRandom(tokenSeed);
  return Array.from({ length: count }, () => random.integer(0, 59));
}

/** Sizes that divide by eight ranks. */
function writeModel(kind: ModelKind, dtype: CheckpointOptions['dtype']): string {
  const isFp8 = dtype === 'F8_E4M3';
  const config = {
    ...randomConfig(kind, seed),
    num_attention_heads: 8,
    num_key_value_heads: 8,
    vocab_size: 120,
    hidden_size: isFp8 ? 256 : 96,
    intermediate_size: isFp8 ? 256 : 72,
    moe_intermediate_size: isFp8 ? 256 : 40,
    n_routed_experts: 16,
    num_experts_per_tok: 3,
    ...(!kind.startsWith('V3 with') && { index_head_dim: 64 }),
    ...(isFp8 && { qk_nope_head_dim: 32, qk_rope_head_dim: 32, v_head_dim: 32 }),
  };
  const path = join(directory, `${kind} ${dtype}`);
  return writeRandomCheckpoint(path, config, { seed, dtype, shards: 2 });
}

const goldens = [
  { name: 'dsv32-f32', shapes: [shape(2, 1), shape(2, 4)] },
  { name: 'dsv32-fp8', shapes: [shape(1, 4)] },
  { name: 'glm-dsa-f32', shapes: [shape(4, 2)] },
] as const;

describe.each(goldens)('the golden $name over ranks', ({ name, shapes }) => {
  const golden = readGolden(name);

  test.each(shapes)('T$tensorParallel x D$dataParallel', async (layout) => {
    const one = await openForTest(golden.directory);
    const many = await openRanksForTest(golden.directory, layout);
    const schedule = inChunks(golden.input_ids.length, 100);
    const alone = runSchedule(one, [golden.input_ids], { schedule });
    const ranked = runSchedule(many, [golden.input_ids], { schedule });
    expect(firstDifference(at(ranked, 0), at(alone, 0))).toBe(null);
    const prompt = golden.input_ids.slice(0, 70);
    expect(continueGreedily(many, prompt, 8)).toEqual(continueGreedily(one, prompt, 8));
    await Promise.all([one.close(), many.close()]);
  });
});

const models = [
  { kind: 'V3.2 with everything', dtype: 'F32', numerics: 'f32', layout: shape(8, 1) },
  { kind: 'several shared experts', dtype: 'BF16', numerics: 'fp8', layout: shape(2, 2) },
  { kind: 'V3.2 with everything', dtype: 'F8_E4M3', numerics: 'fp8', layout: shape(2, 2) },
  { kind: 'GLM with shared selections', dtype: 'F8_E4M3', numerics: 'fp8', layout: shape(2, 2) },
  { kind: 'V3 with a single query projection', dtype: 'F32', numerics: 'f32', layout: shape(4, 1) },
] as const;

describe.each(models)(`$kind in $dtype and $numerics numerics, seed ${seed}`, (model) => {
  const { kind, dtype, numerics, layout } = model;
  const { tensorParallel, dataParallel } = layout;

  test(`T${tensorParallel} x D${dataParallel} has the bits of one rank`, async () => {
    const path = writeModel(kind, dtype);
    const tokens = randomTokens(140, seed);
    const one = await openForTest(path, { numerics });
    const many = await openRanksForTest(path, { ...layout, numerics });
    const schedule = inChunks(tokens.length, 50);
    const alone = runSchedule(one, [tokens], { schedule });
    const ranked = runSchedule(many, [tokens], { schedule });
    expect(firstDifference(at(ranked, 0), at(alone, 0))).toBe(null);
    await Promise.all([one.close(), many.close()]);
  });
});

test('groups that step together have the bits that each has alone, whichever of them has rows', async () => {
  const path = writeModel('V3.2 with everything', 'F32');
  const one = await openForTest(path);
  const many = await openRanksForTest(path, shape(2, 2));
  const sequences = [randomTokens(90, 1), randomTokens(20, 2)];
  const wanted = sequences.map((tokens) => {
    one.model.forward(batchOf(tokens));
    return one.model.logits(Int32Array.of(tokens.length - 1)).slice();
  });
  for (const stepping of [[0, 1], [1], [0]]) {
    const batches = sequences.map((tokens, group) =>
      stepping.includes(group) ? batchOf(tokens) : null,
    );
    many.ranked.forward(batches);
    for (const group of stepping) {
      const last = Int32Array.of(at(sequences, group).length - 1);
      expect(at(many.ranked.groups, group).logits(last)).toEqual(at(wanted, group));
    }
  }
  await Promise.all([one.close(), many.close()]);
});

test('each rank has its shard of the weights and no more', async () => {
  const path = writeModel('V3.2 with everything', 'F32');
  const weights = async (layout: Shape): Promise<number[]> => {
    const { loaded, close } = await openRanksForTest(path, layout);
    await close();
    return loaded.memories.map(({ weightBytes }) => weightBytes);
  };
  const whole = at(await weights(shape(1, 1)), 0);
  const split = await weights(shape(4, 1));
  const spread = await weights(shape(1, 4));
  expect(new Set(split).size).toBe(1);
  expect(new Set(spread).size).toBe(1);
  // Nothing but latents' projections, gate, indexer, norms and the rope table is there four times.
  expect(at(split, 0)).toBeLessThan(whole / 2);
  expect(at(split, 0)).toBeLessThan(at(spread, 0));
  expect(at(spread, 0)).toBeLessThan(whole);
});

/** A whole sequence from block 0 on. */
function batchOf(tokens: readonly number[]): Batch {
  const positions = Int32Array.from(tokens.keys());
  const blocks = Math.ceil(tokens.length / 64);
  return {
    tokens: Int32Array.from(tokens),
    positions,
    slots: positions,
    sequences: new Int32Array(tokens.length),
    blockTables: [Int32Array.from({ length: blocks }, (_, i) => i)],
  };
}
