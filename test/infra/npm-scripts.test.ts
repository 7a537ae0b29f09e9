/** The npm scripts as a supervisor or a terminal ends them: nothing of theirs may live on. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const model = 'gpu-worker/models/tiny';

/** A script in a process group of its own, as a shell starts it in a terminal. */
function runScript(args: readonly string[]) {
  const npm = spawn('npm', ['run', '--silent', ...args], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      PORT: '0',
      WORKER_PORT: '0',
      EDGE_DATA: join(temporaryDirectory(), 'data'),
      SIFT_DATA: join(temporaryDirectory(), 'worker'),
    },
  });
  const { pid } = npm;
  if (pid === undefined) throw new Error('npm did not start');
  let said = '';
  for (const stream of [npm.stdout, npm.stderr]) {
    stream.on('data', (bytes: Buffer) => (said += bytes.toString()));
  }
  const exited = once(npm, 'exit');
  const isAlive = (): boolean => {
    try {
      process.kill(-pid, 0);
      return true;
    } catch {
      return false;
    }
  };
  onTestFinished(() => {
    if (isAlive()) process.kill(-pid, 'SIGKILL');
  });
  return {
    text: () => said,
    async said(text: string): Promise<void> {
      await expect.poll(() => said, { timeout: 90_000 }).toContain(text);
    },
    signalNpm: (signal: NodeJS.Signals) => process.kill(pid, signal),
    pressCtrlC: () => process.kill(-pid, 'SIGINT'),
    /** Waits until npm and all that it started have ended. */
    async ended(): Promise<unknown> {
      const [code] = await exited;
      await expect.poll(isAlive).toBe(false);
      return code;
    },
  };
}

test.each([
  [['edge'], 'listening', 'SIGTERM'],
  [['edge'], 'listening', 'SIGINT'],
  [['worker', '--', '--model', model], '"ready"', 'SIGTERM'],
  [['start'], 'answer.usage', 'SIGTERM'],
] as const)('npm run %j that said %j ends when npm gets %s', async (args, text, signal) => {
  const script = runScript(args);
  await script.said(text);
  script.signalNpm(signal);
  expect(await script.ended()).toBe(0);
  // It was told, and did not merely lose its parent.
  expect(script.text()).toContain('stopping');
});

test('Ctrl-C, which npm passes on a second time, still lets the system end in order', async () => {
  const script = runScript(['start']);
  await script.said('answer.usage');
  script.pressCtrlC();
  expect(await script.ended()).toBe(0);
  expect(script.text()).toContain('stopping: requests under way may finish');
});

test('workerd says what it waits for, and Ctrl-C ends it at any time without a trace', async () => {
  for (const text of ['bundling the edge', 'starting workerd', 'answer.usage']) {
    const script = runScript(['start:workerd']);
    await script.said(text);
    script.pressCtrlC();
    expect(await script.ended()).toBe(0);
    expect(script.text()).not.toMatch(/^\s+at |Error|error/m);
  }
}, 400_000);
