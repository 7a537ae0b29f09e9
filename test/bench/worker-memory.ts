/**
 * Shows if the worker's memory grows with the requests that it has answered: 50,000 short ones,
 * whole and streamed in turn, each with a prompt of its own, asked of the tiny model directly.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scriptArgs } from '../support/npm-script.ts';
import { startProgram } from '../support/started-program.ts';
import { looks, measureGrowth, probed } from './memory-looks.ts';
import { recordResult } from './results.ts';

const requestsPerLook = Number(process.argv[2] ?? 10_000);
const connections = 16;
const outputTokensMax = 4;
const tinyFolder = fileURLToPath(new URL('../../gpu-worker/models/tiny', import.meta.url));
const token = 'worker-token-of-the-benchmark';

const folder = mkdtempSync(join(tmpdir(), 'sift-worker-memory-'));
const model = ['--model', tinyFolder, '--model-id', 'tiny', '--port', '0', '--data', folder];
const worker = await startProgram({
  args: [...probed, ...scriptArgs('worker'), ...model],
  env: { WORKER_TOKEN: token },
});
try {
  const figures = await measureGrowth(worker, { requestsPerLook, connections, askNth });
  const shapes = { requestsPerLook, looks, connections, outputTokensMax, model: 'tiny' };
  recordResult({ benchmark: 'worker-memory', shapes, figures });
} finally {
  await worker.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exit();

async function askNth(index: number): Promise<void> {
  const response = await fetch(`${worker.url}/v1/chat/completions`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'x-request-id': `request-${index}`,
    },
    body: JSON.stringify({
      model: 'tiny',
      messages: [{ role: 'user', content: `${index}: Tell me of the sea.` }],
      max_tokens: 1 + (index % outputTokensMax),
      stream: index % 2 === 1,
    }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`request ${index}: ${response.status} ${text}`);
}
