/** One thread of an edge that serves: its HTTP server, its tenants' upkeep, and how both end. */
import type { Server } from 'node:http';
import { createEdge } from '../../edge.ts';
import { createHoldSweeper } from '../../reconcile/hold-sweeper.ts';
import { watchEventLoop } from '../longest-block.ts';
import { closesUnused, listen, portOf, stopServing } from '../http-server.ts';
import type { NodeServices, ThreadStores } from '../node-services.ts';
import { repeat } from '../timers.ts';
import type { Timer } from '../timers.ts';
import { answerForwarded } from './forwarded-requests.ts';
import type { Call, Handed } from './port-calls.ts';
import type { EdgeThread } from './thread-contract.ts';

/** Holds are looked at this often; an expired one waits at most so much longer. */
const reconcileEveryMs = 30_000;
/** A delivery that is tried again, or an event that time brings, comes at most so much later. */
const webhooksEveryMs = 1_000;
/** Requests under way may finish for this long after the first Ctrl-C. */
const drainMsMax = 30_000;

export interface ServingThread {
  readonly thread: EdgeThread;
  /** Answers the requests that other threads forward. */
  readonly requests: (call: Call) => Promise<Handed>;
}

/** @param startTimers starts the work that is the process's, in its first thread. */
export function serveThread(
  stores: ThreadStores,
  opened: NodeServices,
  startTimers: () => readonly Timer[],
): ServingThread {
  const { settings, peers, databases, directory } = stores;
  const { services, bodyThreads } = opened;
  const { fetch: answer } = createEdge(services);
  const takeLongestBlockMs = watchEventLoop();
  let serving: { readonly server: Server; readonly closeUnused: () => void } | null = null;
  let timers: readonly Timer[] = [];
  let late: NodeJS.Timeout | undefined;
  return {
    requests: answerForwarded(async (request) => answer(request), services),
    thread: {
      started: async () => {},
      takeLongestBlockMs: async () => takeLongestBlockMs(),
      async listen(port) {
        const { host, bodyBytesMax } = settings;
        const server = await listen(answer, { port, host, bodyBytesMax, threads: peers.count });
        serving = { server, closeUnused: closesUnused(server) };
        timers = [repeatSweeps(stores, services), repeatWebhooks(stores), ...startTimers()];
        return portOf(server);
      },
      async stopServing() {
        if (serving === null) return;
        const { server, closeUnused } = serving;
        late = setTimeout(() => {
          server.closeAllConnections();
          services.runningAnswers.stopAbandoned();
        }, drainMsMax);
        await stopServing(server, closeUnused);
      },
      async finishWork() {
        await bodyThreads.close();
        await Promise.all(timers.map((timer) => timer.stop()));
        await stores.webhooks.close();
        await stores.finishWork();
        await stores.tracing?.close();
        clearTimeout(late);
      },
      closeDatabases: () => databases.close(),
      createDatabase: (tenant) => databases.createDatabase(tenant),
      forget: async (change) => directory.forget(change),
    },
  };
}

function repeatSweeps(stores: ThreadStores, services: NodeServices['services']): Timer {
  const { settings, log, peers, databases } = stores;
  const { openTenants } = databases;
  const holds = createHoldSweeper({
    services,
    owns: (id) => peers.ownerOf(id) === peers.own,
    tenant: (id) => openTenants.tenantForUpkeep(id),
    holdMs: settings.holdMs,
    usedIds: () => openTenants.takeUsedIds(),
  });
  return repeat(holds.sweep, { everyMs: reconcileEveryMs, log });
}

function repeatWebhooks({ webhooks, log }: ThreadStores): Timer {
  return repeat(webhooks.look, { everyMs: webhooksEveryMs, log });
}
