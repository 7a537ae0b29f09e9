/** kill -9 of a whole worker: what its journal says afterwards of the request that it was at. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { systemClock } from '../../gpu-worker/http/clock.ts';
import { openUsageJournal } from '../../gpu-worker/http/journal/usage-journal.ts';
import { usageRecordSchema } from '../../gpu-worker/protocol/usage.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const prompt = Array.from({ length: 60_000 }, (_, index) => 300 + ((index * 7) % 1000));

test('after kill -9 in the middle of a prefill the tokens that it reached by the last checkpoint stand', async () => {
  const data = temporaryDirectory();
  const { url, kill } = await startWorker(data);
  const answer = fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-request-id': 'long' },
    body: JSON.stringify({ model: 'sift-tiny', prompt, max_tokens: 1 }),
  }).catch(() => null);
  const record = async () => {
    const response = await fetch(`${url}/v1/requests/long/usage`);
    return response.ok ? usageRecordSchema.parse(await response.json()) : null;
  };
  await expect.poll(async () => (await record())?.status).toBe('running');
  const { created } = (await record()) ?? { created: 0 };
  // Counts of more than two seconds after the beginning follow a checkpoint.
  await expect.poll(async () => (await record())?.updated).toBeGreaterThan(created + 2);
  const before = await record();
  await kill();
  await answer;

  const journals = join(data, 'journal');
  const [name] = readdirSync(journals);
  const logger = pino({ level: 'silent' });
  const directory = join(journals, name ?? '');
  const journal = await openUsageJournal({ directory, clock: systemClock, logger });
  const after = await journal.lookup('long');
  await journal.close();
  expect(after).toMatchObject({ status: 'interrupted', usage: { completion_tokens: 0 } });
  expect(after?.usage.prompt_tokens).toBeGreaterThan(0);
  expect(before?.usage.prompt_tokens).toBeGreaterThan(0);
  expect(after?.usage.prompt_tokens).toBeLessThan(prompt.length);
});

/** Resolves once it is ready. */
async function startWorker(data: string): Promise<{ url: string; kill(): Promise<void> }> {
  const model = join(root, 'gpu-worker/models/tiny');
  const flags = ['--model', model, '--port', '0', '--data', data, '--threads', '1'];
  const worker = spawn(
    process.execPath,
    ['infra/sift.ts', 'worker', ...flags, '--step-tokens', '64'],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const kill = async (): Promise<void> => {
    worker.kill('SIGKILL');
    await once(worker, 'close');
  };
  onTestFinished(() => void worker.kill('SIGKILL'));
  let said = '';
  for await (const chunk of worker.stdout) {
    said += String(chunk);
    const ready = said.split('\n').find((line) => line.includes('"msg":"ready"'));
    if (ready !== undefined) {
      return { ...z.object({ url: z.string() }).parse(JSON.parse(ready)), kill };
    }
  }
  throw new Error(`the worker did not start: ${said}`);
}
