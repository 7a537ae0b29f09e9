/**
 * Absorbed attention by 64 heads in a block of the kernel: the published models' 128 heads, two
 * blocks or a cluster, and 64.
 */
import { testHeads } from '../../../../support/gpu/sparse-case.ts';

await testHeads(128, {
  compared: [1, 2, 4, 5, 8, 9, 16, 17, 32, 33],
  repeated: [1, 8, 16, 32, 40],
  alike: [
    [3, 4],
    [5, 8],
    [9, 16],
    [17, 32],
    [33, 50],
  ],
  whole: 33,
});
await testHeads(64, {
  compared: [3, 40, 65],
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
