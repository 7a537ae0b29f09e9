/**
 * Absorbed attention by few heads in a block of the kernel: 8, 16 and 32, as ranks of a model have,
 * and 24, which three blocks take.
 */
import { testHeads } from '../../../../support/gpu/sparse-case.ts';

for (const heads of [8, 16, 32, 24]) {
  await testHeads(heads, {
    compared: heads === 24 ? [3, 70] : [1, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65],
    repeated: [1, 8, 16, 32, 40, 70],
    alike: [
      [3, 4],
      [5, 8],
      [9, 16],
      [17, 32],
      [33, 50],
      [65, 80],
    ],
    whole: 65,
  });
}
