/** What every program of the npm scripts owes to who starts it for the first time. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { version } from '../../infra/program.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const data = join(temporaryDirectory(), 'data');
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, EDGE_DATA: data, SIFT_DATA: data, PORT: '0', WORKER_PORT: '0', ...env },
  });
  return { status, stdout, stderr, hasWritten: existsSync(data) };
}

const programs = [
  ['infra/start.ts'],
  ['infra/start-workerd.ts'],
  ['edge/node/node.ts'],
  ['edge/cli/cli.ts'],
  ['gpu-worker/main.ts'],
  ['gpu-worker/commands/manifest.ts'],
  ['gpu-worker/commands/score.ts', 'score'],
  ['test/bench/run.ts'],
  ['test/bench/gpu.ts'],
  ['test/hostile/run.ts'],
  ['test/soak/run.ts'],
];

test.each(programs)('%s %s explains itself and starts nothing', (...program) => {
  const helped = run([...program, '--help']);
  expect(helped).toMatchObject({ status: 0, stderr: '', hasWritten: false });
  expect(helped.stdout).toMatch(/^Usage: npm (run|start)/);
  expect(helped.stdout).toContain('--version');
  expect(run([...program, '--version'])).toMatchObject({ status: 0, stdout: `${version}\n` });
  const mistyped = run([...program, '--hepl']);
  expect(mistyped).toMatchObject({ status: 2, stdout: '', hasWritten: false });
  expect(mistyped.stderr).toBe(
    "error: unknown option '--hepl'\n(Did you mean --help?)\n(--help says how it is used)\n",
  );
});

test('what is missing or wrong on a command line is one line, and code 2', () => {
  const cases: [string[], RegExp][] = [
    [['infra/start.ts', 'now'], /too many arguments/],
    [['edge/node/node.ts', '--port', '1'], /unknown option '--port'/],
    [['gpu-worker/main.ts'], /--model: is missing: give a checkpoint directory/],
    [['gpu-worker/main.ts', '--modle', 'x'], /Did you mean --model\?/],
    [['gpu-worker/main.ts', '--model', 'x', '--port', 'x'], /--port: /],
    [['gpu-worker/main.ts', '--model', 'x', '--edge', 'edge'], /--edge: /],
    [['gpu-worker/commands/manifest.ts'], /--model is missing/],
    [['gpu-worker/commands/score.ts', 'score', '--model', 'x'], /--ids is missing/],
    [['gpu-worker/commands/score.ts', 'scor'], /Did you mean score\?/],
    [['test/bench/run.ts', 'wroker'], /Allowed choices are worker, /],
  ];
  for (const [args, message] of cases) {
    const { status, stderr } = run(args);
    expect([args, status, stderr]).toEqual([args, 2, expect.stringMatching(message)]);
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(3);
  }
});

test('a setting with a slip in its name is refused with the one that was meant', () => {
  const { status, stderr } = run(['edge/node/node.ts'], { EDGE_HSOT: '127.0.0.1' });
  expect([status, stderr]).toEqual([
    1,
    expect.stringContaining('EDGE_HSOT is no setting of the edge, EDGE_HOST is'),
  ]);
});
