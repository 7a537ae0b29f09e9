import { expect, test } from 'vitest';
import { formatMemoryPlan, planMemory } from '../../../gpu-worker/engine/memory-plan.ts';
import type { PlanOptions } from '../../../gpu-worker/engine/memory-plan.ts';

const mib = 2 ** 20;

function options(changes: Partial<PlanOptions> = {}): PlanOptions {
  return {
    memory: {
      weightBytes: 100 * mib,
      activationBytes: 50 * mib,
      cacheBytes: 0,
      limitBytes: 450 * mib,
      reservedBytes: 0,
    },
    blockBytes: mib,
    contextLength: 4096,
    stepTokensMax: 512,
    mixedTokensMax: 64,
    sequencesMax: 16,
    waitingMax: 128,
    cacheTokensMax: null,
    ...changes,
  };
}

test('the cache gets whole blocks of what weights and activations leave', () => {
  expect(planMemory(options())).toMatchObject({
    blocks: 300,
    blockTokens: 64,
    cacheBytes: 300 * mib,
    bytesPerToken: mib / 64,
    stepTokensMax: 512,
    mixedTokensMax: 64,
    sequencesMax: 16,
    waitingMax: 128,
  });
  expect(planMemory(options({ mixedTokensMax: 600 })).mixedTokensMax).toBe(512);
  expect(planMemory(options({ blockBytes: 7 * mib })).blocks).toBe(42);
});

test('the cache may be capped in tokens, to whole blocks', () => {
  expect(planMemory(options({ cacheTokensMax: 2000 })).blocks).toBe(31);
});

test('a model that leaves too little is refused with all the figures', () => {
  expect(() => planMemory(options({ blockBytes: 20 * mib }))).toThrow(
    'the model does not fit: its cache needs at least 16 blocks of 64 tokens (320.0 MiB), but of ' +
      '450.0 MiB the weights take 100.0 MiB and the activations 50.0 MiB, which leaves 15 blocks',
  );
  const tooBig = { weightBytes: 900 * mib, activationBytes: 0, cacheBytes: 0, reservedBytes: 0 };
  expect(() => planMemory(options({ memory: { ...tooBig, limitBytes: mib } }))).toThrow(
    'which leaves 0 blocks',
  );
  expect(() => planMemory(options({ cacheTokensMax: 100 }))).toThrow(
    'the cache is limited to 100 tokens',
  );
});

test('a short context needs no more than itself', () => {
  expect(planMemory(options({ contextLength: 100, cacheTokensMax: 128 })).blocks).toBe(2);
});

test('a step that cannot hold a token for each sequence is refused', () => {
  expect(() => planMemory(options({ stepTokensMax: 8 }))).toThrow('one for each of 16 sequences');
  expect(() => planMemory(options({ mixedTokensMax: 8 }))).toThrow('one for each of 16 sequences');
});

test('the plan prints as aligned lines', () => {
  expect(formatMemoryPlan(planMemory(options())).split('\n')).toEqual([
    'weights       100.0 MiB',
    'activations    50.0 MiB   512 tokens a step',
    'cache         300.0 MiB   19,200 tokens, 300 blocks, 16,384 bytes a token',
    'limit         450.0 MiB',
    'sequences            16   128 more may wait',
  ]);
});

test('what a GPU keeps beside the limit is a line of the plan', () => {
  const { memory } = options();
  const plan = planMemory(options({ memory: { ...memory, reservedBytes: 1280 * mib } }));
  expect(formatMemoryPlan(plan).split('\n')).toContain(
    'reserved       1.25 GiB   CUDA graphs, the driver, what ops take at their first call',
  );
});
