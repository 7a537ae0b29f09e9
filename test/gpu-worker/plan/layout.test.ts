import { describe, expect, test } from 'vitest';
import type { CheckpointShapes } from '../../../gpu-worker/plan/checkpoint-shapes.ts';
import { layoutFault, layoutsOf, rankModel } from '../../../gpu-worker/plan/layout.ts';
import { elementsOf } from '../../../gpu-worker/plan/model-memory.ts';
import { shapesOf } from './planned.ts';
import { deepseekV32 } from './published-configs.ts';

const isExpert = (name: string): boolean => name.includes('.mlp.experts.');
const isCopy = (name: string): boolean => /\.61\.(embed_tokens|shared_head\.head)\./.test(name);
/** A group's ranks share these, each with its part. */
const shared = ['q_b_proj', 'kv_b_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj', 'lm_head'];
const isShared = (name: string): boolean =>
  [...shared, 'embed_tokens'].some((part) => name.endsWith(`${part}.weight`));

describe('the ranks of a layout have together what the model has', () => {
  test.each([
    [8, 1],
    [2, 4],
    [1, 8],
  ])('T%i x D%i', async (tensorParallel, dataParallel) => {
    const { config, tensors } = await shapesOf(deepseekV32);
    const layout = { tensorParallel, dataParallel, drafts: true };
    expect(layoutFault(config, tensors, layout)).toBe(null);
    const rank = rankModel(config, tensors, layout);
    const own = new Map(
      [...rank.tensors, ...rank.draftTensors].map((tensor) => [tensor.name, elementsOf(tensor)]),
    );
    const experts = tensors.filter(({ name }) => isExpert(name));
    const ownExperts = [...own.keys()].filter(isExpert);
    expect(ownExperts.length * tensorParallel * dataParallel).toBe(experts.length);
    for (const tensor of tensors.filter(({ name }) => !isExpert(name) && !isCopy(name))) {
      const parts = isShared(tensor.name) ? tensorParallel : 1;
      expect([tensor.name, (own.get(tensor.name) ?? 0) * parts]).toEqual([
        tensor.name,
        elementsOf(tensor),
      ]);
    }
    expect([...own.keys()].filter(isCopy)).toEqual([]);
    expect(rank.config).toMatchObject({
      layers: 62,
      vocabSize: 129_280 / tensorParallel,
      attention: { heads: 128 / tensorParallel },
      experts: { count: 32 },
    });
  });

  test('the MTP layer is left out where it is not asked for', async () => {
    const { config, tensors } = await shapesOf(deepseekV32);
    const alone = { tensorParallel: 1, dataParallel: 1, drafts: false };
    const rank = rankModel(config, tensors, alone);
    expect(rank.draftTensors).toEqual([]);
    expect(rank.tensors.filter(({ name }) => name.startsWith('model.layers.61.'))).toEqual([]);
    expect(rank.config).toEqual(config);
  });
});

test('layouts go from all ranks in one group to as many groups', () => {
  expect(layoutsOf(4)).toEqual([
    { tensorParallel: 4, dataParallel: 1 },
    { tensorParallel: 2, dataParallel: 2 },
    { tensorParallel: 1, dataParallel: 4 },
  ]);
});

describe('what does not divide by the ranks is named', () => {
  const heads = (count: number) => ({ num_attention_heads: count, num_key_value_heads: count });
  const cases: [string, object, string][] = [
    ['heads', heads(12), 'num_attention_heads = 12 does not divide by 8'],
    [
      'experts',
      { n_routed_experts: 36, n_group: 1, topk_group: 1 },
      'n_routed_experts = 36 does not divide by 8',
    ],
    ['vocabulary', { vocab_size: 129_281 }, 'vocab_size = 129281 does not divide by 8'],
    [
      'scales of an MLP',
      { intermediate_size: 18_304 },
      'intermediate_size = 18304 does not divide by 8 in whole blocks of 128 scales',
    ],
  ];
  test.each(cases)('%s', async (_what, changed, fault) => {
    const { config, tensors }: CheckpointShapes = await shapesOf({ ...deepseekV32, ...changed });
    expect(layoutFault(config, tensors, { tensorParallel: 8, dataParallel: 1 })).toBe(fault);
  });
});
