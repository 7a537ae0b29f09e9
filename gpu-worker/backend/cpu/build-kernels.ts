/**
 * Compiles the kernels to kernels.wasm, the one binary that is committed: `npm run build:kernels`.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';
import { heapAt } from './kernels/op-codes.ts';

const sourceDirectory = fileURLToPath(new URL('./kernels/', import.meta.url));
export const kernelsPath = fileURLToPath(new URL('./kernels.wasm', import.meta.url));

const pageBytes = 65_536;

const compilerFlags = [
  '-O3',
  '--noAssert',
  '--runtime=stub',
  '--use=abort=',
  '--enable=simd',
  '--enable=threads',
  '--enable=bulk-memory',
  '--importMemory',
  '--sharedMemory',
  '--memoryBase=32768',
  `--initialMemory=${heapAt / pageBytes}`,
  '--maximumMemory=65536',
];

/** The binary that the sources compile to; throws with the compiler's messages. */
export async function compileKernels(): Promise<Uint8Array> {
  const directory = await mkdtemp(path.join(tmpdir(), 'sift-kernels-'));
  try {
    const outFile = path.join(directory, 'kernels.wasm');
    const { error, stderr } = await asc.main([
      'index.ts',
      `--baseDir=${sourceDirectory}`,
      `--outFile=${outFile}`,
      ...compilerFlags,
    ]);
    if (error !== null) throw new Error(`the kernels do not compile:\n${stderr.toString()}`);
    return await readFile(outFile);
  } finally {
    await rm(directory, { recursive: true });
  }
}

if (import.meta.main) {
  const binary = await compileKernels();
  await writeFile(kernelsPath, binary);
  process.stdout.write(`${path.relative('.', kernelsPath)}: ${binary.byteLength} bytes\n`);
}
