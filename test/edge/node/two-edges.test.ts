/** One data folder, one edge: two would not see each other's suspensions, prices and holds. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { hostname } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { startNode, testFolder } from '../../support/edge/runtime-node.ts';
import { runtimeSecrets } from '../../support/edge/runtime-system.ts';

function newFolder(): string {
  const folder = testFolder();
  onTestFinished(folder.remove);
  return folder.path;
}

function spawnEdge(folder: string) {
  const child = spawn(process.execPath, ['infra/sift.ts', 'edge'], {
    env: { ...process.env, ...runtimeSecrets, PORT: '0', EDGE_DATA: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

test('a second edge on a folder refuses to start and names the first', async () => {
  const folder = newFolder();
  const first = await startNode(folder);
  onTestFinished(() => first.close());
  const owner = `process ${process.pid} on ${hostname()} since \\d{4}-`;
  await expect(startNode(folder)).rejects.toThrow(
    new RegExp(`is in use by another edge, ${owner}.*; stop that one, or set EDGE_DATA`),
  );
  const second = spawnEdge(folder);
  let said = '';
  second.stderr.on('data', (chunk) => (said += String(chunk)));
  const [code] = await once(second, 'exit');
  expect(code).toBe(1);
  expect(said).toMatch(new RegExp(owner));
  expect((await fetch(`${first.url}/health`)).status).toBe(200);
  await first.close();
  const third = await startNode(folder);
  await third.close();
});

test('the folder of an edge that was killed is free at once', async () => {
  const folder = newFolder();
  const child = spawnEdge(folder);
  await once(child.stdout, 'data');
  await expect(startNode(folder)).rejects.toThrow(new RegExp(`process ${child.pid} on`));
  child.kill('SIGKILL');
  await once(child, 'exit');
  const next = await startNode(folder);
  await next.close();
});

test('an edge that fails to start leaves the folder free', async () => {
  const folder = newFolder();
  const first = await startNode(newFolder());
  onTestFinished(() => first.close());
  const taken = { env: { PORT: new URL(first.url).port } };
  await expect(startNode(folder, taken)).rejects.toThrow(/is in use/);
  const next = await startNode(folder);
  await next.close();
});
