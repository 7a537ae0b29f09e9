/**
 * The shapes of a checkpoint's tensors, from as little of it as there is: headers of its files, or
 * the index that lists its tensors, or config.json alone.
 */
import { UserError } from '../../infra/user-error.ts';
import type { WeightDtype } from '../backend/weights.ts';
import { familyOf, parseModelConfig } from '../model/families.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import { checkTensors, scaleName } from '../weights/check-tensors.ts';
import { openCheckpoint, readIndexNames } from '../weights/checkpoint.ts';
import { readConfig } from '../weights/json-files.ts';
import { neededTensors, skippedTensors } from '../weights/read-tensors.ts';
import type { WeightSource } from '../weights/source.ts';
import type { TensorSpec } from '../weights/tensor-spec.ts';
import type { PlannedTensor } from './layout.ts';
import { elementsOf, weightBytes } from './model-memory.ts';

export interface CheckpointShapes {
  readonly config: ModelConfig;
  /** The part of the checkpoint that names and shapes were found in. */
  readonly basis: 'headers' | 'index' | 'config';
  /** Those that the model needs, and those of its MTP layers if they are there. */
  readonly tensors: readonly PlannedTensor[];
  /** Bytes of all of these in the checkpoint. */
  readonly bytes: number;
}

/** Five times as many as the largest published model has. */
const tensorsMax = 2 ** 18;
/** More than the largest published tensor has in float32. */
const elementsMax = 2 ** 31;

/**
 * @param readsHeaders false where every header costs a part of its file, as in a store
 * @throws CheckpointError or ConfigError with one clear line
 */
export async function readShapes(
  source: WeightSource,
  { readsHeaders }: { readonly readsHeaders: boolean },
): Promise<CheckpointShapes> {
  const json = await readConfig(source);
  const config = parseModelConfig(json);
  const names = await readIndexNames(source);
  const hasFiles = names === null ? hasSingleFile(source) : hasAll(source, names.values());
  if (readsHeaders && hasFiles) return fromHeaders(source, config);
  const { experts } = config;
  const tensorCount = (config.layers + config.mtpLayers) * (3 * (experts?.count ?? 0) + 32);
  if (tensorCount > tensorsMax) {
    throw new UserError(
      `${source.location}: config.json makes num_hidden_layers * n_routed_experts = ` +
        `${config.layers} * ${experts?.count ?? 0}; at most ${tensorsMax} tensors are planned`,
    );
  }
  const family = familyOf(config.modelType);
  if (names !== null) family.checkTensorNames(config, names.keys());
  const wide = wideDtype(json);
  const dtypeOf = ({ name, role }: TensorSpec): WeightDtype => {
    const isFp8 = names === null ? config.quantization !== null : names.has(scaleName(name));
    return (role === 'matrix' || role === 'kv-up') && isFp8 ? 'F8_E4M3' : wide;
  };
  const specs = [...family.tensorSpecs(config)].filter((spec) => {
    if (names === null || names.has(spec.name)) return true;
    if (spec.use === 'skipped') return false;
    throw new UserError(`${source.location}: the index lacks the tensor ${spec.name}`);
  });
  const tensors = specs.map((spec) => ({ ...spec, dtype: dtypeOf(spec) }));
  return shapesOf(config, names === null ? 'config' : 'index', tensors);
}

async function fromHeaders(source: WeightSource, config: ModelConfig): Promise<CheckpointShapes> {
  const checkpoint = await openCheckpoint(source);
  const family = familyOf(config.modelType);
  family.checkTensorNames(config, checkpoint.tensors.keys());
  const specs = [...family.tensorSpecs(config)];
  checkTensors(checkpoint, specs);
  const specOf = new Map(specs.map((spec) => [spec.name, spec]));
  const found = [...neededTensors(checkpoint, specs), ...skippedTensors(checkpoint, specs)];
  const tensors = found.flatMap((tensor) => {
    const spec = specOf.get(tensor.name);
    return spec === undefined ? [] : [{ ...spec, ...tensor }];
  });
  return shapesOf(config, 'headers', tensors);
}

function shapesOf(
  config: ModelConfig,
  basis: CheckpointShapes['basis'],
  tensors: readonly PlannedTensor[],
): CheckpointShapes {
  const huge = tensors.find((tensor) => elementsOf(tensor) > elementsMax);
  if (huge !== undefined) {
    throw new UserError(
      `the tensor ${huge.name} of [${huge.shape.join(', ')}] ` +
        `(${huge.keys?.join(', ')}) has more than the ${elementsMax} elements that are planned`,
    );
  }
  const bytes = tensors.reduce((sum, tensor) => sum + weightBytes(tensor), 0);
  return { config, basis, tensors, bytes };
}

/** The dtype of weights that are not fp8, by config.json: published checkpoints have bfloat16. */
function wideDtype(json: object): WeightDtype {
  const named = Object.entries(json).find(([key]) => key === 'torch_dtype' || key === 'dtype');
  return named?.[1] === 'float32' ? 'F32' : 'BF16';
}

function hasSingleFile(source: WeightSource): boolean {
  return hasAll(source, ['model.safetensors']);
}

function hasAll(source: WeightSource, files: Iterable<string>): boolean {
  const there = new Set(source.files.map(({ name }) => name));
  return [...files].every((file) => there.has(file));
}
