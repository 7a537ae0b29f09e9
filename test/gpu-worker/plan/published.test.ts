/** Plans of the published models, against what is known of them. */
import { beforeAll, describe, expect, test } from 'vitest';
import { weightBytes } from '../../../gpu-worker/plan/model-memory.ts';
import type { CheckpointShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import type { LayoutPlan, MachinePlan } from '../../../gpu-worker/plan/plan.ts';
import { planOn, shapesOf } from './planned.ts';
import { deepseekV3, deepseekV32, glm5, glm52 } from './published-configs.ts';

/**
 * Bytes published of the checkpoint, and bytes a token of latents and index keys in fp8. DeepSeek
 * counts the MTP layer in (685 billion parameters), GLM does not (744 billion).
 */
const models = [
  [
    'DeepSeek-V3.2',
    deepseekV32,
    { bytes: 685e9, with: 'MTP', latents: 61 * 656, indexKeys: 61 * 132 },
  ],
  ['DeepSeek-V3', deepseekV3, { bytes: 685e9, with: 'MTP', latents: 61 * 656, indexKeys: 0 }],
  ['GLM-5', glm5, { bytes: 745e9, with: 'no MTP', latents: 78 * 656, indexKeys: 78 * 132 }],
  ['GLM-5.2', glm52, { bytes: 745e9, with: 'no MTP', latents: 78 * 656, indexKeys: 21 * 132 }],
] as const;

const sizeOf = ({ memory }: LayoutPlan): number => memory?.weights ?? NaN;

describe.each(models)('%s', (_name, config, published) => {
  test('has the published size within a percent', async () => {
    const { tensors } = await shapesOf(config);
    const counted = tensors.filter(({ use }) => use === 'needed' || published.with === 'MTP');
    const bytes = counted.reduce((sum, tensor) => sum + weightBytes(tensor), 0);
    expect(bytes / published.bytes).toBeGreaterThan(0.99);
    expect(bytes / published.bytes).toBeLessThan(1.01);
  });

  test('keeps the published bytes of each token, and does not fit one GPU', async () => {
    const { latents, indexKeys } = published;
    const plan = planOn(await shapesOf(config), { gpus: 1 });
    expect(plan.layouts).toMatchObject([
      {
        cacheBytesPerToken: { latents, indexKeys },
        tokens: { perGpu: 0, perMachine: 0 },
        fault: 'weights and arena leave no room for a cache',
      },
    ]);
    expect(plan).toMatchObject({ isServed: true, draftLayers: 0, advice: null });
  });
});

describe('DeepSeek-V3.2 on eight H200', () => {
  let shapes: CheckpointShapes;
  let plan: MachinePlan;

  beforeAll(async () => {
    shapes = await shapesOf(deepseekV32);
    plan = planOn(shapes, { gpus: 8 });
  });

  test('fits in every layout', () => {
    const names = plan.layouts.map(
      ({ tensorParallel, dataParallel }) => `${tensorParallel} ${dataParallel}`,
    );
    expect(names).toEqual(['8 1', '4 2', '2 4', '1 8']);
    for (const { fault, tokens, steps } of plan.layouts) {
      expect(fault).toBe(null);
      expect(tokens?.perGpu).toBeGreaterThan(500_000);
      expect(steps.map(({ context }) => context)).toEqual([4096, 32_768, 131_072]);
    }
  });

  test('has its weights once over ranks, but for what every group or rank needs', () => {
    const sizes = plan.layouts.map(sizeOf);
    expect(sizes).toEqual(sizes.toSorted((a, b) => a - b));
    const [allRanks = NaN] = sizes;
    const groups = sizes.at(-1) ?? NaN;
    // Experts, by far the most, lie on one GPU each; a group more has all but those once more.
    expect(allRanks * 8).toBeGreaterThan(685e9);
    expect(allRanks * 8).toBeLessThan(685e9 * 1.04);
    expect((groups - allRanks) / 1e9).toBeGreaterThan(13);
    expect((groups - allRanks) / 1e9).toBeLessThan(20);
  });

  test('is advised to split its heads for latency, and its requests for throughput', () => {
    expect(plan.advice).toMatchObject({
      context: 32_768,
      latency: { layout: { tensorParallel: 8, dataParallel: 1 } },
      throughput: { layout: { tensorParallel: 1, dataParallel: 8 } },
    });
    expect(plan).toMatchObject({ isServed: false, draftLayers: 1 });
  });

  test('is measured by others to be no faster than its floors', () => {
    // One stream without drafts takes 12.4 ms a token, and all GPUs make 27,713 tokens a second.
    expect(plan.advice?.latency.floor.ms).toBeLessThan(12.4);
    const busiest = plan.layouts.flatMap(({ steps }) =>
      steps.map(({ allStreams }) => allStreams?.tokensPerSecond ?? 0),
    );
    expect(Math.max(...busiest)).toBeGreaterThan(27_713);
  });
});

test('GLM-5.2 fits eight H200 in every layout, and reads a quarter of the index keys', async () => {
  const all = planOn(await shapesOf(glm5), { gpus: 8 });
  const shared = planOn(await shapesOf(glm52), { gpus: 8 });
  expect(shared.layouts.map(({ fault }) => fault)).toEqual([null, null, null, null]);
  const read = [all, shared].map((plan) => {
    const steps = plan.layouts[0]?.steps ?? [];
    return (steps[2]?.oneStream.bytesMs ?? NaN) - (steps[1]?.oneStream.bytesMs ?? NaN);
  });
  expect((read[1] ?? NaN) / (read[0] ?? NaN)).toBeCloseTo(21 / 78, 6);
});
