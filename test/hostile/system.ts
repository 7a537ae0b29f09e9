/**
 * The whole system that attacks are run against: the edge on Node or in workerd and a worker with
 * the tiny model, each a process of its own on a free port of loopback, with data in a temporary
 * folder, and three tenants: a victim, an attacker, and one without money.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { operatorOf, seedPrice } from '../support/edge/seed.ts';
import type { Operator } from '../support/edge/seed.ts';
import { scriptArgs } from '../support/npm-script.ts';
import { startProgram } from '../support/started-program.ts';
import type { StartedProgram } from '../support/started-program.ts';

/** The runtimes that the edge runs in. */
export const runtimes = ['node', 'workerd'] as const;
export type Runtime = (typeof runtimes)[number];

export const servedModel = 'tiny';
const tinyFolder = fileURLToPath(new URL('../../gpu-worker/models/tiny', import.meta.url));
const tinyContextTokens = 163_840;
const startBalance = 1_000_000_000_000;
const announcedMsMax = 30_000;

export const secrets = {
  adminToken: 'admin-token-of-the-attacks',
  workerToken: 'worker-token-of-the-attacks',
  stripeWebhookSecret: 'whsec_of_the_attacks',
};

export interface Caller {
  readonly tenant: string;
  readonly key: string;
}

export interface HostileSystem extends AsyncDisposable {
  /** The runtime of the edge. */
  readonly runtime: Runtime;
  readonly edge: StartedProgram;
  readonly worker: StartedProgram;
  readonly operator: Operator;
  readonly victim: Caller;
  readonly attacker: Caller;
  readonly poor: Caller;
  /** The edge and the worker keep their data there. */
  readonly folder: string;
  /** Adds a tenant for an attack that needs one of its own; named after the attack. */
  addTenant(name: string, balanceNanoUsd?: number): Promise<Caller>;
  /**
   * To the edge; text and bytes go as they are. The model is the worker's unless the body names
   * one.
   */
  post(caller: Caller, path: string, body: PostBody, init?: PostInit): Promise<Response>;
  get(caller: Caller, path: string): Promise<Response>;
}

type PostBody = string | Uint8Array<ArrayBuffer> | Readonly<Record<string, unknown>>;

interface PostInit {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** The parts of a system of attacks that not every one has. */
interface HostileOptions {
  readonly edgeEnv?: Readonly<Record<string, string>>;
  readonly workerFlags?: readonly string[];
  /** Flags for Node, of both programs. */
  readonly nodeFlags?: readonly string[];
  readonly runtime?: Runtime;
  /** The CPUs that both programs may run on, as taskset(1) lists them; all unless given. */
  readonly cpus?: string | undefined;
}

export async function startHostileSystem(options: HostileOptions = {}): Promise<HostileSystem> {
  const { nodeFlags = [], workerFlags = [], runtime = 'node', cpus } = options;
  const closers = new AsyncDisposableStack();
  try {
    const folder = mkdtempSync(join(tmpdir(), 'sift-hostile-'));
    closers.defer(() => rmSync(folder, { recursive: true, force: true }));
    const edge = await startProgram({
      args: [...nodeFlags, ...edgeArgs[runtime]],
      env: { ...edgeEnv(folder), ...options.edgeEnv },
      cpus,
    });
    closers.defer(edge.stop);
    const worker = await startProgram({
      args: [...nodeFlags, ...workerArgs(folder, edge.url), ...workerFlags],
      env: { WORKER_TOKEN: secrets.workerToken },
      cpus,
    });
    closers.defer(worker.stop);
    const operator = operatorOf(edge.url, secrets.adminToken);
    await sellModel(operator);
    await announced(operator);

    const addTenant = async (name: string, balanceNanoUsd = startBalance): Promise<Caller> => {
      const tenant = name
        .toLowerCase()
        .replaceAll(/[^a-z0-9]+/g, '-')
        .slice(0, 60);
      return { tenant, key: await operator.addTenant(tenant, balanceNanoUsd) };
    };
    // workerd closes a connection after five idle seconds without having said so, which a client
    // that is about to use it again meets as a failed request.
    const connection = runtime === 'workerd' ? { connection: 'close' } : {};
    const call = (caller: Caller, path: string, init: RequestInit): Promise<Response> =>
      fetch(edge.url + path, {
        ...init,
        headers: { authorization: `Bearer ${caller.key}`, ...connection, ...init.headers },
      });
    return {
      runtime,
      edge,
      worker,
      operator,
      folder,
      victim: await addTenant('victim'),
      attacker: await addTenant('attacker'),
      poor: await addTenant('poor', 0),
      addTenant,
      post: (caller, path, body, init = {}) =>
        call(caller, path, {
          ...init,
          method: 'POST',
          headers: { 'content-type': 'application/json', ...init.headers },
          body:
            typeof body === 'string' || body instanceof Uint8Array
              ? body
              : JSON.stringify({ model: servedModel, ...body }),
        }),
      get: (caller, path) => call(caller, path, {}),
      [Symbol.asyncDispose]: () => closers.disposeAsync(),
    };
  } catch (error) {
    await closers.disposeAsync();
    throw error;
  }
}

const edgeArgs: Readonly<Record<Runtime, readonly string[]>> = {
  node: scriptArgs('edge'),
  workerd: ['test/hostile/workerd-edge.ts'],
};

function edgeEnv(folder: string): Record<string, string> {
  return {
    PORT: '0',
    EDGE_DATA: join(folder, 'edge'),
    EDGE_KEY_SIGNING_SECRETS: 'signing-secret-of-the-attacks',
    EDGE_CACHE_SECRET: 'cache-secret-of-the-attacks',
    EDGE_ADMIN_TOKEN: secrets.adminToken,
    WORKER_TOKEN: secrets.workerToken,
    // No call goes to the account: webhooks come from there, and only their signature is checked.
    EDGE_STRIPE_SECRET_KEY: 'sk_test_of_the_attacks',
    EDGE_STRIPE_WEBHOOK_SECRET: secrets.stripeWebhookSecret,
  };
}

function workerArgs(folder: string, edgeUrl: string): string[] {
  const model = ['--model', tinyFolder, '--model-id', servedModel];
  const place = ['--port', '0', '--data', join(folder, 'worker'), '--edge', edgeUrl];
  return [...scriptArgs('worker'), ...model, ...place, '--threads', '1'];
}

async function sellModel(operator: Operator): Promise<void> {
  const model = { context_length: tinyContextTokens, revision: 'r1', tokenizer: 't1' };
  await operator.call('POST', '/models', { id: servedModel, ...model });
  await setPrice(operator, servedModel);
}

/** The price that `npm start` sets. */
export async function setPrice(operator: Operator, model: string): Promise<void> {
  const { inputCached, inputUncached, output } = seedPrice;
  const price = { input_cached: inputCached, input: inputUncached, output };
  await operator.call('POST', '/prices', { model, ...price });
}

const workersSchema = z.object({ workers: z.array(z.object({ state: z.string() })) });

async function announced(operator: Operator): Promise<void> {
  const untilMs = performance.now() + announcedMsMax;
  for (;;) {
    const { workers } = workersSchema.parse(await operator.call('GET', '/workers'));
    if (workers.some(({ state }) => state === 'ready')) return;
    if (performance.now() > untilMs) throw new Error('the worker did not announce itself');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
