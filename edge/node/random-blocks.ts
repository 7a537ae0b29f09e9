/** Random bytes from the system, drawn in blocks: a draw costs the same for 16 bytes or 4,096. */
import { randomBytes } from 'node:crypto';
import type { Services } from '../services.ts';

const blockBytes = 4_096;

export function randomBlocks(): Services['random'] {
  let block = new Uint8Array();
  let used = 0;
  return {
    bytes(count) {
      if (count > blockBytes) return randomBytes(count);
      if (used + count > block.length) {
        block = randomBytes(blockBytes);
        used = 0;
      }
      used += count;
      // A copy, so that what is kept of it does not keep the block.
      return block.slice(used - count, used);
    },
  };
}
