/**
 * Opens a checkpoint's files as a model over several ranks. The bytes are read once, in one place,
 * where parts are checked and cached; each rank is handed its own of every tensor, and keeps
 * nothing else.
 */
import { at } from './at.ts';
import { blockTokens } from './backend/batch.ts';
import { entryBytes } from './backend/cache-layout.ts';
import type { MemoryUse } from './backend/memory.ts';
import type { Numerics } from './backend/numerics.ts';
import type { HostTensor } from './backend/weights.ts';
import { ConfigError } from './model/config-error.ts';
import { familyOf, parseModelConfig } from './model/families.ts';
import type { ModelConfig } from './model/mla-moe/config.ts';
import { chooseNumerics } from './model/mla-moe/numerics.ts';
import { cutTensor } from './model/mla-moe/shard.ts';
import type { Layout } from './model/mla-moe/shard.ts';
import type { ModelLimits } from './model/model.ts';
import type { ComputeOptions } from './open-model.ts';
import { layoutFault, rankModel } from './plan/layout.ts';
import { weightBytes } from './plan/model-memory.ts';
import { RankThreads } from './ranks/rank-threads.ts';
import type { RankThreadsOptions } from './ranks/rank-threads.ts';
import { RankedModel } from './ranks/ranked-model.ts';
import { checkTensors } from './weights/check-tensors.ts';
import { openCheckpoint } from './weights/checkpoint.ts';
import { readJson } from './weights/json-files.ts';
import { loadFromSource } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';
import { neededTensors, readTensors } from './weights/read-tensors.ts';
import type { WeightSource } from './weights/source.ts';

export interface RanksOptions extends Layout {
  readonly location: string;
  readonly weights?: SourceSettings;
  readonly compute: ComputeOptions;
  readonly limits: ModelLimits;
  /** The entry module of a rank, and what its backend shares with the others. */
  openRanks(
    numerics: Numerics,
  ): Pick<RankThreadsOptions, 'entry' | 'openingOf' | 'abort' | 'progress' | 'stepMs'>;
  /**
   * Called before any rank is started, with what each takes at least of the memory that it has; it
   * throws if that does not fit.
   */
  beforeWeights?(planned: PlannedRank): void;
  onProgress?(bytesDone: number, bytesTotal: number): void;
}

export interface PlannedRank {
  readonly config: ModelConfig;
  readonly weightBytes: number;
  /** Bytes of the latents of a block in a rank's caches of all layers. */
  readonly blockBytes: number;
}

export interface LoadedRanks {
  readonly config: ModelConfig;
  readonly revision: string;
  /** Weights of the model, however many ranks have them. */
  readonly parameters: number;
  /** The memory in use on each rank, before the caches. */
  readonly memories: readonly MemoryUse[];
  /** Bytes of a block in a rank's caches of all layers. */
  readonly blockBytes: number;
  /** Rejects once a rank has failed. */
  readonly failed: Promise<never>;
  /** Allocates the caches of every rank and warms up. Called once. */
  withCache(blocks: number): Promise<RankedModel>;
  close(): Promise<void>;
}

/** @throws CheckpointError or ConfigError with one clear line; a rank's failure names the rank. */
export async function loadRanks(options: RanksOptions): Promise<LoadedRanks> {
  const { location, weights } = options;
  return await loadFromSource(location, weights, (source) => loadFrom(source, options));
}

async function loadFrom(source: WeightSource, options: RanksOptions): Promise<LoadedRanks> {
  const { compute, limits, tensorParallel, dataParallel } = options;
  const layout = { tensorParallel, dataParallel };
  const config = parseModelConfig(await readJson(source, 'config.json'));
  const family = familyOf(config.modelType);
  const checkpoint = await openCheckpoint(source);
  family.checkTensorNames(config, checkpoint.tensors.keys());
  const specs = [...family.tensorSpecs(config)];
  checkTensors(checkpoint, specs);
  const keysOf = new Map(specs.map((spec) => [spec.name, spec]));
  const tensors = neededTensors(checkpoint, specs).map((tensor) => {
    const spec = keysOf.get(tensor.name);
    return { role: 'matrix' as const, use: 'needed' as const, ...spec, ...tensor };
  });
  const fault = layoutFault(config, tensors, layout);
  if (fault !== null) {
    throw new ConfigError(
      `--tensor-parallel ${tensorParallel} --data-parallel ${dataParallel}: ${fault}`,
    );
  }
  const numerics = chooseNumerics(compute.numerics, config, compute.latents);
  const { tensors: own } = rankModel(config, tensors, { ...layout, drafts: false });
  const { latentDim, ropeDim } = config.attention;
  const entry = entryBytes({ latentDim, ropeDim, indexDim: 0 }, numerics);
  options.beforeWeights?.({
    config,
    weightBytes: own.reduce((sum, tensor) => sum + weightBytes(tensor), 0),
    blockBytes: config.layers * blockTokens * entry,
  });
  const threads = await RankThreads.open({
    ...layout,
    ...options.openRanks(numerics),
    config,
    numerics,
    options: { attention: compute.attention, limits },
  });
  try {
    const shared = { ...layout, experts: config.experts?.count ?? 0 };
    let parameters = 0;
    for await (const tensor of readTensors(checkpoint, specs, options)) {
      parameters += tensor.shape.reduce((product, size) => product * size, 1);
      for (let rank = 0; rank < threads.count; rank++) {
        const part = cutTensor(tensor, { ...shared, rank });
        if (part !== null) await threads.give(rank, part === tensor ? copyOf(tensor) : part);
      }
    }
    const prepared = await threads.prepare();
    return {
      config,
      revision: checkpoint.revision,
      parameters,
      memories: prepared.map(({ memory }) => memory),
      blockBytes: at(prepared, 0).blockBytes,
      async withCache(blocks) {
        await threads.serve(blocks);
        return new RankedModel({ ...layout, threads, config, limits, blocks });
      },
      failed: threads.failed,
      close: () => threads.close(),
    };
  } catch (error) {
    await threads.close();
    throw error;
  }
}

/** The reader's memory holds the next tensor soon. */
function copyOf(tensor: HostTensor): HostTensor {
  return { ...tensor, bytes: tensor.bytes.slice() };
}
