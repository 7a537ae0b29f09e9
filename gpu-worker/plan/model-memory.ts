/**
 * The memory that a model takes, found by opening it on a backend that only counts
 * (`Backend.planned`): its weights are given as shapes, and all that the model asks of the backend
 * is what it will ask for when it is loaded.
 */
import { strict as assert } from 'node:assert';
import type { Backend } from '../backend/backend.ts';
import type { MemoryUse } from '../backend/memory.ts';
import type { HostTensor } from '../backend/weights.ts';
import { familyOf } from '../model/families.ts';
import type { ModelOptions } from '../model/family.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';

/** A weight of which only the shape is known. */
export type WeightShape = Pick<HostTensor, 'name' | 'dtype' | 'shape'>;

export interface ModelMemory {
  /** The memory in use after weights and activations are allocated, and before the caches are. */
  readonly memory: MemoryUse;
  /** Bytes of one block in the caches of all layers. */
  readonly blockBytes: number;
}

export interface ModelMemoryOptions extends ModelOptions {
  readonly config: ModelConfig;
  /** All tensors of the model, in the order in which they are loaded. */
  readonly tensors: Iterable<WeightShape>;
  /** A backend that computes nothing. */
  readonly backend: Backend;
  /** Counts activations and caches of the MTP module, whose tensors are among the others. */
  readonly drafts?: boolean;
  /** Weights that the graph does not know yet, kept beside the model's. */
  readonly others?: Iterable<WeightShape>;
}

export function modelMemory(options: ModelMemoryOptions): ModelMemory {
  const { config, tensors, backend, drafts, others = [], attention, limits } = options;
  const builder = familyOf(config.modelType).buildModel(config, backend, drafts);
  const empty = createEmptyTensors();
  for (const tensor of tensors) builder.accept(empty(tensor));
  for (const tensor of others) keep(backend, empty(tensor));
  const { blockBytes } = builder.finish({ attention, limits });
  return { memory: backend.memory.use(), blockBytes };
}

function keep({ weights }: Backend, tensor: HostTensor): void {
  if (tensor.shape.length > 1) weights.matrix(tensor);
  else weights.vector(tensor.name, new Float32Array(elementsOf(tensor)));
}

const elementBytes = { F32: 4, BF16: 2, F8_E4M3: 1 } as const;
/** Rows and columns of a weight that share one fp8 scale. */
const scaleBlock = 128;

export function elementsOf({ shape }: Pick<WeightShape, 'shape'>): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes in a checkpoint, those of an fp8 weight's scales included. */
export function weightBytes(weight: WeightShape): number {
  return elementsOf(weight) * elementBytes[weight.dtype] + 4 * scaleCount(weight);
}

function scaleCount({ dtype, shape }: Omit<WeightShape, 'name'>): number {
  if (dtype !== 'F8_E4M3') return 0;
  return shape.reduce((product, size) => product * Math.ceil(size / scaleBlock), 1);
}

/**
 * Tensors without values: views of one buffer, as long as the largest, which nobody writes, so that
 * it takes addresses and no memory.
 */
function createEmptyTensors(): (weight: WeightShape) => HostTensor {
  let zeros = new Uint8Array();
  return ({ name, shape, dtype: stored }) => {
    // Vectors are float32 on a GPU whatever they are in the checkpoint.
    const dtype = shape.length === 1 ? 'F32' : stored;
    const bytes = elementsOf({ shape }) * elementBytes[dtype];
    assert(Number.isSafeInteger(bytes), `${name} has a size`);
    const scaled = scaleCount({ shape, dtype });
    const needed = Math.max(bytes, 4 * scaled);
    if (needed > zeros.length) zeros = new Uint8Array(needed);
    const scales = scaled === 0 ? null : new Float32Array(zeros.buffer, 0, scaled);
    return { name, shape, dtype, bytes: zeros.subarray(0, bytes), scales };
  };
}
