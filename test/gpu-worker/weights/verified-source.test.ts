/** A checkpoint on this machine's disk, held against the manifest beside it. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, expect, test } from 'vitest';
import type { TensorSpec } from '../../../gpu-worker/weights/tensor-spec.ts';
import { settingsOfArgs } from '../../support/worker/worker-settings.ts';
import { openCheckpoint } from '../../../gpu-worker/weights/checkpoint.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { readConfig } from '../../../gpu-worker/weights/json-files.ts';
import { makeManifest, manifestName } from '../../../gpu-worker/weights/manifest-file.ts';
import { openSource } from '../../../gpu-worker/weights/open-source.ts';
import { readTensors } from '../../../gpu-worker/weights/read-tensors.ts';
import { verifyWhole } from '../../../gpu-worker/weights/verified-source.ts';
import { seededRandom } from '../../support/random.ts';
import { directoryWith, f32, safetensors } from '../../support/weights/published-layouts.ts';

const names = ['a', 'b', 'c', 'd'];
const shape = [16, 25];
const tensors = names.map((name, i) =>
  f32(
    name,
    shape,
    Array.from({ length: 400 }, (_, at) => i + at),
  ),
);
const specs = names.map((name): TensorSpec => ({
  name,
  shape,
  role: 'matrix',
  use: name === 'd' ? 'skipped' : 'needed',
}));

let directory = '';

beforeEach(async () => {
  directory = await directoryWith({
    'config.json': { model_type: 'x' },
    'model.safetensors': safetensors(tensors),
  });
  const manifest = await makeManifest(await openDirectory(directory), { partBytes: 1_000 });
  writeFileSync(join(directory, manifestName), JSON.stringify(manifest));
});

/** Loads a checkpoint: returns the tensors' bytes, or the error. */
async function load(): Promise<string> {
  try {
    await using source = await openSource(directory);
    await readConfig(source);
    const loaded: string[] = [];
    for await (const { name, bytes } of readTensors(await openCheckpoint(source), specs)) {
      loaded.push(`${name} ${Buffer.from(bytes).toString('base64')}`);
    }
    return loaded.toSorted().join('\n');
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function verify(): Promise<string> {
  try {
    await using source = await openSource(directory);
    await verifyWhole(source);
    return 'verified';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function flipBit(name: string, bit: number): () => void {
  const path = join(directory, name);
  const before = readFileSync(path);
  const bytes = Buffer.from(before);
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  writeFileSync(path, bytes);
  return () => writeFileSync(path, before);
}

test('loads the same tensors as without a manifest', async () => {
  const verified = await load();
  writeFileSync(join(directory, manifestName), 'x');
  expect(await load()).toContain(manifestName);
  const manifest = await makeManifest(await openDirectory(directory), { partBytes: 64 });
  writeFileSync(join(directory, manifestName), JSON.stringify(manifest));
  expect(await load()).toBe(verified);
  expect(verified).toMatch(/^a .*\nb .*\nc /);
});

test('any one bit of what is loaded that has flipped is noticed, and the file named', async () => {
  const random = seededRandom(12);
  const { length } = readFileSync(join(directory, 'model.safetensors'));
  // The last tensor is not loaded, and its part begins where the third one ends.
  const loadedBytes = length - 1_600;
  for (let round = 0; round < 60; round++) {
    const mend = flipBit('model.safetensors', random.integer(0, loadedBytes * 8 - 1));
    expect(await load()).toMatch(/model\.safetensors is damaged: its bytes \d+ to \d+ have/);
    mend();
  }
  const mend = flipBit('config.json', 17);
  expect(await load()).toMatch(/config\.json is damaged/);
  mend();
  expect(await verify()).toBe('verified');
});

test('a whole check notices a bit of what is not loaded too, and files that have changed', async () => {
  const { length } = readFileSync(join(directory, 'model.safetensors'));
  const mend = flipBit('model.safetensors', (length - 5) * 8);
  expect(await load()).toMatch(/^a /);
  expect(await verify()).toMatch(/model\.safetensors is damaged/);
  mend();
  writeFileSync(join(directory, 'new.txt'), 'x');
  expect(await verify()).toMatch(/new\.txt is not in sift\.manifest\.json/);
  writeFileSync(join(directory, 'config.json'), '{}');
  expect(await verify()).toMatch(/config\.json has 2 bytes, but \d+ in sift\.manifest\.json/);
});

test('a whole check without a manifest says what is missing', async () => {
  directory = await directoryWith({ 'config.json': '{}' });
  expect(await verify()).toMatch(/has no sift\.manifest\.json to verify it by/);
});

test('the numbers of a manifest are bounded before anything is made of them', async () => {
  const manifest = await makeManifest(await openDirectory(directory), { partBytes: 1_000 });
  for (const partBytes of [0, -1, 1e9, 2 ** 53, 1e300, '8']) {
    writeFileSync(join(directory, manifestName), JSON.stringify({ ...manifest, partBytes }));
    expect(await load()).toMatch(/sift\.manifest\.json: partBytes: /);
  }
  const hash = 'a'.repeat(64);
  const huge = { 'config.json': { bytes: 2e9, sha256: hash, parts: [[2e9, hash]] } };
  writeFileSync(join(directory, manifestName), JSON.stringify({ ...manifest, files: huge }));
  expect(await load()).toMatch(/config\.json has a part of more than/);
});

test('--verify is a switch, and may be given a value or a variable', () => {
  const verifyOf = (args: string[], env = {}) =>
    settingsOfArgs(['--model', 'm', ...args], env).verify;
  expect(verifyOf([])).toBe(false);
  expect(verifyOf(['--verify'])).toBe(true);
  expect(verifyOf(['--verify', 'false'])).toBe(false);
  expect(verifyOf(['--verify', '--port', '1'])).toBe(true);
  expect(verifyOf([], { SIFT_VERIFY: 'true' })).toBe(true);
  expect(() => verifyOf(['--verify', 'perhaps'])).toThrow(/^--verify: /);
});

test('a worker told to verify ends with the damaged file before it loads anything', () => {
  flipBit('model.safetensors', 8 * 3_000);
  const sift = fileURLToPath(new URL('../../../infra/sift.ts', import.meta.url));
  const args = [
    sift,
    'worker',
    '--model',
    directory,
    '--port',
    '0',
    '--data',
    join(directory, 'journal'),
  ];
  const { status, stderr } = spawnSync(process.execPath, [...args, '--verify'], {
    encoding: 'utf8',
  });
  expect(status).not.toBe(0);
  expect(stderr).toContain('model.safetensors is damaged');
  expect(stderr).not.toContain('tokenizer');
});
