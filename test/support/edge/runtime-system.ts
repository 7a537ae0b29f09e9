/** The edge on Node with a stub worker and two tenants, each with a dollar and a key. */
import { onTestFinished } from 'vitest';
import type { RunningEdge } from '../../../edge/node/node.ts';
import { startStubWorker } from './edge-stub-worker.ts';
import { startNode, testFolder } from './runtime-node.ts';
import { operatorOf, seedModel, seedModelAndWorker } from './seed.ts';

export const dollar = 1_000_000_000;
export const runtimeSecrets = {
  EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-tests',
  WORKER_TOKEN: 'worker-token-of-the-tests',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-tests',
};

export type RuntimeSystem = Awaited<ReturnType<typeof startRuntimeSystem>>;

type StartOptions = Parameters<typeof startNode>[1] & { readonly dataFolder?: string };

/** Everything ends with the test that called it. */
export async function startRuntimeSystem(options: StartOptions = {}) {
  const { dataFolder, ...startOptions } = options;
  const folder = dataFolder === undefined ? testFolder() : { path: dataFolder, remove: () => {} };
  onTestFinished(folder.remove);
  const start = async (): Promise<RunningEdge> => {
    const edge = await startNode(folder.path, {
      ...startOptions,
      env: { ...runtimeSecrets, ...startOptions.env },
    });
    onTestFinished(() => edge.close());
    return edge;
  };
  let edge = await start();
  const stub = await startStubWorker({ token: runtimeSecrets.WORKER_TOKEN, model: seedModel });
  onTestFinished(() => stub.close());
  const operator = () => operatorOf(edge.url, runtimeSecrets.EDGE_ADMIN_TOKEN);
  const runtime = { url: edge.url, workerToken: runtimeSecrets.WORKER_TOKEN, operator: operator() };
  const worker = await seedModelAndWorker(runtime, stub);
  worker.stop();
  const keys = {
    acme: await operator().addTenant('acme', dollar),
    other: await operator().addTenant('other', dollar),
  };
  return {
    folder: folder.path,
    stub,
    keys,
    edge: () => edge,
    operator,
    stop: () => edge.close(),
    /** The same folder again, after `stop`; its fleet is remembered. */
    async startAgain(): Promise<void> {
      edge = await start();
    },
    ask: (
      tenant: keyof typeof keys,
      body: object = {},
      headers: Readonly<Record<string, string>> = {},
    ): Promise<Response> =>
      fetch(`${edge.url}/v1/chat/completions`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${keys[tenant]}`,
          'content-type': 'application/json',
          ...headers,
        },
        body: JSON.stringify({
          model: seedModel,
          max_tokens: 50,
          messages: [{ role: 'user', content: 'Hi.' }],
          ...body,
        }),
      }),
    /** // The audit route documents this form. */
    audit: async () => (await operator().call('GET', '/audit')) as HomeAudit,
  };
}

export interface HomeAudit {
  readonly ok: boolean;
  readonly findings: readonly { readonly tenant: string; readonly finding: string }[];
  readonly total: { readonly granted_nano_usd: number; readonly held_nano_usd: number };
}
