import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const smallGpu = fileURLToPath(new URL('../../support/gpu/small-gpu.ts', import.meta.url));

test('a checkpoint that does not fit the GPU is refused with the plan before it is loaded', () => {
  const flags = ['--model', 'gpu-worker/models/tiny', '--backend', 'cuda', '--numerics', 'fp8'];
  const data = ['--port', '0', '--data', temporaryDirectory(), '--log-level', 'silent'];
  const worker = spawnSync(
    process.execPath,
    ['--import', smallGpu, 'infra/sift.ts', 'worker', ...flags, ...data],
    {
      cwd: root,
      env: { ...process.env, SIFT_CUBIN_CACHE: temporaryDirectory() },
      encoding: 'utf8',
    },
  );
  const [line, ...table] = worker.stderr.trimEnd().split('\n');
  expect(line).toMatch(/^the model does not fit: its cache needs at least 16 blocks of 64 tokens/);
  expect(line).toMatch(/weights take 2\d\.\d MiB and the activations \d+\.\d MiB, which leaves 0/);
  expect(table.map((row) => row.split(' ')[0])).toEqual([
    'weights',
    'activations',
    'cache',
    'limit',
    'reserved',
  ]);
  expect(worker.status).toBe(1);
});

test('a checkpoint that does not fit the ranks of a machine is refused before it is loaded', () => {
  const flags = ['--model', 'gpu-worker/models/tiny', '--tensor-parallel', '2', '--port', '0'];
  const preload = fileURLToPath(new URL('../../support/worker/small-machine.ts', import.meta.url));
  const data = ['--data', temporaryDirectory(), '--log-level', 'silent'];
  const worker = spawnSync(
    process.execPath,
    ['--import', preload, 'infra/sift.ts', 'worker', ...flags, ...data],
    { cwd: root, encoding: 'utf8' },
  );
  const [line, ...table] = worker.stderr.trimEnd().split('\n');
  expect(line).toMatch(/^the model does not fit: .*of 12\.0 MiB the weights take \d+\.\d MiB/);
  expect(table.map((row) => row.split(' ')[0])).toEqual([
    'weights',
    'activations',
    'cache',
    'limit',
  ]);
  expect(worker.status).toBe(1);
});
