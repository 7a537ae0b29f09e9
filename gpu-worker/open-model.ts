/**
 * Opens a checkpoint's files as a model on a backend, with the backend left to the caller, in two
 * phases: `loadModel` allocates weights and activations, and `withCache` what the caller then
 * decides that the caches get.
 */
import type { Backend } from './backend/backend.ts';
import type { Numerics } from './backend/numerics.ts';
import { familyOf, parseModelConfig } from './model/families.ts';
import type { ModelConfig } from './model/mla-moe/config.ts';
import { chooseNumerics } from './model/mla-moe/numerics.ts';
import type { LatentFormat, NumericsName } from './model/mla-moe/numerics.ts';
import type { Model, ModelLimits } from './model/model.ts';
import { warmUp } from './model/warm-up.ts';
import { modelMemory } from './plan/model-memory.ts';
import type { ModelMemory } from './plan/model-memory.ts';
import { checkTensors } from './weights/check-tensors.ts';
import { openCheckpoint } from './weights/checkpoint.ts';
import { readJson } from './weights/json-files.ts';
import { loadFromSource } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';
import { neededTensors, readTensors } from './weights/read-tensors.ts';
import type { WeightSource } from './weights/source.ts';

/** The arithmetic of a model. */
export interface ComputeOptions {
  readonly numerics: NumericsName;
  /** The format that fp8 numerics keep latents in; fp8 unless given. */
  readonly latents?: LatentFormat | undefined;
  readonly attention: 'sparse' | 'dense';
}

export interface LoadOptions {
  /** A path, a file:// URL or s3://bucket/prefix. */
  readonly location: string;
  /** Says how a store is read and where its parts are kept. */
  readonly weights?: SourceSettings;
  readonly compute: ComputeOptions;
  readonly limits: ModelLimits;
  /** Loads the MTP module, if config.json promises one. */
  readonly drafts?: boolean;
  openBackend(numerics: Numerics, limits: ModelLimits): Promise<Backend>;
  /**
   * Called before any weight is read, on a backend that can plan ahead, with what the model will
   * take; it throws if that does not fit.
   */
  beforeWeights?(planned: PlannedModel): void;
  onProgress?(bytesDone: number, bytesTotal: number): void;
}

/** The part of its backend's memory that a model takes, before or after it took it. */
export interface PlannedModel extends ModelMemory {
  readonly backend: Backend;
  readonly config: ModelConfig;
}

export interface LoadedModel extends PlannedModel {
  readonly revision: string;
  /** Weights that are loaded; norms and biases included. */
  readonly parameters: number;
  /** Allocates the caches and warms up; nothing is allocated afterwards. Called once. */
  withCache(blocks: number): Model;
}

/** @throws CheckpointError or ConfigError with one clear line. */
export async function loadModel(options: LoadOptions): Promise<LoadedModel> {
  const { location, weights } = options;
  return await loadFromSource(location, weights, (source) => loadFrom(source, options));
}

/**
 * Both phases, for a number of blocks that is known before; closes the backend if they do not fit.
 */
export async function openModel(
  options: LoadOptions & { readonly blocks: number },
): Promise<LoadedModel & { readonly model: Model }> {
  const loaded = await loadModel(options);
  try {
    return { ...loaded, model: loaded.withCache(options.blocks) };
  } catch (error) {
    await loaded.backend.close();
    throw error;
  }
}

async function loadFrom(source: WeightSource, options: LoadOptions): Promise<LoadedModel> {
  const { compute, limits } = options;
  const config = parseModelConfig(await readJson(source, 'config.json'));
  const family = familyOf(config.modelType);
  const checkpoint = await openCheckpoint(source);
  family.checkTensorNames(config, checkpoint.tensors.keys());
  const drafts = (options.drafts ?? false) && config.mtpLayers > 0;
  // Before a backend takes a machine's memory for a model that can't be loaded.
  checkTensors(checkpoint, [...family.tensorSpecs(config, drafts)]);
  const numerics = chooseNumerics(compute.numerics, config, compute.latents);
  const { attention } = compute;
  const backend = await options.openBackend(numerics, limits);
  try {
    const planned = backend.planned?.();
    const builder = family.buildModel(config, backend, drafts);
    if (planned !== undefined && options.beforeWeights !== undefined) {
      const tensors = neededTensors(checkpoint, builder.specs);
      const memory = modelMemory({ config, tensors, backend: planned, attention, limits, drafts });
      options.beforeWeights({ backend, config, ...memory });
    }
    let parameters = 0;
    const reading = { onProgress: options.onProgress, memory: backend.memory.host };
    for await (const tensor of readTensors(checkpoint, builder.specs, reading)) {
      builder.accept(tensor);
      parameters += tensor.shape.reduce((product, size) => product * size, 1);
    }
    const prepared = builder.finish({ attention, limits });
    return {
      backend,
      config,
      revision: checkpoint.revision,
      parameters,
      memory: backend.memory.use(),
      blockBytes: prepared.blockBytes,
      withCache(blocks) {
        const model = prepared.withCache(blocks);
        backend.memory.freeze(() => warmUp(model));
        return model;
      },
    };
  } catch (error) {
    await backend.close();
    throw error;
  }
}
