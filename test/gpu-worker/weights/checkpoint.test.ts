import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../../gpu-worker/weights/checkpoint.ts';
import { openDirectory } from '../../../gpu-worker/weights/directory-source.ts';
import { readConfig, readTokenizerFiles } from '../../../gpu-worker/weights/json-files.ts';
import { CheckpointError } from '../../../gpu-worker/weights/source.ts';
import {
  directoryWith,
  f32,
  rawFile,
  safetensors,
} from '../../support/weights/published-layouts.ts';
import type { FileContents } from '../../support/weights/published-layouts.ts';

const tiny = new URL('../../../gpu-worker/models/tiny/', import.meta.url);

const a = f32('a', [2], [1, 2]);
const b = f32('b', [1, 2], [3, 4]);
const sharded = {
  'config.json': { model_type: 'x' },
  'model.safetensors.index.json': { weight_map: { a: '1.safetensors', b: '2.safetensors' } },
  '1.safetensors': safetensors([a]),
  '2.safetensors': safetensors([b]),
};

async function checkpointOf(files: FileContents) {
  return openCheckpoint(await openDirectory(await directoryWith(files)));
}

async function modelFiles(contents: FileContents) {
  const source = await openDirectory(await directoryWith(contents));
  return { config: await readConfig(source), ...(await readTokenizerFiles(source)) };
}

async function refusal(opening: Promise<unknown>): Promise<string> {
  const error: unknown = await opening.then(
    () => 'accepted',
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  return error instanceof Error ? error.message : '';
}

describe('a directory', () => {
  test('is found by its path and by its file URL', async () => {
    const path = await directoryWith(sharded);
    const fromUrl = await openDirectory(pathToFileURL(path).href);
    expect(fromUrl.files).toEqual((await openDirectory(path)).files);
    expect(fromUrl.files.map((file) => file.name)).toEqual(Object.keys(sharded).toSorted());
  });

  test('may hold links to files, as download caches do, and folders, which are not listed', async () => {
    const blobs = await directoryWith({ blob: safetensors([a]) });
    const path = await directoryWith({ 'config.json': '{}' });
    await symlink(join(blobs, 'blob'), join(path, 'model.safetensors'));
    await symlink(join(blobs, 'gone'), join(path, 'dangling.safetensors'));
    await mkdir(join(path, 'figures'));
    const source = await openDirectory(path);
    expect(source.files.map((file) => file.name)).toEqual(['config.json', 'model.safetensors']);
    expect([...(await openCheckpoint(source)).tensors.keys()]).toEqual(['a']);
  });

  test('that does not exist, is a file, or is on another host is refused', async () => {
    const path = await directoryWith(sharded);
    expect(await refusal(openDirectory(join(path, 'nowhere')))).toContain('nowhere');
    expect(await refusal(openDirectory(join(path, 'config.json')))).toContain('config.json');
    expect(await refusal(openDirectory('file://host/model'))).toContain('not a local file URL');
  });

  test('whose file shrinks after it was listed gives an error that names the file', async () => {
    const path = await directoryWith({ x: 'twelve bytes' });
    const source = await openDirectory(path);
    await writeFile(join(path, 'x'), 'five.');
    const message = await refusal(source.read('x', 0, new Uint8Array(12)));
    expect(message).toContain(join(path, 'x'));
    expect(message).toContain('ends at byte 5');
  });
});

describe('a checkpoint', () => {
  test('is a single model.safetensors or the shards of an index', async () => {
    const single = await checkpointOf({
      'config.json': '{}',
      'model.safetensors': safetensors([a, b]),
    });
    const shards = await checkpointOf(sharded);
    expect([...single.tensors.keys()]).toEqual(['a', 'b']);
    expect([...shards.tensors.keys()]).toEqual(['a', 'b']);
    expect(shards.tensors.get('b')?.file).toBe('2.safetensors');
  });

  test('without tensors or without config.json is refused', async () => {
    expect(await refusal(checkpointOf({ 'config.json': '{}' }))).toContain('neither');
    const { 'config.json': _, ...rest } = sharded;
    expect(await refusal(checkpointOf(rest))).toContain('config.json is missing');
  });

  test('whose shard is missing is refused with the shard and a tensor', async () => {
    const { '2.safetensors': _, ...rest } = sharded;
    const message = await refusal(checkpointOf(rest));
    expect(message).toContain('tensor b');
    expect(message).toContain('"2.safetensors", which is missing');
  });

  test('whose shard lacks a tensor of the index is refused', async () => {
    const message = await refusal(checkpointOf({ ...sharded, '2.safetensors': safetensors([]) }));
    expect(message).toContain('puts the tensor b in 2.safetensors, which lacks it');
  });

  test('whose shard holds a tensor that the index lacks or puts elsewhere is refused', async () => {
    const extra = safetensors([b, f32('c', [1], [5])]);
    const unlisted = await refusal(checkpointOf({ ...sharded, '2.safetensors': extra }));
    expect(unlisted).toContain('2.safetensors holds the tensor c');
    expect(unlisted).toContain('does not list');
    const moved = await refusal(checkpointOf({ ...sharded, '2.safetensors': safetensors([a, b]) }));
    expect(moved).toContain('2.safetensors holds the tensor a');
    expect(moved).toContain('puts in 1.safetensors');
  });

  test.each([
    '../model.safetensors',
    '/tmp/x.safetensors',
    'folder/x.safetensors',
    'folder\\x.safetensors',
    '..',
    'config.json',
    '',
    7,
  ])(
    'whose index leads out of the directory or to another kind of file (%j) is refused',
    async (shard) => {
      const index = { weight_map: { a: shard } };
      const message = await refusal(
        checkpointOf({ ...sharded, 'model.safetensors.index.json': index }),
      );
      expect(message).toContain('tensor a');
      expect(message).toContain('not the name of a .safetensors file');
    },
  );

  test.each([
    ['no map', '{}', 'no weight_map'],
    ['a list for a map', '{"weight_map":["a"]}', 'no weight_map'],
    ['text', 'weights', 'not valid JSON'],
    ['a tensor twice', '{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}', 'twice'],
  ])('whose index holds %s is refused', async (_, index, problem) => {
    const files = { ...sharded, 'model.safetensors.index.json': index };
    const message = await refusal(checkpointOf(files));
    expect(message).toContain('model.safetensors.index.json');
    expect(message).toContain(problem);
  });

  test('of two shards is read from the tiny model', async () => {
    const { tensors, revision } = await openCheckpoint(await openDirectory(tiny.href));
    expect(tensors.size).toBe(196);
    expect(tensors.get('lm_head.weight')?.shape).toEqual([4096, 256]);
    expect(revision).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('the revision', () => {
  const single = { 'config.json': '{"a":1}', 'model.safetensors': safetensors([a, b]) };

  test('is the same for equal checkpoints wherever they lie, and ignores other files', async () => {
    const { revision } = await checkpointOf(single);
    expect((await checkpointOf({ ...single, 'README.md': 'hello' })).revision).toBe(revision);
  });

  test.each([
    ['config.json differs by a space', { ...single, 'config.json': '{"a": 1}' }],
    [
      'a tensor has another name',
      { ...single, 'model.safetensors': safetensors([a, { ...b, name: 'c' }]) },
    ],
    [
      'a tensor has another shape',
      { ...single, 'model.safetensors': safetensors([a, { ...b, shape: [2, 1] }]) },
    ],
    ['the file has another size', { ...single, 'model.safetensors': safetensors([a, b], {}) }],
  ])('differs when %s', async (_, files) => {
    expect((await checkpointOf(files)).revision).not.toBe((await checkpointOf(single)).revision);
  });
});

describe('the model files', () => {
  const files = {
    'config.json': { model_type: 'x' },
    'tokenizer.json': { model: {} },
    'tokenizer_config.json': { chat_template: 'old', bos_token: '<s>' },
  };

  test('are config, tokenizer and, if there is one, generation config', async () => {
    expect(await modelFiles(files)).toEqual({
      config: { model_type: 'x' },
      tokenizerJson: { model: {} },
      tokenizerConfig: { chat_template: 'old', bos_token: '<s>' },
      generationConfig: null,
    });
    const generation = { ...files, 'generation_config.json': { temperature: 0.6 } };
    expect((await modelFiles(generation)).generationConfig).toEqual({ temperature: 0.6 });
  });

  test('take the chat template from chat_template.jinja where it stands', async () => {
    const { tokenizerConfig } = await modelFiles({ ...files, 'chat_template.jinja': '{{ new }}' });
    expect(tokenizerConfig).toEqual({ chat_template: '{{ new }}', bos_token: '<s>' });
  });

  test.each(['config.json', 'tokenizer.json', 'tokenizer_config.json'])(
    'are refused when %s is missing, not JSON or no object',
    async (name) => {
      const { [name]: _, ...rest } = { ...files } as FileContents; // A plain map of the same files.
      expect(await refusal(modelFiles(rest))).toContain(`${name} is missing`);
      expect(await refusal(modelFiles({ ...files, [name]: '{' }))).toContain(name);
      expect(await refusal(modelFiles({ ...files, [name]: '[1]' }))).toContain(
        `${name} is not a JSON object`,
      );
    },
  );

  test('whose JSON nests without end is refused by the name of the file', async () => {
    const deep = '{"a":'.repeat(100_000) + '1' + '}'.repeat(100_000);
    const inHeader = { ...sharded, '1.safetensors': rawFile(deep, new Uint8Array()) };
    for (const deepFiles of [{ ...sharded, 'model.safetensors.index.json': deep }, inHeader]) {
      expect(await refusal(checkpointOf(deepFiles))).toMatch(/nests more than 64 levels/);
    }
    const inTokenizer = { 'config.json': '{}', 'tokenizer.json': '{"x":' + '['.repeat(1e6) };
    expect(await refusal(modelFiles(inTokenizer))).toMatch(/tokenizer\.json nests more than/);
  });
});
