/** Several worker processes load one checkpoint through one cache directory at the same time. */
import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { openDirectory } from '../../../../gpu-worker/weights/directory-source.ts';
import {
  digestOf,
  useStore,
  writePartedCheckpoint,
} from '../../../support/weights/s3-checkpoint.ts';
import { putDirectory, startS3Double } from '../../../support/weights/s3-double.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const child = fileURLToPath(new URL('../../../support/weights/s3-load-child.ts', import.meta.url));
const folder = temporaryDirectory();

test('processes that share a cache load the right weights, though one of them is killed', async () => {
  await using double = await startS3Double();
  useStore(double.url);
  double.fault = ({ range }) => (range === null ? null : { kind: 'slow', pieceMs: 1 });
  const directory = writePartedCheckpoint(join(folder, 'shared'), 7);
  const truth = await digestOf(await openDirectory(directory));
  putDirectory(double, directory, 'shared');
  const cache = mkdtempSync(join(folder, 'cache-'));

  const victim = startLoad(cache);
  const loads = Array.from({ length: 3 }, () => startLoad(cache));
  await sleep(300);
  victim.process.kill('SIGKILL');
  for (const { output } of loads) expect(await output).toBe(`loading\n${truth}\n`);
  await victim.output;

  const before = rangesAsked();
  expect(await startLoad(cache).output).toBe(`loading\n${truth}\n`);
  const laterParts = rangesAsked() - before;
  expect(laterParts, 'a later load finds every part in the cache').toBe(0);

  function rangesAsked(): number {
    return double.requests.filter(({ range }) => range !== null).length;
  }
});

function startLoad(cache: string) {
  const loading = spawn(process.execPath, [child, 's3://models/shared', cache], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, NODE_COMPILE_CACHE: join(folder, 'compiled') },
  });
  return { process: loading, output: text(loading.stdout) };
}
