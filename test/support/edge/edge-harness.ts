/**
 * The edge as its clients meet it: the app over real tenants and a real directory in SQLite, the
 * real fleet and stub workers over HTTP. Clock, randomness and the workers are what a test
 * controls.
 */
import { createApp } from '../../../edge/app.ts';
import type { Mount } from '../../../edge/app.ts';
import { createApiKey } from '../../../edge/auth/api-key.ts';
import { createDirectory } from '../../../edge/directory/directory.ts';
import { LocalFleet } from '../../../edge/fleet/fleet.ts';
import { createServedContexts } from '../../../edge/directory/served-contexts.ts';
import { createNodePost } from '../../../edge/node/node-post.ts';
import type { EdgeSettings } from '../../../edge/settings/edge-settings.ts';
import type { EndedRequest } from '../../../edge/observe/ended-request.ts';
import type { Services } from '../../../edge/services.ts';
import type { KeyLimits, Scope } from '../../../edge/tenant/key-contract.ts';
import type { SettleInput } from '../../../edge/tenant/settlement-contract.ts';
import type { Tenant } from '../../../edge/tenant/tenant-contract.ts';
import { createBodyBudget } from '../../../edge/bodies/body-budget.ts';
import { createRunningAnswers } from '../../../edge/inference/running-answers.ts';
import { createTenant } from '../../../edge/tenant/tenant.ts';
import { openDirectoryDb, openTenantDb } from '../../../db/drivers/better-sqlite3.ts';
import { startStubWorker } from './edge-stub-worker.ts';
import { operator } from './tenant-samples.ts';
import type { StubScript, StubWorker } from './edge-stub-worker.ts';

export const testModel = 'sift-test';
/** The seed of the key that signs receipts. */
export const testReceiptKey = Buffer.alloc(32, 7).toString('base64url');
export const testPrice = {
  id: 'price-1',
  inputCached: 28_000_000,
  inputUncached: 280_000_000,
  output: 420_000_000,
};

export interface HarnessOptions {
  readonly scripts?: readonly Partial<StubScript>[];
  readonly settings?: Partial<EdgeSettings>;
  readonly balanceNanoUsd?: number;
  readonly limits?: Partial<KeyLimits>;
  readonly hasJournal?: boolean;
  readonly reportsCachedTokens?: boolean;
  /** Slots of each worker. */
  readonly slots?: number;
  readonly mounts?: readonly Mount[];
  readonly runOnMs?: number;
  readonly runOnTokens?: number;
  readonly bodiesBytesMax?: number;
}

export type Harness = Awaited<ReturnType<typeof startHarness>>;

export async function startHarness(options: HarnessOptions = {}) {
  const time = { nowMs: Date.UTC(2026, 0, 15, 12) };
  const clock = { nowMs: () => time.nowMs };
  const settings: EdgeSettings = {
    keySigningSecrets: ['newest-signing-secret', 'older-signing-secret'],
    cacheSecret: 'cache-secret',
    workerToken: 'worker-token',
    adminToken: 'admin-token',
    receiptKeys: [testReceiptKey],
    stripe: null,
    bodyBytesMax: 8 * 1024 * 1024,
    keepAliveMs: 5_000,
    outputTokensDefault: 4_096,
    queueMsMax: 30_000,
    ...options.settings,
  };
  const closers: (() => void | Promise<void>)[] = [];

  const directoryDb = openDirectoryDb(':memory:', { synchronous: 'NORMAL' });
  closers.push(() => directoryDb.close());
  const directory = createDirectory(directoryDb.db);
  await directory.putModel({
    id: testModel,
    contextLength: 65_536,
    revision: 'r1',
    tokenizer: 't1',
    ownedBy: 'sift',
    createdAtMs: time.nowMs,
  });
  await directory.addPrice({ ...testPrice, model: testModel, fromMs: 0, window: null });

  const settles: SettleInput[] = [];
  const tenants = new Map<string, Tenant>();
  const tenantOf = (id: string): Tenant => {
    const known = tenants.get(id);
    if (known) return known;
    const opened = openTenantDb(':memory:', { synchronous: 'NORMAL' });
    closers.push(() => opened.close());
    const real = createTenant(opened.db, { clock });
    const tenant: Tenant = {
      ...real,
      settle: (input) => {
        settles.push(input);
        return real.settle(input);
      },
    };
    tenants.set(id, tenant);
    return tenant;
  };

  const workers: StubWorker[] = [];
  const fleet = new LocalFleet({ clock });
  for (const script of options.scripts ?? [{}]) {
    const worker = await startStubWorker({ script, token: settings.workerToken, model: testModel });
    closers.push(() => worker.close());
    workers.push(worker);
  }
  const heartbeat = (): void => {
    for (const [index, { url }] of workers.entries()) {
      fleet.announce({
        id: `worker-${index}`,
        url,
        epoch: 1,
        state: 'ready',
        models: [testModel],
        static: false,
        ...(options.slots !== undefined && { slots: options.slots }),
        hasJournal: options.hasJournal ?? true,
        noDiscountReason: options.reportsCachedTokens === false ? 'it reports none' : null,
      });
    }
  };
  heartbeat();

  const logged: unknown[] = [];
  const ended: EndedRequest[] = [];
  const kept = new Set<Promise<unknown>>();
  const services: Services = {
    tenant: tenantOf,
    createDatabase: async () => {},
    fleet,
    servedContexts: createServedContexts({ fleet: () => fleet, clock, ttlMs: 0 }),
    directory,
    settings,
    clock,
    warnings: async () => [],
    random: { bytes: (count) => crypto.getRandomValues(new Uint8Array(count)) },
    post: createNodePost(),
    fetch: (...call) => fetch(...call),
    log: (_, event, fields) => void logged.push({ event, ...fields }),
    observe: (request) => void ended.push(request),
    tracing: null,
    metrics: null,
    checkRecords: () => directory.checkWritable(),
    keepAlive: (work) => {
      kept.add(work);
      void work.finally(() => kept.delete(work));
    },
    runningAnswers: createRunningAnswers({
      clock,
      runOnMs: options.runOnMs ?? 600_000,
      runOnTokens: options.runOnTokens ?? 32_768,
      charactersMax: 256 * 1024 * 1024,
    }),
    forwardKeyed: null,
    threads: null,
    bodies: createBodyBudget({
      bytesMax: options.bodiesBytesMax ?? 128 * 1024 * 1024,
      bodyBytesMax: settings.bodyBytesMax,
    }),
  };

  const addKey = async (
    tenant: string,
    key: { scopes?: readonly Scope[]; limits?: Partial<KeyLimits> } = {},
  ): Promise<string> => {
    const created = createApiKey({
      tenant,
      signingSecrets: settings.keySigningSecrets,
      random: services.random,
    });
    await tenantOf(tenant).createKey(
      {
        keyId: created.keyId,
        secretHash: created.secretHash,
        label: 'test',
        scopes: key.scopes ?? ['inference', 'read'],
        limits: {
          requestsPerMinute: null,
          tokensPerMinute: null,
          concurrentRequests: null,
          ...key.limits,
        },
      },
      operator,
    );
    return created.key;
  };

  const addTenant = async (
    id: string,
    balanceNanoUsd = options.balanceNanoUsd ?? 10_000_000_000,
  ): Promise<string> => {
    await directory.createTenant({ id, name: id, status: 'active', createdAtMs: time.nowMs });
    if (balanceNanoUsd > 0) {
      await tenantOf(id).credit({
        kind: 'granted',
        amountNanoUsd: balanceNanoUsd,
        source: `grant-${id}`,
        note: 'test',
      });
    }
    return addKey(id, { limits: options.limits ?? {} });
  };

  const apiKey = await addTenant('acme');
  const app = createApp(services, options.mounts);
  const [worker] = workers;

  const post = async (
    path: string,
    body: unknown,
    init: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Response> =>
    app.request(path, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${apiKey}`,
        'content-type': 'application/json',
        ...init.headers,
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...(init.signal && { signal: init.signal }),
    });

  return {
    app,
    services,
    settings,
    fleet,
    directory,
    apiKey,
    workers,
    /** The first one; tests without workers do not ask for it. */
    worker: worker as StubWorker,
    settles,
    logged,
    /** The requests that are over. */
    ended,
    /** Lets time pass; the workers keep announcing themselves. */
    advance(ms: number): void {
      time.nowMs += ms;
      heartbeat();
    },
    tenant: tenantOf('acme'),
    tenantOf,
    addTenant,
    addKey,
    post,
    get: async (path: string, headers: Record<string, string> = {}): Promise<Response> =>
      app.request(path, { headers: { authorization: `Bearer ${apiKey}`, ...headers } }),
    /** Waits for what goes on after the answers. */
    async idle(): Promise<void> {
      while (kept.size > 0) await Promise.allSettled(kept);
    },
    async close(): Promise<void> {
      for (const close of closers.toReversed()) await close();
    },
  };
}

/** The `data:` payloads of a stream, `[DONE]` among them. */
export function dataOf(sse: string): string[] {
  return sse
    .split('\n\n')
    .flatMap((frame) => frame.split('\n'))
    .filter((line) => line.startsWith('data: '))
    .map((line) => line.slice(6));
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
