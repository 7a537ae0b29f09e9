/**
 * Which kernel on the matrix unit computes a product, and in which tiles: sm90-gemm.cu for many rows,
 * sm90-gemm-few.cu for few. Both sum in an order that the weight's shape alone decides, so a row has
 * the same bits whatever the choice (kernels/sm90-gemm.md).
 */

/** Rows of a tile of sm90-gemm.cu, of gemm-f32.cu, and what sm90-gemm-few.cu may have. */
export const manyTileRows = 128;
export const plainTileRows = 64;
export const fewTileRows = [8, 16, 32, 64, 128] as const;
const fewRowsMax = 128;
/** Bytes of inputs in a stage, of a row of a box. */
const stageBytes = 128;
/** Outputs of a warpgroup of sm90-gemm-few.cu. */
const fewOutputs = 64;
/** Blocks that a weight should give sm90-gemm-few.cu, so that enough copies are in flight. */
const fewBlocks = 192;
const runsMax = 8;

export interface ProductShape {
  readonly fp8: boolean;
  readonly rows: number;
  readonly outputs: number;
  readonly inputs: number;
  readonly batches: number;
  /** Tiles of a list that the device made; null if the rows are in order. */
  readonly grouped: { readonly tileRows: number; readonly tilesMax: number } | null;
}

export interface ProductPlan {
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

export function planProduct(shape: ProductShape, multiprocessors: number): ProductPlan {
  const { rows, grouped } = shape;
  const few = (grouped?.tileRows ?? rows) <= fewRowsMax && grouped?.tileRows !== manyTileRows;
  return few ? planFew(shape) : planMany(shape, multiprocessors);
}

function planMany(shape: ProductShape, multiprocessors: number): ProductPlan {
  const { fp8, rows, outputs, batches, grouped } = shape;
  const kSplit = runsOf(shape);
  // Narrow tiles where wide ones would leave multiprocessors idle; wide ones where registers allow.
  const kColumns = outputs <= 640 ? 64 : fp8 || kSplit > 1 ? 128 : 256;
  const rowTiles = grouped?.tilesMax ?? Math.ceil(rows / manyTileRows);
  const stages = { 64: 8, 128: 6, 256: 4 }[kColumns];
  const items = rowTiles * Math.ceil(outputs / (2 * kColumns)) * batches;
  const scaleBytes = fp8 ? manyTileRows * 4 + 16 : 0;
  return {
    kernel: {
      program: 'sm90Gemm',
      name: 'sm90_gemm',
      defines: { kFp8: fp8 ? 1 : 0, kColumns, kSplit },
    },
    // Clusters of two blocks take item after item.
    grid: [2 * Math.min(items, Math.floor(multiprocessors / 2)), 1, 1],
    threads: 384,
    sharedBytes: stages * ((manyTileRows + kColumns) * stageBytes + scaleBytes + 16),
    rowTiles,
    boxRows: 64,
  };
}

function planFew(shape: ProductShape): ProductPlan {
  const { fp8, rows, outputs, batches, grouped } = shape;
  const kSplit = runsOf(shape);
  const wanted = grouped?.tileRows ?? rows;
  const kTileRows = fewTileRows.find((most) => wanted <= most) ?? fewRowsMax;
  const groups = kTileRows >= 64 ? 2 : 1;
  const rowTiles = grouped?.tilesMax ?? Math.ceil(rows / kTileRows);
  const stages = { 8: 8, 16: 7, 32: 6, 64: 4, 128: 6 }[kTileRows];
  const scaleBytes = fp8 ? kTileRows * 4 + 16 : 0;
  return {
    kernel: {
      program: 'sm90GemmFew',
      name: 'sm90_gemm_few',
      defines: { kFp8: fp8 ? 1 : 0, kTileRows, kSplit },
    },
    grid: [Math.ceil(outputs / (fewOutputs * groups)) * kSplit, rowTiles, batches],
    threads: 128 * groups + 32,
    sharedBytes: stages * ((fewOutputs * groups + kTileRows) * stageBytes + scaleBytes + 16),
    rowTiles,
    boxRows: kTileRows,
  };
}

/** Runs of inputs that are summed apart: of the weight's shape alone, never of the rows. */
function runsOf({ fp8, outputs, inputs, batches, grouped }: ProductShape): number {
  if (batches > 1 || grouped !== null) return 1;
  const stages = Math.ceil((inputs * (fp8 ? 1 : 2)) / stageBytes);
  const blocks = Math.ceil(outputs / fewOutputs);
  let runs = 1;
  while (runs < runsMax && runs * blocks < fewBlocks && stages >= 4 * runs) runs *= 2;
  return runs;
}
