import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../../../../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../../../../', import.meta.url));
const env = { ...process.env, SIFT_CUDA_PATH: '/nowhere/cuda' };
const line = 'SIFT_CUDA_PATH names /nowhere/cuda, which is not there\n';

test('a worker that is asked for cuda and finds no libraries says so in one line', () => {
  const flags = ['--model', 'gpu-worker/models/tiny', '--backend', 'cuda', '--port', '0'];
  const data = ['--data', temporaryDirectory()];
  const worker = spawnSync(process.execPath, ['infra/sift.ts', 'worker', ...flags, ...data], {
    cwd: root,
    env,
    encoding: 'utf8',
  });
  expect(worker.stderr).toBe(line);
  expect(worker.status).toBe(1);
});

test('so does score', () => {
  const ids = join(temporaryDirectory(), 'ids.json');
  writeFileSync(ids, '[1, 2, 3]');
  const flags = ['score', '--model', 'gpu-worker/models/tiny', '--ids', ids, '--backend', 'cuda'];
  const score = spawnSync(process.execPath, ['infra/sift.ts', ...flags], {
    cwd: root,
    env,
    encoding: 'utf8',
  });
  expect(score.stderr).toBe(line);
  expect(score.status).toBe(1);
});
