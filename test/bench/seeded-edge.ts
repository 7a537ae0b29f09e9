/**
 * The edge on Node in a process of its own, with a model, its price and a worker, for benchmarks.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { heartbeatOf } from '../support/edge/fleet-of-runtime.ts';
import { operatorOf, seedModel, seedPrice } from '../support/edge/seed.ts';
import { scriptArgs } from '../support/npm-script.ts';
import { startProgram } from '../support/started-program.ts';

const balanceNanoUsd = 1e15;
const unlimited = 1_000_000_000;
const secrets = {
  WORKER_TOKEN: 'worker-token-of-the-benchmark',
  EDGE_ADMIN_TOKEN: 'admin-token-of-the-benchmark',
};

export interface SeededEdge {
  readonly url: string;
  readonly pid: number;
  /** The folder with the edge's data. */
  readonly folder: string;
  /** Without limits; resolves with its key. */
  addTenant(id: string): Promise<string>;
  stop(): Promise<void>;
}

export async function startSeededEdge(options: {
  readonly workerUrl: string;
  /** Flags of Node for the edge's process. */
  readonly nodeFlags?: readonly string[];
  /** Settings beside those that every benchmark needs. */
  readonly settings?: Readonly<Record<string, string>>;
  /** The CPUs that it may run on, as taskset(1) lists them; all unless given. */
  readonly cpus?: string | undefined;
}): Promise<SeededEdge> {
  const { workerUrl, nodeFlags = [] } = options;
  const folder = mkdtempSync(join(tmpdir(), 'sift-bench-'));
  const program = [...nodeFlags, ...scriptArgs('edge')];
  const env = { ...secrets, PORT: '0', EDGE_DATA: folder, ...options.settings };
  const { url, pid, stop } = await startProgram({ args: program, env, cpus: options.cpus });
  const operator = operatorOf(url, secrets.EDGE_ADMIN_TOKEN);
  await operator.call('POST', '/models', {
    id: seedModel,
    context_length: 65_536,
    revision: 'r1',
    tokenizer: 't1',
  });
  const { inputCached, inputUncached, output } = seedPrice;
  const price = { input_cached: inputCached, input: inputUncached, output };
  await operator.call('POST', '/prices', { model: seedModel, ...price });
  const beat = (): Promise<Response> =>
    fetch(`${url}/internal/workers/heartbeat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${secrets.WORKER_TOKEN}` },
      body: JSON.stringify(heartbeatOf({ id: 'stub', url: workerUrl, model: seedModel })),
    });
  await beat();
  const beats = setInterval(() => void beat().catch(() => {}), 4_000);
  return {
    url,
    pid,
    folder,
    async addTenant(id) {
      const apiKey = await operator.addTenant(id, balanceNanoUsd);
      const limits = {
        requests_per_minute: unlimited,
        tokens_per_minute: unlimited,
        concurrent_requests: unlimited,
      };
      await operator.call('PATCH', `/tenants/${id}`, { limits });
      return apiKey;
    },
    async stop() {
      clearInterval(beats);
      await stop();
      rmSync(folder, { recursive: true });
    },
  };
}
