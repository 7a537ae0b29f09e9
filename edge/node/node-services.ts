/**
 * The services of the edge in one thread of a Node process, over a data folder that the process
 * holds. A tenant's database is open in the thread that owns the tenant, the directory in each.
 */
import { join } from 'node:path';
import type { Log } from '../../infra/log.ts';
import { openTracing } from '../../infra/tracing/open-tracing.ts';
import type { Tracing } from '../../infra/tracing/tracing.ts';
import { createBodyBudget } from '../bodies/body-budget.ts';
import { cacheDirectory } from '../directory/directory-cache.ts';
import type { CachedDirectory } from '../directory/directory-cache.ts';
import { waitForLocks } from '../directory/directory-retry.ts';
import { createDirectory } from '../directory/directory.ts';
import { createServedContexts } from '../directory/served-contexts.ts';
import { createRunningAnswers } from '../inference/running-answers.ts';
import type { Services } from '../services.ts';
import { createBodyThreads } from './body-threads.ts';
import { openDatabases } from './databases.ts';
import type { Databases } from './databases.ts';
import { openLatestTime } from './latest-time.ts';
import type { LatestTime } from './latest-time.ts';
import { createNodePost } from './node-post.ts';
import { randomBlocks } from './random-blocks.ts';
import { forwardToOwner } from './threads/forwarded-requests.ts';
import type { Peers } from './threads/peers.ts';
import { remoteThread, remoteTenant } from './threads/remote-objects.ts';
import type { ThreadSettings } from './threads/thread-contract.ts';
import { createWebhookDelivery } from './webhook-delivery.ts';
import type { WebhookDelivery } from './webhook-delivery.ts';
import { createWebhookPost } from './webhook-post.ts';

/** Characters that are kept of answers being made under idempotency keys. */
const answerCharactersMax = 256 * 1024 * 1024;
/** The contexts that workers state are read out of the same process this often. */
const contextsTtlMs = 250;

/** The parts of a thread on which its services stand, and the fleet in the first one. */
export interface ThreadStores {
  readonly settings: ThreadSettings;
  readonly clock: Services['clock'];
  readonly log: Log;
  readonly peers: Peers;
  readonly databases: Databases;
  readonly webhooks: WebhookDelivery;
  readonly directory: CachedDirectory;
  readonly latestTime: LatestTime;
  readonly tracing: Tracing | null;
  readonly keepAlive: Services['keepAlive'];
  /** Waits for the work that outlives its answers. */
  finishWork(): Promise<void>;
}

export interface NodeServices {
  readonly services: Services;
  readonly bodyThreads: ReturnType<typeof createBodyThreads>;
}

/** @throws UserError if the directory cannot be opened. */
export async function openStores(
  folder: string,
  given: Pick<ThreadStores, 'settings' | 'clock' | 'log' | 'peers'>,
): Promise<ThreadStores> {
  const { settings, clock, log, peers } = given;
  const openTenantsMax = Math.ceil(settings.openTenantsMax / peers.count);
  const databases = await openDatabases(folder, {
    openTenantsMax,
    clock,
    // A tenant is opened by a call, and calls are made once everything here is.
    onWebhooksDue: (tenant, atMs) => webhooks.due(tenant, atMs),
  });
  const latestTime = openLatestTime(join(folder, 'latest-time'), { clock, log });
  const directory = cacheDirectory(waitForLocks(createDirectory(databases.directoryDb)), {
    clock,
    ttlMs: Infinity,
    knownTime: latestTime.knownTime,
    async tellOthers(change) {
      await Promise.all(peers.others.map((thread) => remoteThread(peers, thread).forget(change)));
    },
  });
  const hosts = settings.webhookHosts ?? [];
  const webhooks = createWebhookDelivery({
    directory,
    owns: (id) => peers.ownerOf(id) === peers.own,
    tenant: (id) => databases.openTenants.tenantForUpkeep(id),
    hosts,
    post: createWebhookPost({ hosts }),
    clock,
    log,
  });
  const tracing = await openTracing('sift-edge', settings.tracing);
  const work = trackWork();
  return { ...given, databases, webhooks, directory, latestTime, tracing, ...work };
}

/** The budgets of the process are divided among its threads. */
export function createServices(
  stores: ThreadStores,
  hub: Pick<Services, 'fleet' | 'warnings' | 'observe' | 'metrics' | 'checkRecords'>,
): NodeServices {
  const { settings, clock, log, peers, databases, directory, tracing, keepAlive } = stores;
  const { fleet } = hub;
  const isOwn = (tenant: string): boolean => peers.ownerOf(tenant) === peers.own;
  const bodyThreads = createBodyThreads({ edges: peers.count });
  const services: Services = {
    tenant: (id) => (isOwn(id) ? databases.openTenants.tenant(id) : remoteTenant(peers, id)),
    async createDatabase(id) {
      if (isOwn(id)) await databases.createDatabase(id);
      else await remoteThread(peers, peers.ownerOf(id)).createDatabase(id);
    },
    ...hub,
    servedContexts: createServedContexts({ fleet: () => fleet, clock, ttlMs: contextsTtlMs }),
    directory,
    settings,
    clock,
    random: randomBlocks(),
    post: createNodePost(),
    fetch,
    log,
    tracing,
    keepAlive,
    runningAnswers: createRunningAnswers({
      clock,
      runOnMs: settings.runOnMs,
      runOnTokens: settings.runOnTokens,
      charactersMax: answerCharactersMax / peers.count,
    }),
    forwardKeyed: forwardToOwner(peers),
    threads: bodyThreads,
    bodies: createBodyBudget({
      bytesMax: Math.floor(settings.bodiesBytesMax / peers.count),
      bodyBytesMax: settings.bodyBytesMax,
    }),
  };
  return { services, bodyThreads };
}

function trackWork(): Pick<ThreadStores, 'keepAlive' | 'finishWork'> {
  const underWay = new Set<Promise<unknown>>();
  return {
    keepAlive(work) {
      underWay.add(work);
      void work.catch(() => {}).finally(() => underWay.delete(work));
    },
    async finishWork() {
      while (underWay.size > 0) await Promise.allSettled(underWay);
    },
  };
}
