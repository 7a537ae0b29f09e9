/** The two backends with one door: the CUDA backend under test, and the cpu backend as its twin. */
import type { Numerics } from '../../../gpu-worker/backend/numerics.ts';
import type { Tensor } from '../../../gpu-worker/backend/shapes.ts';
import { CudaBackend, openCudaBackend } from '../../../gpu-worker/backend/cuda/cuda-backend.ts';
import {
  CudaTensor,
  dtypeCode,
  elementBytes,
  asCuda,
} from '../../../gpu-worker/backend/cuda/handles.ts';
import { openTested } from './backends.ts';
import type { Tested } from './backends.ts';

/**
 * Under compute-sanitizer (test/gpu/run.ts), whose tools take minutes for what takes a second else.
 */
export const isSmall = process.env['SIFT_GPU_SMALL'] !== undefined;
/**
 * Kernels are compiled so that racecheck can follow what orders their accesses (kTraced in
 * sm90.cuh).
 */
export const traced = process.env['SIFT_GPU_TRACED'] !== undefined;

/** `CASES=fp8,matrix` runs those cases alone whose label has both words: for slow checkers. */
const wantedWords = (process.env['CASES'] ?? '').split(',');

export function isWanted(label: string): boolean {
  return wantedWords.every((word) => label.includes(word));
}

export interface CudaTested extends Tested {
  readonly backend: CudaBackend;
}

export async function openCudaTested(
  numerics: Numerics,
  options: {
    rowsMax?: number;
    useTensorCores?: boolean;
    cublasLt?: boolean;
    graphs?: boolean;
    expandedTokens?: number;
  } = {},
): Promise<CudaTested> {
  const opened = await openCudaBackend({ rowsMax: 160, ...options, numerics, traced });
  const backend = asCuda(CudaBackend, opened);
  const { device } = backend.context;
  const poison = (handle: Tensor) => {
    const { at, stride, rows, format, writes } = asCuda(CudaTensor, handle);
    writes.count++;
    device.fill(at, rows * stride * elementBytes[format], 0xff);
    return handle;
  };
  return {
    backend,
    poison,
    filled: (values, columns, precision) => {
      const rows = values.length / columns;
      const tensor = backend.memory.tensor(rows, columns, precision);
      const { at, stride, format } = asCuda(CudaTensor, tensor);
      const padded = new Float32Array(rows * stride).fill(Number.NaN);
      for (let r = 0; r < rows; r++) {
        padded.set(values.subarray(r * columns, (r + 1) * columns), r * stride);
      }
      const halves = format === dtypeCode.F32 ? padded : halvesOf(padded);
      device.upload(at, new Uint8Array(halves.buffer));
      return tensor;
    },
  };
}

export interface Pair {
  readonly cuda: CudaTested;
  readonly cpu: Tested;
  close(): Promise<void>;
}

export async function openPair(
  numerics: Numerics,
  options: { rowsMax?: number; useTensorCores?: boolean; graphs?: boolean } = {},
): Promise<Pair> {
  const cuda = await openCudaTested(numerics, options);
  const cpu = await openTested(numerics, { rowsMax: options.rowsMax ?? 160 });
  return {
    cuda,
    cpu,
    close: async () => {
      await cuda.backend.close();
      await cpu.backend.close();
    },
  };
}

/** The upper halves of float32 values, whose lower halves must be zero. */
function halvesOf(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word, i) => {
    if ((word & 0xffff) !== 0) throw new Error(`bfloat16 does not hold ${values[i]}`);
    return word >>> 16;
  });
}

/** Values that bfloat16 holds, as activations are in the deployed numerics. */
export function toBf16(values: Float32Array): Float32Array {
  const bits = new Uint32Array(values.slice().buffer).map((word) => word & 0xffff0000);
  return new Float32Array(bits.buffer);
}
