/** The settings that the CUDA backend reads from its environment, wherever it is opened. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { environment, readSettings } from '../../../infra/settings.ts';
import type { Settings, SettingsOf } from '../../../infra/settings.ts';

const isOn = z
  .string()
  .optional()
  .transform((text) => text === '1');

export const cudaSettings = {
  libraryFolder: {
    env: 'SIFT_CUDA_PATH',
    help: "folder of NVIDIA's libraries, where they are not on the usual paths",
    schema: z.string().optional(),
  },
  cubinFolder: {
    env: 'SIFT_CUBIN_CACHE',
    help: 'folder that keeps compiled kernels',
    defaultText: '~/.cache/sift/cubins',
    schema: z.string().optional(),
  },
  cublasLt: {
    env: 'SIFT_CUBLASLT',
    help:
      "1 lets cuBLASLt compute products of at least 129 rows; a row's bits then depend on " +
      'what else is in its step',
    defaultText: '0',
    schema: isOn,
  },
  waitsForKernels: {
    env: 'SIFT_CUDA_SYNC',
    help: '1 waits for every kernel, so that a fault names the one that met it',
    defaultText: '0',
    schema: isOn,
  },
} satisfies Settings;

export type CudaSettings = SettingsOf<typeof cudaSettings> & { readonly cubinFolder: string };

export function readCudaSettings(): CudaSettings {
  const env = environment();
  const read = readSettings(cudaSettings, { env });
  const cache = env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  return { ...read, cubinFolder: read.cubinFolder ?? join(cache, 'sift', 'cubins') };
}
