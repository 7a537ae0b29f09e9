/**
 * Absorbed attention by few heads in a block of the kernel: 8 and 16, as ranks of a model have.
 */
import { testHeads } from '../../../../support/gpu/sparse-case.ts';

for (const heads of [8, 16]) {
  await testHeads(heads, {
    compared: [1, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65],
    repeated: [1, 8, 16, 32, 70],
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
