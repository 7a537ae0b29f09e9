/** Every command explains itself to those who use it for the first time. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { version } from '../../infra/program.ts';
import manifest from '../../package.json' with { type: 'json' };
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

const commands = [
  'start',
  'start-workerd',
  'demo',
  'edge',
  'worker',
  'admin',
  'receipt',
  'score',
  'plan',
  'render',
  'parse',
  'manifest',
  'bench',
  'fuzz',
  'hostile',
  'soak',
];
const sift = 'infra/sift.ts';
/** Run before a program begins. */
const showHeap = `
  import { getHeapSpaceStatistics } from 'node:v8';
  const { space_size } = getHeapSpaceStatistics().find((each) => each.space_name === 'new_space');
  const { pid, execArgv: flags } = process;
  console.error(JSON.stringify({ pid, flags, newSpaceMiB: space_size / 2 ** 20 }));
`;

test.each([...commands.map((name) => [sift, name]), [sift], ['test/bench/gpu.ts']])(
  '%s %s explains itself and starts nothing',
  (...program) => {
    const helped = run([...program, '--help']);
    expect(helped).toMatchObject({ status: 0, stderr: '', hasWritten: false });
    const typed = program[0] === sift ? ['sift', ...program.slice(1)] : ['npm run bench:gpu --'];
    expect(helped.stdout).toContain(`Usage: ${typed.join(' ')} `);
    expect(helped.stdout).toContain('--version');
    const mistyped = run([...program, '--hepl']);
    expect(mistyped).toMatchObject({ status: 2, stdout: '', hasWritten: false });
    expect(mistyped.stderr).toBe(
      "error: unknown option '--hepl'\n(Did you mean --help?)\n(--help says how it is used)\n",
    );
  },
);

test.each([
  ['start', 8],
  ['start-workerd', 8],
  ['edge', 16],
  ['worker', 8],
])(
  'sift %s runs with young generations of %d MiB, and keeps the flags that Node was given',
  (name, sizeMiB) => {
    const probe = `data:text/javascript,${encodeURIComponent(showHeap)}`;
    const flags = ['--import', probe, '--stack-trace-limit=20'];
    const { status, stderr } = run([...flags, sift, name, '--help']);
    expect(status).toBe(0);
    const [before, after, ...others] = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(others).toEqual([]);
    expect(after.newSpaceMiB).toBe(sizeMiB);
    expect(after.pid).toBe(before.pid);
    expect(after.flags).toEqual(expect.arrayContaining(before.flags));

    const own = run(['--import', probe, '--max-semi-space-size=4', sift, name, '--help']);
    expect(own.stderr).toContain('--max-semi-space-size=4');
    expect(own.stderr).not.toContain(`--max-semi-space-size=${sizeMiB}`);
  },
);

test('commands that end soon do not start twice', () => {
  const probe = `data:text/javascript,${encodeURIComponent(showHeap)}`;
  const { stderr } = run(['--import', probe, sift, 'admin', '--help']);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});

test.each([[sift], [sift, 'worker'], [sift, 'admin']])('%s %s tells its version', (...program) => {
  expect(run([...program, '--version'])).toMatchObject({ status: 0, stdout: `${version}\n` });
});

test('the help of sift lists every command, and a mistyped one is answered with the nearest', () => {
  const listed = run([sift, '--help']).stdout.split('Commands:')[1] ?? '';
  const names = [...listed.matchAll(/^ {2}([a-z-]+) /gm)].map(([, name]) => name);
  expect(names).toEqual(commands);
  expect(run([sift, 'wroker'])).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('(Did you mean worker?)'),
  });
});

test('npm runs every command by the one program', () => {
  const { scripts, bin } = manifest;
  expect(bin).toEqual({ sift });
  const started = Object.values(scripts).flatMap((script) => script.split(`${sift} `).slice(1));
  expect(started.toSorted()).toEqual(commands.toSorted());
});

test('what is missing or wrong on a command line is one line, and code 2', () => {
  const cases: [string[], RegExp][] = [
    [['start', 'now'], /too many arguments/],
    [['edge', '--port', '1'], /unknown option '--port'/],
    [['worker'], /--model: is missing: give a checkpoint directory/],
    [['worker', '--modle', 'x'], /Did you mean --model\?/],
    [['worker', '--model', 'x', '--port', 'x'], /--port: /],
    [['worker', '--model', 'x', '--edge', 'edge'], /--edge: /],
    [['manifest'], /--model is missing/],
    [['score', '--model', 'x'], /--ids is missing/],
    [['render', '--model', 'x'], /--request is missing/],
    [['parse', '--model', 'x'], /--completion is missing/],
    [['scor'], /Did you mean score\?/],
    [['bench', 'wroker'], /Allowed choices are worker, /],
  ];
  for (const [args, message] of cases) {
    const { status, stderr } = run([sift, ...args]);
    expect([args, status, stderr]).toEqual([args, 2, expect.stringMatching(message)]);
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(3);
  }
});

test('a setting with a slip in its name is refused with the one that was meant', () => {
  const { status, stderr } = run(['infra/sift.ts', 'edge'], { EDGE_HSOT: '127.0.0.1' });
  expect([status, stderr]).toEqual([
    1,
    expect.stringContaining('EDGE_HSOT is no setting of the edge, EDGE_HOST is'),
  ]);
});
