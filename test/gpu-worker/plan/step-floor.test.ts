/** The floors of a step, against sums done by hand. */
import { describe, expect, test } from 'vitest';
import { chooseNumerics } from '../../../gpu-worker/model/mla-moe/numerics.ts';
import { rankModel } from '../../../gpu-worker/plan/layout.ts';
import type { Layout } from '../../../gpu-worker/model/mla-moe/shard.ts';
import { stepCosts, stepFloor } from '../../../gpu-worker/plan/step-floor.ts';
import type { StepFloor } from '../../../gpu-worker/plan/step-floor.ts';
import { shapesOf } from './planned.ts';
import { deepseekV3, deepseekV32 } from './published-configs.ts';

const rates = { hbmBytesPerSecond: 4e12, operationsPerSecond: 2e15 };

/** Elements of V3.2's weights, by what a rank of T has of them. */
const perLayer = {
  query: 7168 * 1536,
  queryHeads: 1536 * 128 * 192,
  kv: 7168 * 576,
  kvHeads: 512 * 128 * 256,
  output: 128 * 128 * 7168,
  indexer: 1536 * 64 * 128 + 7168 * 128,
  indexerWeights: 7168 * 64,
};
const mlp = 3 * 7168;
const expert = mlp * 2048;
const head = 129_280 * 7168;
const gate = 256 * 7168;

/** One byte an element and 4 for the scale of each 128 x 128. */
const fp8 = (elements: number): number => elements * (1 + 4 / 128 ** 2);

function denseBytes(ranks: number): number {
  const { query, queryHeads, kv, kvHeads, output, indexer, indexerWeights } = perLayer;
  const whole = fp8(query + kv + indexer) + 2 * indexerWeights;
  const split = fp8(queryHeads + output) + 2 * kvHeads;
  const layers = 61 * (whole + split / ranks);
  const dense = (3 * fp8(mlp * 18_432)) / ranks;
  const experts = 58 * (2 * gate + fp8(expert) / ranks);
  return layers + dense + experts + (2 * head) / ranks;
}

function denseElements(): number {
  const attention = Object.values(perLayer).reduce((sum, elements) => sum + elements, 0);
  return 61 * attention + 3 * mlp * 18_432 + 58 * (gate + expert) + head;
}

async function floorsOf(published: object) {
  const { config, tensors } = await shapesOf(published);
  const numerics = chooseNumerics('fp8', config);
  return (layout: Layout, step: { streams: number; context: number }): StepFloor => {
    const rank = rankModel(config, tensors, { ...layout, drafts: true });
    const costs = stepCosts(config, rank, numerics);
    return stepFloor({ config, layout, costs, rates, ...step });
  };
}

const alone = { tensorParallel: 1, dataParallel: 1 };

describe('a step of one stream', () => {
  test.each([8, 2, 1])('in groups of %i ranks of eight', async (tensorParallel) => {
    const floorOf = await floorsOf(deepseekV32);
    const layout = { tensorParallel, dataParallel: 8 / tensorParallel };
    const floor = floorOf(layout, { streams: 1, context: 32_768 });
    const caches = 61 * (32_768 * 132 + 2048 * 656);
    const bytes = denseBytes(tensorParallel) + (58 * 8 * fp8(expert)) / 8 + caches;
    // Vectors are not in these sums.
    expect(floor.bytesMs / ((bytes / rates.hbmBytesPerSecond) * 1000)).toBeCloseTo(1, 3);
    expect(floor.ms).toBe(floor.bytesMs);
  });

  test('on one GPU, with all its operations', async () => {
    const floorOf = await floorsOf(deepseekV32);
    const floor = floorOf(alone, { streams: 1, context: 4096 });
    const attention = 61 * (2048 * 2 * 128 * 1088 + 4096 * 2 * 64 * 128);
    const operations = 2 * (denseElements() + 58 * 8 * expert) + attention;
    const ms = (operations / rates.operationsPerSecond) * 1000;
    expect(floor.operationsMs / ms).toBeCloseTo(1, 6);
  });

  test('without an indexer, over all tokens', async () => {
    const floorOf = await floorsOf(deepseekV3);
    const short = floorOf(alone, { streams: 1, context: 4096 });
    const long = floorOf(alone, { streams: 1, context: 32_768 });
    const more = (61 * (32_768 - 4096) * 656) / rates.hbmBytesPerSecond;
    expect((long.bytesMs - short.bytesMs) / (more * 1000)).toBeCloseTo(1, 6);
  });
});

test('a step of many streams reads each expert at most once, and caches for each stream', async () => {
  const floorOf = await floorsOf(deepseekV32);
  for (const tensorParallel of [8, 4, 2, 1]) {
    const layout = { tensorParallel, dataParallel: 8 / tensorParallel };
    for (const streams of [8, 100, 1000]) {
      const floor = floorOf(layout, { streams, context: 4096 });
      const rows = Math.ceil(streams / layout.dataParallel);
      const caches = rows * 61 * (4096 * 132 + 2048 * 656);
      const experts = (58 * 256 * fp8(expert)) / 8;
      const least = denseBytes(tensorParallel) + caches;
      const bytes = (floor.bytesMs * rates.hbmBytesPerSecond) / 1000;
      expect(bytes).toBeGreaterThan(least);
      expect(bytes).toBeLessThan((least + experts) * 1.001);
      if (streams === 1000) expect(bytes).toBeGreaterThan(least + experts * 0.999);
      expect(floor.tokensPerSecond).toBeCloseTo((streams / floor.ms) * 1000);
    }
  }
});

test('a step takes as long as the slower of reading and computing', async () => {
  const floorOf = await floorsOf(deepseekV32);
  const floors = [1, 64, 4096].map((streams) => floorOf(alone, { streams, context: 2048 }));
  for (const { ms, bytesMs, operationsMs } of floors) {
    expect(ms).toBe(Math.max(bytesMs, operationsMs));
  }
  expect(floors.map(({ ms }) => ms)).toEqual(floors.map(({ ms }) => ms).toSorted((a, b) => a - b));
});
