/**
 * Prefill with expanded keys and values by heads of 192 + 64 dimensions and values of 256, as GLM
 * has them, against the cpu backend.
 */
import { headOf256, seed, testExpanded } from '../../../../support/gpu/dense-case.ts';

console.log(`seed ${seed}`);

await testExpanded([
  {
    name: '64 heads of 256',
    heads: 64,
    head: headOf256,
    sequences: [{ context: 330, rows: 130 }],
  },
  {
    name: 'heads of 256, ragged sequences',
    heads: 8,
    head: headOf256,
    sequences: [
      { context: 1, rows: 1 },
      { context: 63, rows: 63 },
      { context: 65, rows: 2 },
      { context: 257, rows: 129 },
      { context: 192, rows: 192 },
      { context: 129, rows: 65 },
    ],
  },
  ...[-1, 0, 1].map((more) => ({
    name: `heads of 256, passes of 256 tokens, ${512 + more} tokens`,
    heads: 4,
    head: headOf256,
    sequences: [
      { context: 100, rows: 3 },
      { context: 512 + more, rows: 400 },
    ],
    pass: 256,
    steep: 2,
  })),
]);
