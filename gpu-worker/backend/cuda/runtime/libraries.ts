/**
 * Finds NVIDIA's libraries. The driver's libcuda comes with the driver; NVRTC and cuBLASLt with the
 * toolkit, or from the folder that SIFT_CUDA_PATH names.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { readCudaSettings } from '../cuda-settings.ts';
import { UserError } from '../../../../infra/user-error.ts';

export type Library = ReturnType<typeof koffi.load>;
export type LibraryName = 'cuda' | 'nvrtc' | 'cublasLt';

/** A library, function or device that is not there; one line says which, and what to do. */
export class CudaMissing extends UserError {
  override readonly name = 'CudaMissing';
}

const usualFolders = [
  '/usr/local/cuda/lib64',
  '/usr/local/cuda/targets/x86_64-linux/lib',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib64',
  '/usr/local/nvidia/lib64',
  '/opt/cuda/lib64',
];

/** Folders in which to look, the operator's own first. @throws CudaMissing if that is not there. */
function folders(): string[] {
  const own = readCudaSettings().libraryFolder;
  if (own === undefined) return usualFolders;
  if (!existsSync(own)) throw new CudaMissing(`SIFT_CUDA_PATH names ${own}, which is not there`);
  return [own, join(own, 'lib64'), ...usualFolders];
}

/** The newest file of a library in a folder: `libnvrtc.so.13` before `libnvrtc.so.12`. */
function fileIn(folder: string, name: LibraryName): string | null {
  if (!existsSync(folder)) return null;
  const prefix = `lib${name}.so`;
  const files = readdirSync(folder).filter(
    (file) => file === prefix || /^\.\d+$/.test(file.slice(prefix.length)),
  );
  const found = files
    .filter((file) => file.startsWith(prefix))
    .toSorted((a, b) => b.length - a.length || b.localeCompare(a));
  return found[0] === undefined ? null : join(folder, found[0]);
}

/** @throws CudaMissing if it is nowhere to be found. */
export function loadLibrary(name: LibraryName): Library {
  const files = folders().flatMap((folder) => fileIn(folder, name) ?? []);
  // Last, whatever the dynamic linker finds by itself.
  const soname = name === 'cuda' ? 'libcuda.so.1' : `lib${name}.so`;
  for (const file of name === 'cuda' ? [soname, ...files] : [...files, soname]) {
    try {
      return koffi.load(file);
    } catch {
      // The next place may have it; the error below names them all.
    }
  }
  throw new CudaMissing(
    `lib${name} was not found: install NVIDIA's ${name === 'cuda' ? 'driver' : 'CUDA toolkit'}, or set SIFT_CUDA_PATH to the folder that holds it`,
  );
}
