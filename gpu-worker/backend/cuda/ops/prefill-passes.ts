/** Plans which tokens of a batch are expanded together, and which rows then attend to them. */
import { strict as assert } from 'node:assert';
import { missing } from '../../../at.ts';
import type { PlacedRows } from '../step.ts';

/** Rows of a tile, and buffer rows of a block, of sm90-dense-mha.cu. */
const tileRows = 128;
const blockTokens = 128;
const [continues, ends] = [1, 2];

export interface Pass {
  /** Rows of the buffer, whole blocks. */
  readonly tokens: number;
  /** Address where [tokens / 128, 4] i32 start: block table, first position, tokens, unused. */
  readonly blocks: number;
  /** Address where [tileCount, 8] i32 start: the kernel's MhaTile. */
  readonly tiles: number;
  readonly tileCount: number;
}

export interface PassPlan {
  readonly passes: readonly Pass[];
  /** Blocks and tiles of all passes; `Pass` names places in here. */
  readonly words: Int32Array;
}

/** Tokens [start, start + tokens) of a sequence, from row `at` of the buffer on. */
interface Segment {
  readonly sequence: PlacedRows;
  readonly start: number;
  readonly tokens: number;
  readonly at: number;
}

/**
 * Fills passes of at most `capacity` tokens (whole blocks) with sequences. One that does not fit
 * what is left of a pass begins the next, so that where its passes end depends on itself alone.
 * @param positions [rows] of the batch
 */
export function planPasses(
  sequences: readonly PlacedRows[],
  positions: Int32Array,
  capacity: number,
): PassPlan {
  assert(capacity > 0 && capacity % blockTokens === 0, 'a pass holds whole blocks');
  const filled: Segment[][] = [];
  let used = capacity;
  for (const sequence of sequences) {
    for (let start = 0; start < sequence.tokens; start += capacity) {
      const tokens = Math.min(capacity, sequence.tokens - start);
      const rounded = Math.ceil(tokens / blockTokens) * blockTokens;
      if (used + rounded > capacity) {
        filled.push([]);
        used = 0;
      }
      filled.at(-1)?.push({ sequence, start, tokens, at: used });
      used += rounded;
    }
  }
  const words: number[] = [];
  const passes = filled.map((segments) => {
    const blocks = words.length;
    for (const segment of segments) pushBlocks(words, segment);
    const tiles = words.length;
    for (const segment of segments) pushTiles(words, segment, positions);
    return {
      tokens: ((tiles - blocks) / 4) * blockTokens,
      blocks,
      tiles,
      tileCount: (words.length - tiles) / 8,
    };
  });
  return { passes, words: Int32Array.from(words) };
}

function pushBlocks(words: number[], { sequence, start, tokens }: Segment): void {
  for (let at = 0; at < tokens; at += blockTokens) {
    words.push(sequence.tableStart, start + at, Math.min(blockTokens, tokens - at), 0);
  }
}

/** The longest first: rows further on see more. Rows that see none of these tokens have ended. */
function pushTiles(words: number[], segment: Segment, positions: Int32Array): void {
  const { sequence, start, tokens, at } = segment;
  const { rowStart, rowCount } = sequence;
  const tiles: number[][] = [];
  for (let row = 0; row < rowCount; row += tileRows) {
    const rows = Math.min(tileRows, rowCount - row);
    const last = positions[rowStart + row + rows - 1] ?? missing();
    if (last < start) continue;
    const blocks = Math.ceil(Math.min(last + 1 - start, tokens) / blockTokens);
    const flags = (start > 0 ? continues : 0) | (last < start + tokens ? ends : 0);
    tiles.push([rowStart + row, rows, at, start, blocks, flags, 0, 0]);
  }
  for (const tile of tiles.toReversed()) words.push(...tile);
}
