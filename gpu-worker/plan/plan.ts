/** Plans a model on the GPUs of a machine, for every layout, from its shapes alone. */
import type { Backend } from '../backend/backend.ts';
import { blockTokens } from '../backend/batch.ts';
import { entryBytes } from '../backend/cache-layout.ts';
import type { Numerics } from '../backend/numerics.ts';
import { blocksFor } from '../engine/block-manager.ts';
import { affordableBlocks, leastBlocks } from '../engine/memory-plan.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type { ModelLimits } from '../model/model.ts';
import type { CheckpointShapes } from './checkpoint-shapes.ts';
import { layoutFault, layoutsOf, rankModel } from './layout.ts';
import { modelMemory } from './model-memory.ts';
import type { ModelMemory } from './model-memory.ts';
import { stepCosts, stepFloor } from './step-floor.ts';
import type { GpuRates, StepFloor } from './step-floor.ts';

/** Contexts, in tokens, that streams and steps are told for. */
const contexts = [4096, 32_768, 131_072] as const;
/** Layouts are compared at this context, or at the longest below it that fits any of them. */
const comparedContext = 32_768;

export interface PlanOptions extends GpuRates {
  readonly gpus: number;
  readonly numerics: Numerics;
  readonly limits: ModelLimits;
  /** Makes a backend that only counts, of one GPU. */
  openBackend(): Backend;
}

/** A GPU's memory, in bytes. */
export interface GpuMemory {
  readonly weights: number;
  /** Activations and all else that a step works in. */
  readonly arena: number;
  /** Most that weights, arena and caches take together, and the bytes kept beside that. */
  readonly limit: number;
  readonly reserved: number;
}

export interface CacheTokens {
  readonly perGpu: number;
  readonly perMachine: number;
}

/** Streams and steps at one context. */
export interface AtContext {
  readonly context: number;
  /** Streams of so many tokens that the caches of the machine hold. */
  readonly streams: number;
  readonly oneStream: StepFloor;
  /** The step of all those streams; null if there are none. */
  readonly allStreams: StepFloor | null;
}

export interface LayoutPlan extends Layout {
  /** Says why the model cannot lie so; null if it can. */
  readonly fault: string | null;
  readonly memory: GpuMemory | null;
  /** Bytes of a token in the caches of all layers that the layout has. */
  readonly cacheBytesPerToken: { readonly latents: number; readonly indexKeys: number } | null;
  readonly tokens: CacheTokens | null;
  readonly steps: readonly AtContext[];
}

export interface MachinePlan {
  /** True if a worker can be started so today. */
  readonly isServed: boolean;
  /** MTP layers in these plans. */
  readonly draftLayers: number;
  readonly layouts: readonly LayoutPlan[];
  /** null if no layout fits. */
  readonly advice: Advice | null;
}

/** The layouts of the shortest step of one stream, and of most tokens a second of all. */
export interface Advice {
  readonly context: number;
  readonly latency: { readonly layout: Layout; readonly floor: StepFloor };
  readonly throughput: { readonly layout: Layout; readonly floor: StepFloor };
}

export function planMachine(shapes: CheckpointShapes, options: PlanOptions): MachinePlan {
  // A worker has one GPU, and does not load the MTP layers yet.
  const isServed = options.gpus === 1;
  const draftLayers = isServed ? 0 : shapes.config.mtpLayers;
  const layouts = layoutsOf(options.gpus).map((layout) =>
    planLayout(shapes, { ...options, layout, drafts: draftLayers > 0 }),
  );
  return { isServed, draftLayers, layouts, advice: adviceOn(layouts) };
}

function planLayout(
  { config, tensors }: CheckpointShapes,
  options: PlanOptions & { readonly layout: Layout; readonly drafts: boolean },
): LayoutPlan {
  const { layout, numerics, limits } = options;
  const fault = layoutFault(config, tensors, layout);
  const nothing = { memory: null, cacheBytesPerToken: null, tokens: null, steps: [] };
  if (fault !== null) return { ...layout, fault, ...nothing };
  const rank = rankModel(config, tensors, { ...layout, drafts: options.drafts });
  const taken = modelMemory({
    config: rank.config,
    tensors: rank.tensors,
    others: rank.draftTensors,
    backend: options.openBackend(),
    attention: 'sparse',
    limits,
  });
  const blocks = blocksOf(taken, config);
  const costs = stepCosts(config, rank, numerics);
  const floor = (streams: number, context: number): StepFloor =>
    stepFloor({ config, layout, costs, rates: options, streams, context });
  const steps = contextsOf(config).map((context) => {
    const streams = Math.floor(blocks / blocksFor(context)) * layout.dataParallel;
    const allStreams = streams === 0 ? null : floor(streams, context);
    return { context, streams, oneStream: floor(1, context), allStreams };
  });
  const perGpu = blocks * blockTokens;
  return {
    ...layout,
    fault: blocks > 0 ? null : 'weights and arena leave no room for a cache',
    memory: {
      weights: taken.memory.weightBytes,
      arena: taken.memory.activationBytes,
      limit: taken.memory.limitBytes,
      reserved: taken.memory.reservedBytes,
    },
    cacheBytesPerToken: cacheBytesOf(taken, rank.config, numerics),
    tokens: { perGpu, perMachine: perGpu * layout.dataParallel },
    steps,
  };
}

/** The contexts that the model has, or its only one. */
function contextsOf({ contextLength }: ModelConfig): readonly number[] {
  const within = contexts.filter((context) => context <= contextLength);
  return within.length === 0 ? [contextLength] : within;
}

/** Blocks of a GPU's caches; none if a worker would refuse to start with so few. */
function blocksOf({ memory, blockBytes }: ModelMemory, { contextLength }: ModelConfig): number {
  const blocks = affordableBlocks(memory, blockBytes);
  return blocks < leastBlocks(contextLength) ? 0 : blocks;
}

function cacheBytesOf({ blockBytes }: ModelMemory, config: ModelConfig, numerics: Numerics) {
  const { latentDim, ropeDim } = config.attention;
  const entry = entryBytes({ latentDim, ropeDim, indexDim: 0 }, numerics);
  const latents = config.layers * entry;
  return { latents, indexKeys: blockBytes / blockTokens - latents };
}

function adviceOn(layouts: readonly LayoutPlan[]): Advice | null {
  const held = layouts.flatMap(({ steps }) => steps.filter(({ streams }) => streams > 0));
  const compared = held.map(({ context }) => context).filter((each) => each <= comparedContext);
  const context = Math.max(...compared);
  const fitting = layouts.flatMap(({ tensorParallel, dataParallel, steps }) => {
    const step = steps.find((each) => each.context === context);
    if (step === undefined || step.allStreams === null) return [];
    return [
      { layout: { tensorParallel, dataParallel }, one: step.oneStream, all: step.allStreams },
    ];
  });
  if (fitting.length === 0) return null;
  const quickest = fitting.reduce((best, each) => (each.one.ms < best.one.ms ? each : best));
  const busiest = fitting.reduce((best, each) =>
    each.all.tokensPerSecond > best.all.tokensPerSecond ? each : best,
  );
  return {
    context,
    latency: { layout: quickest.layout, floor: quickest.one },
    throughput: { layout: busiest.layout, floor: busiest.all },
  };
}
