/** A whole edge on Node and a whole worker with the tiny model that announces itself there. */
import { expect } from 'vitest';
import type { Tenant } from '../../edge/tenant/tenant-contract.ts';
import { startNode, testFolder } from './edge/runtime-node.ts';
import { operatorOf } from './edge/seed.ts';
import { startTinyWorker } from './worker/tiny-worker.ts';
import type { TinyWorker } from './worker/tiny-worker.ts';

export const workerToken = 'worker-token-of-the-tests';
const adminToken = 'admin-token-of-the-tests';

export interface TinySystem extends AsyncDisposable {
  readonly worker: TinyWorker;
  /** The tenant whose key `ask` sends. */
  readonly tenant: Tenant;
  ask(path: string, body: object, signal?: AbortSignal): Promise<Response>;
}

export async function startTinySystem(flags: readonly string[] = []): Promise<TinySystem> {
  const closers = new AsyncDisposableStack();
  const folder = testFolder();
  closers.defer(folder.remove);
  const env = { WORKER_TOKEN: workerToken, EDGE_ADMIN_TOKEN: adminToken };
  const edge = await startNode(folder.path, { env });
  closers.defer(() => edge.close());
  const worker = await startTinyWorker(['--edge', edge.url, ...flags], workerToken);
  closers.use(worker);
  const operator = operatorOf(edge.url, adminToken);
  const { contextLength: context_length, revision, tokenizerId: tokenizer } = worker.worker.model;
  await operator.call('POST', '/models', { id: 'tiny', context_length, revision, tokenizer });
  const price = {
    model: 'tiny',
    input_cached: 28_000_000,
    input: 280_000_000,
    output: 420_000_000,
  };
  await operator.call('POST', '/prices', price);
  const apiKey = await operator.addTenant('acme', 100_000_000_000);
  await expect.poll(async () => (await edge.services.fleet.status()).length).toBe(1);
  return {
    worker,
    tenant: edge.services.tenant('acme'),
    ask: (path, body, signal) =>
      fetch(edge.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'tiny', ...body }),
        ...(signal && { signal }),
      }),
    [Symbol.asyncDispose]: () => closers.disposeAsync(),
  };
}
