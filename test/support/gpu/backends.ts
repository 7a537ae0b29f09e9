/** Opens the CPU backend and its plain twin, and makes the same random inputs for both. */
import type { Backend } from '../../../gpu-worker/backend/backend.ts';
import type { Batch } from '../../../gpu-worker/backend/batch.ts';
import type { Numerics } from '../../../gpu-worker/backend/numerics.ts';
import type { Tensor, TensorPrecision } from '../../../gpu-worker/backend/shapes.ts';
import type { HostTensor, WeightDtype } from '../../../gpu-worker/backend/weights.ts';
import { CpuBackend, openCpuBackend } from '../../../gpu-worker/backend/cpu/cpu-backend.ts';
import { CpuTensor, asCpu } from '../../../gpu-worker/backend/cpu/handles.ts';
import type { Random } from '../random.ts';
import { PlainBackend } from './plain-backend.ts';

export const f32Numerics: Numerics = {
  activations: 'f32',
  quantizedLinear: false,
  latentCache: 'f32',
  indexKeys: 'f32',
  hadamard: false,
  scaleFormat: 'f32',
};

/** The deployment path. */
export const fp8Numerics: Numerics = {
  activations: 'bf16',
  quantizedLinear: true,
  latentCache: 'fp8',
  indexKeys: 'fp8',
  hadamard: true,
  scaleFormat: 'ue8m0',
};

export const bf16Numerics: Numerics = { ...fp8Numerics, latentCache: 'bf16', scaleFormat: 'f32' };

export const allNumerics = [
  { name: 'f32', numerics: f32Numerics },
  { name: 'fp8', numerics: fp8Numerics },
  { name: 'bf16 cache and exact scales', numerics: bf16Numerics },
] as const;

/** A backend of the tests: the kernels, or the twin. */
export interface Tested {
  readonly backend: Backend;
  /** Overwrites the tensor with NaN, the padding behind its columns included. */
  poison(tensor: Tensor): Tensor;
  /** A tensor that holds these values; activations must be what the numerics round to. */
  filled(values: Float32Array, columns: number, precision?: TensorPrecision): Tensor;
}

export async function openTested(
  numerics: Numerics,
  options: { rowsMax?: number; threads?: number; memoryBytesMax?: number } = {},
): Promise<Tested> {
  const backend = await openCpuBackend({ rowsMax: 160, threads: 1, ...options, numerics });
  const { arena } = asCpu(CpuBackend, backend).context;
  const poison = (handle: Tensor) => {
    const { at, stride, rows } = asCpu(CpuTensor, handle);
    arena.f32.fill(Number.NaN, at / 4, (at + rows * stride) / 4);
    return handle;
  };
  return {
    backend,
    poison,
    filled: (values, columns) => {
      const rows = values.length / columns;
      const tensor = poison(backend.memory.tensor(rows, columns));
      const { at, stride } = asCpu(CpuTensor, tensor);
      for (let r = 0; r < rows; r++) {
        arena.f32.set(values.subarray(r * columns, (r + 1) * columns), (at + r * stride) / 4);
      }
      return tensor;
    },
  };
}

/** The twin, with the same door. */
export function openTwin(numerics: Numerics): Tested {
  const backend = new PlainBackend(numerics);
  return {
    backend,
    poison: (tensor) => {
      backend.memory.fill(
        tensor,
        Float32Array.from({ length: tensor.rows * tensor.columns }, () => Number.NaN),
      );
      return tensor;
    },
    filled: (values, columns) => {
      const tensor = backend.memory.tensor(values.length / columns, columns);
      backend.memory.fill(tensor, values);
      return tensor;
    },
  };
}

export function randomFloats(random: Random, count: number, scale = 1): Float32Array {
  return Float32Array.from({ length: count }, () => random.normal() * scale);
}

export function randomWeight(
  random: Random,
  shape: { outputs: number; inputs: number; dtype: WeightDtype },
): HostTensor {
  const { outputs, inputs, dtype } = shape;
  const name = `${dtype} ${outputs} x ${inputs}`;
  const count = outputs * inputs;
  const values = randomFloats(random, count, inputs ** -0.5);
  const common = { name, dtype, shape: [outputs, inputs], scales: null };
  if (dtype === 'F32') return { ...common, bytes: new Uint8Array(values.buffer) };
  if (dtype === 'BF16') {
    const codes = Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
    return { ...common, bytes: new Uint8Array(codes.buffer) };
  }
  // Every code but the two NaNs, so zeros, the smallest and the largest are among them.
  const bytes = Uint8Array.from(
    { length: count },
    () => random.integer(0, 1) * 128 + random.integer(0, 126),
  );
  const blocks = Math.ceil(outputs / 128) * Math.ceil(inputs / 128);
  const scales = Float32Array.from(
    { length: blocks },
    () => (0.5 + random.uniform()) / 200 / Math.sqrt(inputs),
  );
  return { ...common, bytes, scales };
}

/** Tokens [start, start + rows) of one sequence. */
export interface Part {
  readonly start: number;
  readonly rows: number;
  readonly blockTable: Int32Array;
}

/** A batch of parts of several sequences, in this order. */
export function batchOf(parts: readonly Part[]): Batch {
  const positions = parts.flatMap(({ start, rows }) =>
    Array.from({ length: rows }, (_, r) => start + r),
  );
  const sequences = parts.flatMap(({ rows }, sequence) =>
    Array.from({ length: rows }, () => sequence),
  );
  const slots = positions.map((position, row) => {
    const table = parts[sequences[row] ?? 0]?.blockTable ?? new Int32Array(0);
    return (table[Math.floor(position / 64)] ?? 0) * 64 + (position % 64);
  });
  return {
    tokens: new Int32Array(positions.length),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(slots),
    sequences: Int32Array.from(sequences),
    blockTables: parts.map((part) => part.blockTable),
  };
}

/** Blocks 0..count-1 in a random order. */
export function shuffledBlocks(random: Random, count: number): Int32Array {
  const blocks = Int32Array.from({ length: count }, (_, block) => block);
  for (let i = count - 1; i > 0; i--) {
    const j = random.integer(0, i);
    [blocks[i], blocks[j]] = [blocks[j] ?? 0, blocks[i] ?? 0];
  }
  return blocks;
}

/** Largest difference relative to the largest magnitude; infinite if NaN or inf differ in place. */
export function difference(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Infinity;
  let largest = 0;
  let magnitude = 1e-30;
  for (const [i, value] of expected.entries()) {
    const other = actual[i] ?? Number.NaN;
    if (Number.isFinite(value)) magnitude = Math.max(magnitude, Math.abs(value));
    if (Object.is(other, value)) continue;
    if (!Number.isFinite(value) || !Number.isFinite(other)) return Infinity;
    largest = Math.max(largest, Math.abs(value - other));
  }
  return largest / magnitude;
}
