/** The demands that ops make of their arguments, the same on every backend. */
import { strict as assert } from 'node:assert';
import type { RopeTable, RotateOptions } from './row-ops.ts';
import type { RouteOptions } from './moe.ts';
import { scaleGroup } from './numerics.ts';
import type {
  CacheShape,
  ExpertMatrices,
  HeadShape,
  Matrix,
  Routing,
  Selection,
  Tensor,
  Vector,
} from './shapes.ts';
import type { HostTensor } from './weights.ts';

/** `tensor` has at least `rows` rows and exactly `columns` columns. */
export function checkTensor(tensor: Tensor, rows: number, columns: number): void {
  assert(rows <= tensor.rows, `${rows} rows do not fit a tensor of ${tensor.rows}`);
  assert(
    columns === tensor.columns,
    `a tensor has ${tensor.columns} columns where ${columns} are needed`,
  );
}

export function checkTensorShape(rows: number, columns: number): void {
  assert(rows > 0 && columns > 0, 'a tensor needs rows and columns');
}

/** Columns [start, start + count) are among those of the tensor. */
export function checkColumnsOf(tensor: Tensor, start: number, count: number): void {
  assert(
    start >= 0 && count > 0 && start + count <= tensor.columns,
    `columns ${start} to ${start + count} of a tensor that has ${tensor.columns}`,
  );
}

/** `vector` has exactly `length` elements. */
export function checkVector(vector: Vector, length: number): void {
  assert(
    vector.length === length,
    `${vector.name} has ${vector.length} elements where ${length} are needed`,
  );
}

/** A checkpoint tensor that is a matrix, with the bytes and scales of its shape and dtype. */
export function matrixShape(source: HostTensor): { outputs: number; inputs: number } {
  const [outputs = 0, inputs = 0] = source.shape;
  assert(source.shape.length === 2 && outputs > 0 && inputs > 0, `${source.name} is no matrix`);
  const elementBytes = { F32: 4, BF16: 2, F8_E4M3: 1 }[source.dtype];
  assert(
    source.bytes.byteLength === outputs * inputs * elementBytes,
    `${source.name} has ${source.bytes.byteLength} bytes, not those of its shape`,
  );
  const blocks = Math.ceil(outputs / scaleGroup) * Math.ceil(inputs / scaleGroup);
  const scales = source.dtype === 'F8_E4M3' ? blocks : undefined;
  assert(source.scales?.length === scales, `${source.name} has the wrong number of scales`);
  return { outputs, inputs };
}

type KvShape = Pick<HeadShape, 'heads' | 'nopeDim' | 'valueDim'>;

/** kv_b_proj [heads * (nope + value), latent] with so many outputs. */
export function checkKvOutputs(name: string, outputs: number, shape: KvShape): void {
  const { heads, nopeDim, valueDim } = shape;
  assert(
    outputs === heads * (nopeDim + valueDim),
    `${name} has ${outputs} outputs where ${heads} heads of ${nopeDim} + ${valueDim} are needed`,
  );
}

/** `kvB` expands the cached latents to keys and values of all heads. */
export function checkExpanded(
  kvB: Matrix,
  cache: CacheShape,
  shape: Omit<HeadShape, 'latentDim'>,
): void {
  const { heads, nopeDim, ropeDim, valueDim } = shape;
  assert(
    kvB.inputs === cache.latentDim && kvB.outputs === heads * (nopeDim + valueDim),
    `${kvB.name} does not expand the cached latents to ${heads} heads`,
  );
  assert(ropeDim === cache.ropeDim, 'the rope part is not as wide as in the caches');
}

/** The rope part of a query's head, behind `nopeDim` columns. */
export function ropeDimOf(queries: Tensor, heads: number, nopeDim: number): number {
  const ropeDim = queries.columns / heads - nopeDim;
  assert(Number.isInteger(ropeDim) && ropeDim >= 0, 'the queries do not fit the heads');
  return ropeDim;
}

export function checkSelectionRows(selection: Selection, rows: number): void {
  assert(rows <= selection.rows, `${rows} rows do not fit a selection of ${selection.rows}`);
}

export function checkSelectionWidth(width: number): void {
  assert(width > 0, 'a selection needs a width');
}

export function checkIndexDim(cache: CacheShape, dim: number): void {
  assert(dim === cache.indexDim, 'the queries do not have the width of the index keys');
}

export function checkIndexKeys(cache: CacheShape): void {
  assert(cache.indexDim > 0, 'the caches were made without index keys');
}

export function checkRoutingRows(routing: Routing, rows: number): void {
  assert(rows <= routing.rows, `${rows} rows do not fit a routing of ${routing.rows}`);
}

/** The gate of `experts` experts in groups can choose `perToken` of them. */
export function checkGroups(experts: number, perToken: number, options: RouteOptions): void {
  const { groups, groupsKept } = options;
  assert(
    groups >= 1 && experts % groups === 0 && groupsKept >= 1 && groupsKept <= groups,
    `${experts} experts do not form ${groups} groups of which ${groupsKept} are kept`,
  );
  const eligible = (experts / groups) * groupsKept;
  assert(perToken <= eligible, `a token can't go to ${perToken} of ${eligible} experts`);
}

/** All experts of a layer have the shapes of the first one. */
export function checkExperts(experts: readonly ExpertMatrices[]): {
  hidden: number;
  inner: number;
} {
  const [first] = experts;
  assert(first !== undefined, 'there are no experts');
  const { inputs: hidden, outputs: inner } = first.gate;
  for (const { gate, up, down } of experts) {
    for (const matrix of [gate, up]) checkExpertMatrix(matrix, inner, hidden);
    checkExpertMatrix(down, hidden, inner);
  }
  return { hidden, inner };
}

function checkExpertMatrix(matrix: Matrix, outputs: number, inputs: number): void {
  assert(
    matrix.inputs === inputs && matrix.outputs === outputs,
    `${matrix.name} does not fit the other experts`,
  );
}

/** The number of positions of a rope table, and half of the width that it rotates. */
export function ropeShape(table: RopeTable): { positions: number; half: number } {
  const half = table.dim / 2;
  assert(Number.isInteger(half) && half > 0, 'the rotated part must have an even width');
  const positions = table.cos.length / half;
  assert(
    Number.isInteger(positions) && table.sin.length === table.cos.length,
    'the rope table does not have the width that it names',
  );
  return { positions, half };
}

/** Columns of a head of `x`, in which the rotated part lies. */
export function rotatedWidth(x: Tensor, options: RotateOptions, half: number): number {
  const width = x.columns / options.heads;
  assert(
    Number.isInteger(width) && options.start >= 0 && options.start + 2 * half <= width,
    'the rotated part lies outside the heads',
  );
  return width;
}

export function checkRotatedRows(rows: number, stepRows: number): void {
  assert(rows <= stepRows, 'rotate has more rows than the batch has positions');
}

export function checkHadamard(dim: number): void {
  assert(
    Number.isInteger(dim) && Number.isInteger(Math.log2(dim)),
    `the Hadamard transform needs a power of two, not ${dim}`,
  );
}

export function checkGathered(x: Tensor, rowIndices: Int32Array, rowsMax: number): void {
  assert(rowIndices.length <= rowsMax, `${rowIndices.length} rows to gather; ${rowsMax} fit`);
  assert(
    rowIndices.every((row) => row >= 0 && row < x.rows),
    'a row to gather is not in the tensor',
  );
}

/** All caches of a backend share their block numbers. */
export function checkSameBlocks(known: CacheShape | null, shape: CacheShape): void {
  assert(
    known === null || known.blocks === shape.blocks,
    'all caches of a backend must have the same number of blocks',
  );
}

export function checkBlock(block: number, blocks: number): void {
  assert(block >= 0 && block < blocks, 'a block table names a block that there is not');
}
