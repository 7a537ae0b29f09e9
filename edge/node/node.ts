/**
 * The edge on Node: one process, one SQLite file per tenant and one for the directory under a data
 * folder that only its user can read. `sift edge` and `sift start` run it, and so do tests.
 */
import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { pino } from 'pino';
import type { NodeSettings } from '../settings/read-settings.ts';
import type { Services } from '../services.ts';
import { finishCreations } from '../tenant/create-tenant.ts';
import { openDataFolder } from './data-folder.ts';
import type { DataFolder } from './data-folder.ts';
import { openFleet } from './fleet-of-process.ts';
import type { ProcessFleet } from './fleet-of-process.ts';
import { freePort, urlOf } from './http-server.ts';
import { createServices, openStores } from './node-services.ts';
import { makeSecrets } from './secrets.ts';
import { answerCalls } from './threads/remote-objects.ts';
import { serveThread } from './threads/serving.ts';
import { startThreads } from './threads/start-threads.ts';
import type { EdgeThread } from './threads/thread-contract.ts';

export interface RunningEdge {
  readonly url: string;
  readonly services: Services;
  /**
   * Answers nobody new, lets the requests under way finish and settle, then closes the databases.
   */
  close(): Promise<void>;
}

export interface EdgeOptions {
  readonly settings: NodeSettings;
  /** Default: pino's JSON lines on standard output, at the settings' level. */
  readonly log?: Services['log'];
  /** Another clock than the system's, for an edge of one thread. */
  readonly clock?: Services['clock'];
}

/** @throws UserError whose message says what to do. */
export async function startEdge(options: EdgeOptions): Promise<RunningEdge> {
  const dataFolder = openDataFolder(options.settings.dataFolder);
  try {
    return await startOn(dataFolder, options);
  } catch (error) {
    dataFolder.release();
    throw error;
  }
}

async function startOn(dataFolder: DataFolder, options: EdgeOptions): Promise<RunningEdge> {
  const { clock = { nowMs: () => Date.now() } } = options;
  const { threads: count, host, port } = options.settings;
  assert(count === 1 || options.clock === undefined, 'other threads have the clock of the system');
  const log = options.log ?? logTo(options.settings.logLevel);
  const folder = dataFolder.path;
  const secrets = makeSecrets(options.settings, join(folder, 'secrets.env'));
  const settings = { ...options.settings, ...secrets };
  const { peers, others, tellWaits, end } = startThreads({ count, folder, settings });
  const threads: EdgeThread[] = [];
  try {
    const stores = await openStores(folder, { settings, clock, log, peers });
    // Workers that the fleet remembers are given some seconds to be heard of.
    await Promise.all(others.map((other) => other.started()));
    const takeLongestBlockMs = async (): Promise<number> =>
      Math.max(...(await Promise.all(threads.map((each) => each.takeLongestBlockMs()))));
    const hub = openFleet(folder, stores, { takeLongestBlockMs, tellWaits });
    const opened = createServices(stores, { ...hub.process, fleet: hub.fleet });
    const { services } = opened;
    const { thread, requests } = serveThread(stores, opened, hub.startTimers);
    threads.push(thread, ...others);
    const { openTenants } = stores.databases;
    const tenant: Services['tenant'] = (id) => openTenants.tenant(id);
    peers.serve(answerCalls({ tenant, thread, requests, hub }));
    await finishCreations(services);
    const taken = await listenTogether(threads, { host, port });
    let closing: Promise<void> | null = null;
    return {
      url: urlOf({ host, port: taken }),
      services,
      close: () => (closing ??= closeThreads(threads, hub).then(end).then(dataFolder.release)),
    };
  } catch (error) {
    await Promise.all(threads.map((each) => each.closeDatabases()));
    await end();
    throw error;
  }
}

/** Each thread has a socket of its own on the port, and the system divides who comes. */
async function listenTogether(
  threads: readonly EdgeThread[],
  { host, port }: { readonly host: string; readonly port: number },
): Promise<number> {
  const [first, ...others] = threads;
  assert(first !== undefined, 'the first thread is among them');
  // Sockets that share a port would share it with those of another edge, too.
  const taken = await first.listen(others.length === 0 ? port : await freePort({ host, port }));
  await Promise.all(others.map((other) => other.listen(taken)));
  return taken;
}

/** Each step ends in all threads before the next: they answer for one another until their end. */
async function closeThreads(threads: readonly EdgeThread[], hub: ProcessFleet): Promise<void> {
  hub.fleet.close();
  await Promise.all(threads.map((thread) => thread.stopServing()));
  await Promise.all(threads.map((thread) => thread.finishWork()));
  await hub.save();
  await Promise.all(threads.map((thread) => thread.closeDatabases()));
}

function logTo(level: NodeSettings['logLevel']): Services['log'] {
  const logger = pino({ level });
  return (severity, event, fields) => logger[severity](fields, event);
}
