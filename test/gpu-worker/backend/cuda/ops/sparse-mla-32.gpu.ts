/**
 * Absorbed attention by few heads in a block of the kernel: 32, as ranks of a model have, and 24,
 * which three blocks take.
 */
import { testHeads } from '../../../../support/gpu/sparse-case.ts';

await testHeads(32, {
  compared: [1, 5, 16, 17, 33, 64, 65],
  repeated: [1, 16, 70],
  alike: [
    [3, 4],
    [9, 16],
    [33, 50],
    [65, 80],
  ],
  whole: 65,
});
await testHeads(24, { compared: [3, 70], repeated: [40], alike: [[5, 8]], whole: 65 });
