/**
 * The part of a model that one of several ranks has: T ranks share the heads of a group's
 * attention, D groups have requests and caches of their own, and the experts are spread over all
 * T x D ranks. Dense MLP, shared expert, embedding and head are split over the T ranks of a group;
 * whatever makes latents, selections and routes is there whole on every rank.
 */
import { strict as assert } from 'node:assert';
import { at } from '../../at.ts';
import { scaleGroup } from '../../backend/numerics.ts';
import type { HostTensor } from '../../backend/weights.ts';

export interface Layout {
  /** T: ranks that share a group's heads. */
  readonly tensorParallel: number;
  /** D: groups with requests of their own. */
  readonly dataParallel: number;
}

export interface ShardOptions extends Layout {
  /** The rank among all T x D; those of a group are neighbours. */
  readonly rank: number;
  /** Routed experts of a layer; 0 without. */
  readonly experts: number;
}

/**
 * The dimension along which the ranks of a group share a tensor with the fewest bytes between them;
 * null: each has all of it.
 */
export function splitAxis(name: string): 0 | 1 | null {
  if (expertOf(name) !== null) return null;
  if (/\.(o_proj|down_proj)\.weight$/.test(name)) return 1;
  const rows = /(^|\.)(q_proj|q_b_proj|kv_b_proj|gate_proj|up_proj|embed_tokens|lm_head)\.weight$/;
  return rows.test(name) ? 0 : null;
}

/** The number of the routed expert that a tensor is of; null if it is of none. */
export function expertOf(name: string): number | null {
  const match = /\.mlp\.experts\.(\d+)\./.exec(name);
  return match === null ? null : Number(match[1]);
}

/** The rank that has a routed expert. */
export function ownerOf(
  expert: number,
  { experts, ...layout }: Omit<ShardOptions, 'rank'>,
): number {
  return Math.floor((expert * layout.tensorParallel * layout.dataParallel) / experts);
}

/**
 * A rank's part of a tensor, in memory of its own unless it is all of it; null if it has none. The
 * cpu backend takes some outputs of every weight that is split, also of one that could be split by
 * its inputs (`linearOfParts`), so that its sums are those of one rank.
 */
export function cutTensor(tensor: HostTensor, shard: ShardOptions): HostTensor | null {
  const expert = expertOf(tensor.name);
  if (expert !== null) return ownerOf(expert, shard) === shard.rank ? tensor : null;
  if (splitAxis(tensor.name) === null || shard.tensorParallel === 1) return tensor;
  const parts = { rank: shard.rank % shard.tensorParallel, ranks: shard.tensorParallel };
  const [rows, columns] = [at(tensor.shape, 0), at(tensor.shape, 1)];
  const elementBytes = tensor.bytes.length / (rows * columns);
  const bytes = cutRows(tensor.bytes, [rows, columns * elementBytes], parts);
  const shape = [rows / parts.ranks, columns];
  return { ...tensor, shape, bytes, scales: cutScales(tensor, parts) };
}

interface Parts {
  readonly rank: number;
  readonly ranks: number;
}

function cutScales({ name, scales, shape }: HostTensor, parts: Parts) {
  if (scales === null) return null;
  assert(
    (at(shape, 0) / parts.ranks) % scaleGroup === 0,
    `${name} divides by ${parts.ranks} in whole blocks of scales`,
  );
  const blocks = shape.map((size) => Math.ceil(size / scaleGroup));
  return cutRows(scales, [at(blocks, 0), at(blocks, 1)], parts);
}

/** One of equal parts of a matrix, by rows. */
function cutRows<T extends Uint8Array | Float32Array>(
  values: T,
  [rows, columns]: readonly [number, number],
  { rank, ranks }: Parts,
): T {
  const share = rows / ranks;
  assert(Number.isInteger(share), `a matrix of ${rows} rows divides by ${ranks}`);
  // A slice of an array is an array of its kind.
  return values.slice(rank * share * columns, (rank + 1) * share * columns) as T;
}
