/** The tiny model over S3, through the worker's own door. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { startWorker } from '../../../../gpu-worker/main.ts';
import type { WorkerSettings } from '../../../../gpu-worker/settings.ts';
import { settingsOfArgs } from '../../../support/worker/worker-settings.ts';
import { useStore } from '../../../support/weights/s3-checkpoint.ts';
import { putDirectory, startS3Double } from '../../../support/weights/s3-double.ts';
import { temporaryDirectory } from '../../../support/temporary-directory.ts';

const tiny = fileURLToPath(new URL('../../../../gpu-worker/models/tiny', import.meta.url));
const folder = temporaryDirectory();
const port = 20_000 + (process.pid % 20_000);
const logger = pino({ level: 'silent' });

function settingsFor(model: string): WorkerSettings {
  const places = ['--data', join(folder, 'data'), '--weights-cache', join(folder, 'cache')];
  const size = ['--cache-tokens', '4096', '--threads', '1'];
  const flags = ['--model', model, '--model-id', 'tiny', '--port', String(port)];
  return settingsOfArgs([...flags, ...places, ...size], {});
}

/** The status and reason of /health until it is ready, each once. */
async function watchHealth(): Promise<string[]> {
  const seen = new Set<string>();
  for (;;) {
    const response = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null);
    const health = await response?.json();
    if (health) seen.add(`${response?.status} ${health.status}: ${health.reason}`);
    if (response?.ok) return [...seen];
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function firstWords(): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'tiny', prompt: 'Hello', max_tokens: 8, temperature: 0 }),
  });
  const { choices } = await response.json();
  return choices[0].text;
}

test('a worker tells how far its load is, answers as from the directory, and starts warm again', async () => {
  const local = await startWorker(settingsFor(tiny), logger);
  const expected = await firstWords();
  await local.close({ graceMs: 0 });

  await using double = await startS3Double();
  useStore(double.url);
  putDirectory(double, tiny, 'tiny');
  double.fault = ({ key, range }) =>
    key.endsWith('.safetensors') && range !== null ? { kind: 'slow', pieceMs: 20 } : null;
  const watching = watchHealth();
  const cold = await startWorker(settingsFor('s3://models/tiny'), logger);
  const seen = await watching;
  expect(seen.filter((line) => line.startsWith('503 starting: loading weights: 0.0'))).not.toEqual(
    [],
  );
  expect(seen.join('\n')).toMatch(/of 0\.02 GB, \d+\.\d\d GB\/s, \d+ s left/);
  expect(seen.at(-1)).toBe('200 ready: null');
  expect(await firstWords()).toBe(expected);
  await cold.close({ graceMs: 0 });

  double.requests.length = 0;
  const warm = await startWorker(settingsFor('s3://models/tiny'), logger);
  expect(await firstWords()).toBe(expected);
  expect(double.requests.filter(({ range }) => range !== null)).toEqual([]);
  await warm.close({ graceMs: 0 });
});

test('a worker whose weights are not there does not start, and says why', async () => {
  await using double = await startS3Double();
  useStore(double.url);
  await expect(startWorker(settingsFor('s3://models/tiny'), logger)).rejects.toThrow(
    's3://models/tiny holds no files',
  );
});
