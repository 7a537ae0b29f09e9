/** Opens a checkpoint's files as a model on a backend, with the backend left to the caller. */
import type { Backend } from './backend/backend.ts';
import type { MemoryUse } from './backend/memory.ts';
import type { Numerics } from './backend/numerics.ts';
import { parseModelConfig } from './model/deepseek/config.ts';
import type { ModelConfig } from './model/deepseek/config.ts';
import { createModel } from './model/deepseek/forward.ts';
import type { Model, ModelLimits } from './model/model.ts';
import { warmUp } from './model/warm-up.ts';
import { chooseNumerics } from './model/deepseek/numerics.ts';
import type { LatentFormat, NumericsName } from './model/deepseek/numerics.ts';
import { checkTensorCounts } from './model/deepseek/tensor-counts.ts';
import { type Absorption, WeightBuilder } from './model/deepseek/weights.ts';
import { tensorSpecs } from './model/deepseek/tensors.ts';
import { checkTensors } from './weights/check-tensors.ts';
import { openCheckpoint } from './weights/checkpoint.ts';
import { readJson } from './weights/json-files.ts';
import { openSource } from './weights/open-source.ts';
import type { SourceSettings } from './weights/open-source.ts';
import { readTensors } from './weights/read-tensors.ts';
import type { WeightSource } from './weights/source.ts';

export interface OpenModelOptions {
  /** A path, a file:// URL or s3://bucket/prefix. */
  readonly location: string;
  /** Says how a store is read and where its parts are kept. */
  readonly weights?: SourceSettings;
  readonly numerics: NumericsName;
  /** The format that fp8 numerics keep latents in; fp8 unless given. */
  readonly latents?: LatentFormat | undefined;
  readonly attention: 'sparse' | 'dense';
  /** `decode` where the backend says that it is faster unless given, else `always`. */
  readonly absorb?: Absorption;
  readonly limits: ModelLimits;
  openBackend(numerics: Numerics, limits: ModelLimits): Promise<Backend>;
  /** Blocks of cache, once weights and activations are allocated. */
  chooseBlocks(plan: { memory: MemoryUse; blockBytes: number; contextLength: number }): number;
  onProgress?(bytesDone: number, bytesTotal: number): void;
}

export interface OpenModel {
  readonly model: Model;
  readonly backend: Backend;
  readonly config: ModelConfig;
  readonly revision: string;
  /** Weights that are loaded; norms and biases included. */
  readonly parameters: number;
}

/** @throws CheckpointError or ConfigError with one clear line. */
export async function openModel(options: OpenModelOptions): Promise<OpenModel> {
  const source = await openSource(options.location, options.weights);
  try {
    const opened = await openModelFrom(source, options);
    // The model may serve while the last parts are still being flushed to the cache.
    void source[Symbol.asyncDispose]();
    return opened;
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

async function openModelFrom(source: WeightSource, options: OpenModelOptions): Promise<OpenModel> {
  const config = parseModelConfig(await readJson(source, 'config.json'));
  const checkpoint = await openCheckpoint(source);
  checkTensorCounts(config, checkpoint.tensors.keys());
  // Before a backend takes a machine's memory for a model that can't be loaded.
  checkTensors(checkpoint, [...tensorSpecs(config)]);
  const backend = await options.openBackend(
    chooseNumerics(options.numerics, config, options.latents),
    options.limits,
  );
  try {
    const faster = backend.attention.expandsFaster(config.attention) ? 'decode' : 'always';
    const absorb = options.absorb ?? faster;
    const builder = new WeightBuilder(config, backend, { absorb });
    let parameters = 0;
    const reading = { onProgress: options.onProgress, memory: backend.memory.host };
    for await (const tensor of readTensors(checkpoint, builder.specs, reading)) {
      builder.accept(tensor);
      parameters += tensor.shape.reduce((product, size) => product * size, 1);
    }
    const model = createModel(config, builder.finish(), backend, {
      attention: options.attention,
      absorb,
      limits: options.limits,
      chooseBlocks: (memory, blockBytes) =>
        options.chooseBlocks({ memory, blockBytes, contextLength: config.contextLength }),
    });
    backend.memory.freeze(() => warmUp(model));
    return { model, backend, config, revision: checkpoint.revision, parameters };
  } catch (error) {
    await backend.close();
    throw error;
  }
}
