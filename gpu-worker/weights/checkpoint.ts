/**
 * A checkpoint's layout: which tensor lies where. Either one model.safetensors, or shards that
 * model.safetensors.index.json lists; the index wins where both stand. Headers only are read here.
 */
import { createHash } from 'node:crypto';
import { readAll, readJson } from './json-files.ts';
import { readHeader } from './safetensors.ts';
import type { StoredTensor } from './safetensors.ts';
import { CheckpointError, fileBytes } from './source.ts';
import type { WeightSource } from './source.ts';

const singleFile = 'model.safetensors';
const indexFile = 'model.safetensors.index.json';

export interface Checkpoint {
  readonly source: WeightSource;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** See `revisionOf`. */
  readonly revision: string;
}

/** Rejects with a CheckpointError if a file is missing, malformed or at odds with the index. */
export async function openCheckpoint(source: WeightSource): Promise<Checkpoint> {
  const tensors =
    fileBytes(source, indexFile) === null ? await readSingle(source) : await readSharded(source);
  const config = await readAll(source, 'config.json');
  return { source, tensors, revision: revisionOf({ config, tensors, source }) };
}

async function readSingle(source: WeightSource): Promise<Map<string, StoredTensor>> {
  if (fileBytes(source, singleFile) === null) {
    throw new CheckpointError(`${source.location} has neither ${singleFile} nor ${indexFile}`);
  }
  const tensors = await readHeader(source, singleFile);
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}

async function readSharded(source: WeightSource): Promise<Map<string, StoredTensor>> {
  const shardOf = await readIndex(source);
  const tensors = new Map<string, StoredTensor>();
  for (const shard of new Set(shardOf.values())) {
    for (const tensor of await readHeader(source, shard)) {
      if (shardOf.get(tensor.name) !== shard) {
        throw new CheckpointError(
          `${source.location}: ${shard} holds the tensor ${tensor.name}, which ${indexFile} ` +
            (shardOf.has(tensor.name) ? `puts in ${shardOf.get(tensor.name)}` : 'does not list'),
        );
      }
      tensors.set(tensor.name, tensor);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) {
      throw new CheckpointError(
        `${source.location}: ${indexFile} puts the tensor ${name} in ${shard}, which lacks it`,
      );
    }
  }
  return tensors;
}

/**
 * The shard of each tensor, whether or not the shards are there; null where there is no index.
 * Rejects with a CheckpointError if the index is malformed.
 */
export async function readIndexNames(
  source: WeightSource,
): Promise<ReadonlyMap<string, string> | null> {
  return fileBytes(source, indexFile) === null ? null : readWeightMap(source);
}

/** The shard of each tensor. Shards must be files of the checkpoint itself. */
async function readIndex(source: WeightSource): Promise<Map<string, string>> {
  const shardOf = await readWeightMap(source);
  for (const [name, shard] of shardOf) {
    if (fileBytes(source, shard) === null) {
      throw new CheckpointError(
        `${source.location}: ${indexFile} puts the tensor ${name} in ` +
          `${JSON.stringify(shard)}, which is missing`,
      );
    }
  }
  return shardOf;
}

async function readWeightMap(source: WeightSource): Promise<Map<string, string>> {
  const index = await readJson(source, indexFile);
  const weightMap: unknown = 'weight_map' in index ? index.weight_map : undefined;
  if (typeof weightMap !== 'object' || weightMap === null || Array.isArray(weightMap)) {
    throw new CheckpointError(`${source.location}: ${indexFile} has no weight_map object`);
  }
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard)) {
      throw new CheckpointError(
        `${source.location}: ${indexFile} puts the tensor ${name} in ` +
          `${JSON.stringify(shard)}, which is not the name of a .safetensors file beside it`,
      );
    }
    shardOf.set(name, shard);
  }
  return shardOf;
}

/**
 * SHA-256, hex, over the bytes of config.json, the names and sizes of the tensor files, and every
 * tensor's name, dtype and shape. It tells models and layouts apart without reading the weights, so
 * weights that were only trained further keep their revision.
 */
function revisionOf(options: {
  config: Uint8Array;
  tensors: ReadonlyMap<string, StoredTensor>;
  source: WeightSource;
}): string {
  const { config, tensors, source } = options;
  const byName = [...tensors.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const files = [...new Set(byName.map((tensor) => tensor.file))].toSorted();
  const layout = {
    configBytes: config.length,
    files: files.map((file) => [file, fileBytes(source, file)]),
    tensors: byName.map(({ name, dtype, shape }) => [name, dtype, shape]),
  };
  return createHash('sha256').update(config).update(JSON.stringify(layout)).digest('hex');
}
