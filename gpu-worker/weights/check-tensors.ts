/** Compares a checkpoint's tensors with those that a model expects, before any of them is read. */
import type { TensorSpec } from './tensor-spec.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { StoredTensor } from './safetensors.ts';
import { CheckpointError } from './source.ts';

/** Rows and columns of a weight that share one fp8 scale. */
const scaleBlock = 128;

const dtypesOfRole: Record<TensorSpec['role'], readonly string[]> = {
  matrix: ['F32', 'BF16', 'F8_E4M3'],
  'kv-up': ['F32', 'BF16', 'F8_E4M3'],
  'f32-matrix': ['F32', 'BF16'],
  vector: ['F32', 'BF16'],
};

/** The name of the tensor that holds the scales of an fp8 weight. */
export function scaleName(weight: string): string {
  return `${weight}_scale_inv`;
}

/**
 * Throws a CheckpointError that names the first tensor that is missing, surplus, or of a wrong
 * shape or dtype. Scales of fp8 weights are expected beside them, F32 [ceil(out / 128), ceil(in /
 * 128)].
 */
export function checkTensors(checkpoint: Checkpoint, specs: readonly TensorSpec[]): void {
  const { source, tensors } = checkpoint;
  const expected = new Set<string>();
  const missing: string[] = [];
  for (const spec of specs) {
    const tensor = tensors.get(spec.name);
    if (tensor === undefined) {
      if (spec.use === 'needed') missing.push(spec.name);
      continue;
    }
    checkTensor(source.location, tensor, spec);
    expected.add(spec.name);
    if (tensor.dtype !== 'F8_E4M3') continue;
    const scales = tensors.get(scaleName(spec.name));
    if (scales === undefined) missing.push(scaleName(spec.name));
    else checkScales(source.location, scales, spec);
    expected.add(scaleName(spec.name));
  }
  refuseAny(`${source.location} lacks the tensor`, missing);
  const surplus = [...tensors.keys()].filter((name) => !expected.has(name));
  refuseAny(`${source.location} holds a tensor that the model has no use for:`, surplus);
}

function checkTensor(location: string, tensor: StoredTensor, spec: TensorSpec): void {
  const where = `${location}: ${tensor.file}: tensor ${tensor.name}`;
  if (!sameShape(tensor.shape, spec.shape)) {
    throw new CheckpointError(
      `${where} has the shape [${tensor.shape.join(', ')}]; ` +
        `config.json makes it [${spec.shape.join(', ')}]${differingKeys(tensor, spec)}`,
    );
  }
  const allowed = dtypesOfRole[spec.role];
  if (!allowed.includes(tensor.dtype)) {
    throw new CheckpointError(
      `${where} has the dtype ${tensor.dtype}; it may be ${allowed.join(' or ')}`,
    );
  }
}

/** Says which keys of config.json give the dimensions that differ. */
function differingKeys({ shape }: StoredTensor, spec: TensorSpec): string {
  const differing = (spec.keys ?? []).flatMap((keys, axis) =>
    spec.shape[axis] === shape[axis] ? [] : [`${keys} = ${spec.shape[axis]}`],
  );
  return differing.length === 0 ? '' : `: ${differing.join(', ')}`;
}

function checkScales(location: string, scales: StoredTensor, spec: TensorSpec): void {
  const where = `${location}: ${scales.file}: tensor ${scales.name}`;
  const shape = spec.shape.map((size) => Math.ceil(size / scaleBlock));
  if (scales.dtype !== 'F32') {
    throw new CheckpointError(`${where} has the dtype ${scales.dtype}; scales are F32`);
  }
  if (!sameShape(scales.shape, shape)) {
    throw new CheckpointError(
      `${where} has the shape [${scales.shape.join(', ')}]; a weight of ` +
        `[${spec.shape.join(', ')}] has scales of [${shape.join(', ')}]`,
    );
  }
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

function refuseAny(problem: string, names: readonly string[]): void {
  const [first] = names;
  if (first === undefined) return;
  const others = names.length === 1 ? '' : `, and ${names.length - 1} more`;
  throw new CheckpointError(`${problem} ${first}${others}`);
}
