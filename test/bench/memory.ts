/**
 * Shows if the edge's memory grows with the requests that it has answered: 50,000 of a mix (whole,
 * streamed, refused, under idempotency keys, with known prefixes, of clients that leave) by several
 * tenants, on a worker that answers at once. Memory is looked at after a forced collection each ten
 * thousand requests; what the first of them fill, caches and heaps, counts for nothing.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { operatorOf, seedModel, seedPrice } from '../support/edge/seed.ts';
import type { Operator } from '../support/edge/seed.ts';
import { scriptArgs } from '../support/npm-script.ts';
import { startProgram } from '../support/started-program.ts';
import { startInstantWorker } from './edge-load.ts';
import { askNth } from './memory-client.ts';
import type { Keys } from './memory-client.ts';
import { looks, measureGrowth, probed } from './memory-looks.ts';
import { recordResult } from './results.ts';

const requestsPerLook = Number(process.argv[2] ?? 10_000);
const connections = 16;
const richTenants = 5;
const unlimited = 1_000_000_000;

const secrets = {
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-benchmark',
  WORKER_TOKEN: 'worker-token-of-the-benchmark',
};
const folder = mkdtempSync(join(tmpdir(), 'sift-memory-'));
const worker = await startInstantWorker();
const edge = await startProgram({
  args: [...probed, ...scriptArgs('edge')],
  env: { ...secrets, PORT: '0', EDGE_DATA: folder },
});
try {
  const keys = await seed(operatorOf(edge.url, secrets.EDGE_ADMIN_TOKEN));
  const figures = await measureGrowth(edge, {
    requestsPerLook,
    connections,
    askNth: (index) => askNth(edge.url, index, keys),
  });
  const shapes = { requestsPerLook, looks, connections, richTenants };
  recordResult({ benchmark: 'memory', shapes, figures });
} finally {
  await edge.stop();
  worker.close();
  rmSync(folder, { recursive: true, force: true });
}
process.exit();

async function seed(operator: Operator): Promise<Keys> {
  const model = { context_length: 65_536, revision: 'r1', tokenizer: 't1' };
  await operator.call('POST', '/models', { id: seedModel, ...model });
  const { inputCached, inputUncached, output } = seedPrice;
  const price = { input_cached: inputCached, input: inputUncached, output };
  await operator.call('POST', '/prices', { model: seedModel, ...price });
  await beat();
  setInterval(() => void beat().catch(() => {}), 4_000).unref();
  const limitTo = (id: string, requests: number): Promise<unknown> =>
    operator.call('PATCH', `/tenants/${id}`, {
      limits: {
        requests_per_minute: requests,
        tokens_per_minute: unlimited,
        concurrent_requests: unlimited,
      },
    });
  const rich: string[] = [];
  for (let each = 0; each < richTenants; each++) {
    rich.push(await operator.addTenant(`rich-${each}`, 1e15));
    await limitTo(`rich-${each}`, unlimited);
  }
  const limited = await operator.addTenant('limited', 1e15);
  await limitTo('limited', 1);
  return { rich, poor: await operator.addTenant('poor', 0), limited };
}

async function beat(): Promise<void> {
  const response = await fetch(`${edge.url}/internal/workers/heartbeat`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secrets.WORKER_TOKEN}` },
    body: JSON.stringify(heartbeatOf({ id: 'stub', url: worker.url, model: seedModel })),
  });
  if (!response.ok) throw new Error(`heartbeat: ${response.status} ${await response.text()}`);
}
