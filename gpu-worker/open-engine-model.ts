/**
 * Opens what the engine's thread serves: picks a backend, loads the model on it, on one rank or on
 * several, and gives the caches what is left of memory.
 */
import { UserError } from '../infra/user-error.ts';
import type { Backend } from './backend/backend.ts';
import type { Numerics } from './backend/numerics.ts';
import { cpuBytesMax } from './backend/cpu/arena.ts';
import { openCpuBackend } from './backend/cpu/cpu-backend.ts';
import type { OpenedModel } from './engine/engine-thread.ts';
import { planMemory } from './engine/memory-plan.ts';
import { openCpuRanks } from './cpu-ranks.ts';
import { loadModel } from './open-model.ts';
import type { LoadedModel, PlannedModel } from './open-model.ts';
import { loadRanks } from './open-ranks.ts';
import type { RanksOptions } from './open-ranks.ts';
import { openDecoder } from './open-text.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';
import type { EngineDescription, MemoryPlan } from './engine/request.ts';
import { sourceSettings } from './settings.ts';
import type { WorkerSettings } from './settings.ts';

/**
 * Tokens of KV cache on the cpu backend, whose memory is everyone's; a GPU's is the worker's own.
 */
const cpuCacheTokens = 131_072;
/**
 * Bounds the prompt tokens beside the sequences that decode: on the cpu backend a step takes as
 * long as it has rows, about 0.5 ms each with the tiny model, and prompts of 512 would hold every
 * running answer up by 0.3 s.
 */
const cpuPrefillTokens = 32;
/** Opens backend, weights and caches on the engine's thread. */
export async function openEngineModel(
  settings: WorkerSettings,
  onProgress: (progress: { label: string; done: number; total: number }) => void,
): Promise<OpenedModel> {
  const tokenizer = await openDecoder(settings.model, sourceSettings(settings));
  const load = {
    location: settings.model,
    weights: sourceSettings(settings),
    compute: settings,
    limits: { rowsMax: settings.stepTokens, logitRowsMax: Math.max(settings.sequences, 64) },
    onProgress: (done: number, total: number) => onProgress({ label: 'weights', done, total }),
  };
  if (settings.tensorParallel * settings.dataParallel > 1) {
    return openRankedModel(settings, load, tokenizer);
  }
  const loaded = await loadModel({
    ...load,
    openBackend: (numerics, { rowsMax }) => openBackend(settings, { numerics, rowsMax }),
    beforeWeights: (planned) => void planCache(settings, planned.backend.name, planned),
  });
  const { backend } = loaded;
  try {
    const plan = planCache(settings, backend.name, loaded);
    const model = loaded.withCache(plan.blocks);
    const described = { ...loaded, plan, backend: backend.name, kernels: backend.kernels.list() };
    return servedModel(described, { model, tokenizer, close: () => backend.close() });
  } catch (error) {
    await backend.close();
    throw error;
  }
}

/** Opens a model over ranks, whose threads this one leads. */
async function openRankedModel(
  settings: WorkerSettings,
  load: Pick<RanksOptions, 'location' | 'weights' | 'compute' | 'limits' | 'onProgress'>,
  tokenizer: Tokenizer,
): Promise<OpenedModel> {
  const { tensorParallel, dataParallel, threads, rankSeconds } = settings;
  if (settings.backend === 'cuda') {
    throw new UserError(
      '--tensor-parallel and --data-parallel: the cuda backend has one rank yet; use --backend cpu',
    );
  }
  const layout = { tensorParallel, dataParallel };
  const openRanks = () => openCpuRanks(layout, { threads, stepMs: rankSeconds * 1000 });
  const limitBytes = cpuBytesMax(tensorParallel * dataParallel);
  const unused = { activationBytes: 0, cacheBytes: 0, reservedBytes: 0 };
  const loaded = await loadRanks({
    ...load,
    ...layout,
    openRanks,
    beforeWeights: ({ config, weightBytes, blockBytes }) => {
      const memory = { ...unused, weightBytes, limitBytes };
      planCache(settings, 'cpu', { config, memory, blockBytes });
    },
  });
  const { close, failed } = loaded;
  try {
    const plans = loaded.memories.map((memory) =>
      planCache(settings, 'cpu', { ...loaded, memory }),
    );
    // Groups are alike, and a group is as large as the least of its ranks.
    const plan = plans.reduce((least, each) => (each.blocks < least.blocks ? each : least));
    const model = await loaded.withCache(plan.blocks);
    const described = { ...loaded, plan, backend: 'cpu' as const, kernels: [] };
    return { ...servedModel(described, { model, tokenizer, close }), failed };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Checks that tokenizer and model fit each other. */
function servedModel(
  loaded: Pick<LoadedModel, 'config' | 'revision' | 'parameters'> &
    Pick<EngineDescription, 'plan' | 'backend' | 'kernels'>,
  { model, tokenizer, close }: Pick<OpenedModel, 'model' | 'close'> & { tokenizer: Tokenizer },
): OpenedModel {
  const { config, revision, parameters, plan, backend, kernels } = loaded;
  for (const warning of config.warnings) console.error(`warning: ${warning}`);
  const endTokens = [...new Set([...config.endTokens, ...tokenizer.endTokens])];
  const outside = endTokens.find((token) => token >= config.vocabSize);
  if (outside !== undefined) {
    throw new Error(
      `generation_config.json: eos_token_id: ${outside} is outside the vocabulary of ` +
        `${config.vocabSize}`,
    );
  }
  return {
    model,
    tokenText: tokenizer,
    endTokens,
    description: {
      modelType: config.modelType,
      revision,
      backend,
      contextLength: config.contextLength,
      vocabSize: config.vocabSize,
      parameters,
      plan,
      kernels,
    },
    close,
  };
}

/**
 * Gives the caches what is left of memory. The cpu backend gets a smaller cache and smaller steps
 * unless the settings say otherwise.
 */
function planCache(
  settings: WorkerSettings,
  backend: Backend['name'],
  { config, memory, blockBytes }: Pick<PlannedModel, 'config' | 'memory' | 'blockBytes'>,
): MemoryPlan {
  const isCpu = backend === 'cpu';
  return planMemory({
    memory,
    blockBytes,
    contextLength: config.contextLength,
    stepTokensMax: settings.stepTokens,
    mixedTokensMax:
      settings.mixedTokens ?? (isCpu ? settings.sequences + cpuPrefillTokens : settings.stepTokens),
    sequencesMax: settings.sequences,
    waitingMax: settings.waiting,
    cacheTokensMax: settings.cacheTokens ?? (isCpu ? cpuCacheTokens : null),
  });
}

/** koffi and the GPU's libraries are loaded only where they are asked for. */
async function openBackend(
  { backend, threads }: WorkerSettings,
  options: { numerics: Numerics; rowsMax: number },
): Promise<Backend> {
  if (backend === 'cpu') return openCpuBackend({ ...options, threads });
  const { openCudaBackend } = await import('./backend/cuda/cuda-backend.ts');
  const { CudaMissing } = await import('./backend/cuda/runtime/libraries.ts');
  try {
    return await openCudaBackend(options);
  } catch (error) {
    if (backend === 'cuda' || !(error instanceof CudaMissing)) throw error;
    return openCpuBackend({ ...options, threads });
  }
}
