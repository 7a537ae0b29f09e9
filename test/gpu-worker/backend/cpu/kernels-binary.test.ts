import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { compileKernels, kernelsPath } from '../../../../gpu-worker/backend/cpu/build-kernels.ts';

test('the committed kernels are what their sources compile to (npm run build:kernels)', async () => {
  const committed = await readFile(kernelsPath);
  const compiled = await compileKernels();
  expect(Buffer.compare(committed, compiled)).toBe(0);
});

test('the kernels import nothing but the shared memory', async () => {
  const module = await WebAssembly.compile(await readFile(kernelsPath));
  expect(WebAssembly.Module.imports(module)).toEqual([
    { module: 'env', name: 'memory', kind: 'memory' },
  ]);
});
