/**
 * Chooses the kernel on the tensor cores that computes a product, and its tiles: sm90-gemm.cu for
 * many rows, sm90-gemm-few.cu for few. Both sum in an order that the weight's shape alone decides,
 * so a row has the same bits whatever the choice (kernels/sm90-gemm.md).
 */

/** Rows of a tile of experts' products in sm90-gemm.cu, of gemm-f32.cu, and of sm90-gemm-few.cu. */
export const manyTileRows = 192;
export const plainTileRows = 64;
export const fewTileRows = [8, 16, 32, 64] as const;
const fewRowsMax = 64;
/** Tiles of sm90-gemm.cu: warpgroups of 64 rows, outputs, and buffers that fit shared memory. */
const tile64 = { kGroups: 2, kColumns: 64, stages: 8 };
const tile128 = { kGroups: 2, kColumns: 128, stages: 6 };
const tile256 = { kGroups: 2, kColumns: 256, stages: 4 };
const tall128 = { kGroups: 3, kColumns: 128, stages: 5 };
/**
 * Cycles of an SM: of its tensor cores for a row by an output of a stage, of what reaches it
 * of memory for a row or an output, of a tile beside its stages.
 */
const cycles = { product: 1 / 32, row: 128 / 42, tile: 1500 };
/** Bytes of inputs in a stage, of a row of a box. */
const stageBytes = 128;
/** Outputs of a warpgroup of sm90-gemm-few.cu. */
const fewOutputs = 64;
/**
 * Blocks of sm90-gemm-few.cu that keep enough copies in flight; a weight that has fewer is split.
 */
const wholeBlocks = 112;
const fewBlocks = 192;
const runsMax = 8;

export interface GemmShape {
  readonly fp8: boolean;
  readonly rows: number;
  readonly outputs: number;
  readonly inputs: number;
  readonly batches: number;
  /** Tiles of a list that the device made; null if the rows are in order. */
  readonly grouped: { readonly tileRows: number; readonly tilesMax: number } | null;
}

export interface GemmPlan {
  readonly kernel: {
    readonly program: 'sm90Gemm' | 'sm90GemmFew';
    readonly name: string;
    readonly defines: Readonly<Record<string, number>>;
  };
  readonly grid: readonly [number, number, number];
  readonly threads: number;
  readonly sharedBytes: number;
  readonly rowTiles: number;
  /** Rows of a box of x. */
  readonly boxRows: number;
}

export function planGemm(shape: GemmShape, smCount: number): GemmPlan {
  const { rows, grouped } = shape;
  // A narrow weight gives sm90-gemm.cu too few tiles: two tiles of few rows are sooner done.
  const most = runsOf(shape) >= 4 ? 2 * fewRowsMax : fewRowsMax;
  const few = (grouped?.tileRows ?? rows) <= most;
  return few ? planFew(shape) : planMany(shape, smCount);
}

function planMany(shape: GemmShape, smCount: number): GemmPlan {
  const { fp8, rows, outputs, batches, grouped } = shape;
  const kSplit = runsOf(shape);
  const clusters = Math.floor(smCount / 2);
  const plans = manyTiles(shape, kSplit).map((tile) => {
    const { kGroups, kColumns } = tile;
    const rowTiles = grouped?.tilesMax ?? Math.ceil(rows / (64 * kGroups));
    const items = rowTiles * Math.ceil(outputs / (2 * kColumns)) * batches;
    const tileRows = 64 * kGroups;
    const { product, row } = cycles;
    const stage = Math.max(tileRows * kColumns * product, (tileRows + kColumns) * row);
    const cost = Math.ceil(items / clusters) * (stagesOf(shape) * stage + cycles.tile);
    return { ...tile, rowTiles, items, cost };
  });
  const plan = plans.reduce((best, other) => (other.cost < best.cost ? other : best));
  const { kGroups, kColumns, stages, rowTiles, items } = plan;
  const tileRows = 64 * kGroups;
  const scaleBytes = fp8 ? tileRows * 4 + 32 : 0;
  const sharedBytes =
    stages * ((tileRows + kColumns) * stageBytes + scaleBytes + 16) + outBytes(kGroups);
  const tile = { kFp8: fp8 ? 1 : 0, kColumns, kSplit, kGroups };
  return {
    kernel: {
      program: 'sm90Gemm',
      name: 'sm90_gemm',
      defines: { ...tile, kStages: stages, kSharedBytes: sharedBytes },
    },
    // Clusters of two blocks take item after item.
    grid: [2 * Math.min(items, clusters), 1, 1],
    threads: 128 * (kGroups + 1),
    sharedBytes,
    rowTiles,
    boxRows: tileRows / 2,
  };
}

/** Bytes through which warps take sums to memory, from a multiple of 128 on. */
function outBytes(groups: number): number {
  return 128 + groups * 4 * 1024;
}

/** The tiles that registers allow: sums of e4m3 have parts beside, and so have sums of runs. */
function manyTiles({ fp8, grouped }: GemmShape, kSplit: number) {
  if (grouped !== null) return [tall128];
  if (kSplit > 1) return [tile128, tile64];
  return fp8 ? [tall128, tile128, tile64] : [tile256, tile128, tile64];
}

function planFew(shape: GemmShape): GemmPlan {
  const { fp8, rows, outputs, batches, grouped } = shape;
  const kSplit = runsOf(shape);
  const wanted = grouped?.tileRows ?? rows;
  const kTileRows = fewTileRows.find((most) => wanted <= most) ?? fewRowsMax;
  // A block of two warpgroups reads x half as often, if there are blocks enough.
  const kGroups = kTileRows === 64 && outputs >= 2 * fewOutputs * wholeBlocks ? 2 : 1;
  const rowTiles = grouped?.tilesMax ?? Math.ceil(rows / kTileRows);
  const stages = { 8: 8, 16: 7, 32: 6, 64: 4 }[kTileRows];
  const scaleBytes = fp8 ? kTileRows * 4 + 32 : 0;
  const stage = (fewOutputs * kGroups + kTileRows) * stageBytes + scaleBytes + 16;
  const tile = { kFp8: fp8 ? 1 : 0, kTileRows, kSplit, kGroups };
  const sharedBytes = stages * stage;
  return {
    kernel: {
      program: 'sm90GemmFew',
      name: 'sm90_gemm_few',
      defines: { ...tile, kStages: stages, kSharedBytes: sharedBytes },
    },
    grid: [Math.ceil(outputs / (fewOutputs * kGroups)) * kSplit, rowTiles, batches],
    threads: 128 * kGroups + 32,
    sharedBytes,
    rowTiles,
    boxRows: kTileRows,
  };
}

function stagesOf({ fp8, inputs }: GemmShape): number {
  return Math.ceil((inputs * (fp8 ? 1 : 2)) / stageBytes);
}

/** Runs of inputs that are summed apart: of the weight's shape alone, never of the rows. */
function runsOf(shape: GemmShape): number {
  const { outputs, batches, grouped } = shape;
  const blocks = Math.ceil(outputs / fewOutputs);
  if (batches > 1 || grouped !== null || blocks >= wholeBlocks) return 1;
  const stages = stagesOf(shape);
  let runs = 1;
  while (runs < runsMax && runs * blocks < fewBlocks && stages >= 4 * runs) runs *= 2;
  return runs;
}
