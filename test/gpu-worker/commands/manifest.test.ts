import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { manifestName, manifestSchema } from '../../../gpu-worker/weights/manifest-file.ts';
import { writePartedCheckpoint } from '../../support/weights/s3-checkpoint.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const sift = fileURLToPath(new URL('../../../infra/sift.ts', import.meta.url));
const folder = temporaryDirectory();

function run(...args: string[]) {
  return spawnSync(process.execPath, [sift, 'manifest', ...args], { encoding: 'utf8' });
}

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

test('the manifest holds the hash of every file and of each of its parts, and not of itself', () => {
  const directory = writePartedCheckpoint(join(folder, 'model'));
  writeFileSync(join(directory, 'empty.txt'), '');
  // A second time over the first one's manifest.
  run('--model', directory);
  const { status, stdout } = run('--model', directory);
  expect(status).toBe(0);
  expect(stdout).toMatch(/sift\.manifest\.json: 5 files, \d+ bytes/);
  const manifest = manifestSchema.parse(
    JSON.parse(readFileSync(join(directory, manifestName), 'utf8')),
  );
  const names = readdirSync(directory).filter((name) => name !== manifestName);
  expect(Object.keys(manifest.files).toSorted()).toEqual(names.toSorted());
  for (const [name, file] of Object.entries(manifest.files)) {
    const bytes = readFileSync(join(directory, name));
    expect(file).toMatchObject({ bytes: bytes.length, sha256: hashOf(bytes) });
    let start = 0;
    for (const [end, sha256] of file.parts) {
      expect(sha256).toBe(hashOf(bytes.subarray(start, end)));
      start = end;
    }
    expect(start).toBe(bytes.length);
  }
});

test.each<[string, string[], number, string]>([
  ['no directory', [], 2, '--model is missing'],
  ['an unknown flag', ['--what'], 2, "unknown option '--what'"],
  [
    'a directory that is not there',
    ['--model', join(folder, 'nowhere')],
    1,
    'not a readable directory',
  ],
])('%s ends in one clear error', (_, args, code, message) => {
  const { status, stderr } = run(...args);
  expect(status).toBe(code);
  expect(stderr).toContain(message);
  expect(stderr).not.toContain('    at ');
});

test('a damaged checkpoint gets no manifest', () => {
  const directory = writePartedCheckpoint(join(folder, 'damaged'));
  writeFileSync(join(directory, 'model-00001-of-00002.safetensors'), 'not safetensors');
  const { status, stderr } = run('--model', directory);
  expect(status).toBe(1);
  expect(stderr).toContain('model-00001-of-00002.safetensors');
  expect(readdirSync(directory)).not.toContain(manifestName);
});
