/** `sift plan` as people call it. */
import { execFile, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { configure, h200CopyBytesPerSecond } from '../../../gpu-worker/commands/plan.ts';
import { createProgram, runProgram } from '../../../infra/program.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';
import { useStore } from '../../support/weights/s3-checkpoint.ts';
import { putDirectory, startS3Double } from '../../support/weights/s3-double.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const tiny = 'gpu-worker/models/tiny';

function plan(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['infra/sift.ts', 'plan', ...args],
    { cwd: root, encoding: 'utf8' },
  );
  return { status, stdout, stderr };
}

test('a plan for more than one GPU has a line for each layout, and says that none is served', () => {
  const { status, stdout, stderr } = plan('--model', tiny, '--gpus', '4');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const layouts = [...stdout.matchAll(/^(T\d x D\d) /gm)].map(([, name]) => name);
  const names = ['T4 x D1', 'T2 x D2', 'T1 x D4'];
  expect(layouts).toEqual([...names, ...names]);
  expect(stdout).toMatch(/^For latency T\d x D\d: one stream at 32K takes at least [\d.]+ ms/m);
  expect(stdout).toMatch(/^For throughput T\d x D\d: [\d,]+ streams at 32K get at most [\d,]+ /m);
  expect(stdout).toMatch(/^Planned only: a worker serves one GPU, and no layout of 4 can be /m);
});

test('with --json it is one object', () => {
  const { status, stdout } = plan('--model', tiny, '--gpus', '1', '--json', '--gpu-bytes', '20e9');
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    model: { modelType: 'deepseek_v32', layers: 4, basis: 'headers' },
    options: { gpus: 1, gpuBytes: 20e9 },
    isServed: true,
    layouts: [{ tensorParallel: 1, dataParallel: 1, fault: null, tokens: {}, steps: [{}, {}, {}] }],
    advice: { latency: {}, throughput: {} },
  });
});

test('of a checkpoint in a store, config.json and the index are read and no weights', async () => {
  await using double = await startS3Double();
  useStore(double.url);
  putDirectory(double, join(root, tiny), 'tiny');
  const asked = new Set<string>();
  double.fault = ({ key }) => {
    asked.add(key);
    return null;
  };
  const flags = ['--model', 's3://models/tiny', '--gpus', '2', '--json'];
  const env = { ...process.env, SIFT_WEIGHTS_CACHE: temporaryDirectory() };
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['infra/sift.ts', 'plan', ...flags],
    { cwd: root, env },
  );
  expect(JSON.parse(stdout)).toMatchObject({ model: { basis: 'index' }, layouts: [{}, {}] });
  expect([...asked].filter((key) => key.endsWith('.safetensors'))).toEqual([]);
  expect([...asked].some((key) => key.endsWith('model.safetensors.index.json'))).toBe(true);
});

test('a GPU is taken to read memory as fast as an H200 was measured to copy it', () => {
  const lines = readFileSync(join(root, 'test/bench/results.jsonl'), 'utf8').trimEnd().split('\n');
  const copy = lines.findLast(
    (line) => line.includes('"benchmark":"gpu-copy"') && line.includes('NVIDIA H200'),
  );
  const { figures } = JSON.parse(copy ?? '{}');
  expect(h200CopyBytesPerSecond / (figures.gbPerSecond * 1e9)).toBeGreaterThan(0.98);
  expect(h200CopyBytesPerSecond / (figures.gbPerSecond * 1e9)).toBeLessThan(1.02);
});

test('what is wrong is said in one line', async () => {
  const empty = temporaryDirectory();
  const unknown = temporaryDirectory();
  writeFileSync(join(unknown, 'config.json'), '{"model_type": "llama"}');
  const usage = /^error: --[^\n]+\n\(--help says how it is used\)\n$/;
  const cases: [string[], number, RegExp][] = [
    [[], 2, /--model is missing/],
    [['--model', tiny, '--gpus', '0'], 2, /--gpus must be 1, 2, 4 or 8/],
    [['--model', tiny, '--gpus', '3'], 2, /--gpus must be 1, 2, 4 or 8/],
    [['--model', tiny, '--gpu-bytes', 'much'], 2, /--gpu-bytes is no number of bytes/],
    [['--model', tiny, '--gpu-bytes', '-141e9'], 2, /--gpu-bytes is no number of bytes/],
    [['--model', tiny, '--gpu-bytes', '1e99'], 2, /--gpu-bytes is no number of bytes/],
    [['--model', tiny, '--gpu-bytes', '141'], 2, /--gpu-bytes is /],
    [['--model', tiny, '--hbm', '0'], 2, /--hbm is no number of bytes a second/],
    [['--model', tiny, '--numerics', 'int4'], 2, /--numerics /],
    [['--model', tiny, '--step-tokens', '1.5'], 2, /--step-tokens is no whole number/],
    [['--model', '/nowhere/model'], 1, /^\/nowhere\/model is not a readable directory/],
    [['--model', empty], 1, /config\.json is missing\n$/],
    [['--model', unknown], 1, /^model_type is "llama".*deepseek_v3, deepseek_v32, glm_moe_dsa/],
  ];
  for (const [args, status, line] of cases) {
    let said = '';
    const program = createProgram('sift plan', 'a plan');
    program.configureOutput({ writeErr: (text) => (said += text) });
    configure(program);
    expect([args, await runProgram(program, args)]).toEqual([args, status]);
    expect(said).toMatch(line);
    expect(said).toMatch(status === 2 ? usage : /^[^\n]+\n$/);
  }
});
