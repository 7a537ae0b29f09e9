/**
 * The edge on Node: one process, one SQLite file per tenant and one for the directory under a data
 * folder that only its user can read. `sift edge` and `sift start` run it, and so do tests.
 */
import type { Server } from 'node:http';
import { pino } from 'pino';
import { createEdge } from '../edge.ts';
import type { NodeSettings } from '../settings/read-settings.ts';
import { createStaticWorkers, probeEveryMs } from '../fleet/static-workers.ts';
import { createHoldSweeper } from '../reconcile/hold-sweeper.ts';
import type { Services } from '../services.ts';
import { finishCreations } from '../tenant/create-tenant.ts';
import { openDataFolder } from './data-folder.ts';
import type { DataFolder } from './data-folder.ts';
import { closesUnused, listen, stopServing, urlOf } from './http-server.ts';
import { openServices } from './node-services.ts';
import type { NodeServices } from './node-services.ts';
import { repeat } from './timers.ts';
import type { Timer } from './timers.ts';

/** Holds are looked at this often; an expired one waits at most so much longer. */
const reconcileEveryMs = 30_000;
/** New workers are written down this soon, so that many at once cost one write. */
const fleetEveryMs = 1_000;
/** A disk that fills up is noticed this soon. */
const diskEveryMs = 10_000;
/** A process that is killed forgets as much of the time that it has seen. */
const latestTimeEveryMs = 60_000;
/** Requests under way may finish for this long after the first Ctrl-C. */
const drainMsMax = 30_000;

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
  const { settings, clock = { nowMs: () => Date.now() } } = options;
  const log = options.log ?? logTo(settings.logLevel);
  const opened = await openServices(dataFolder.path, { settings, clock, log });
  const { services, databases, fleet } = opened;
  let server: Server;
  try {
    await finishCreations(services);
    server = await listen(createEdge(services).fetch, settings);
  } catch (error) {
    await databases.close();
    throw error;
  }
  const closeUnused = closesUnused(server);
  const timers = startTimers(opened, settings);

  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    fleet.close();
    const late = setTimeout(() => {
      server.closeAllConnections();
      services.runningAnswers.stopAbandoned();
    }, drainMsMax);
    await stopServing(server, closeUnused);
    await opened.bodyThreads.close();
    await Promise.all(timers.map((timer) => timer.stop()));
    await opened.fleetFile.saveAgain();
    await opened.finishWork();
    clearTimeout(late);
    await databases.close();
    dataFolder.release();
  };
  return {
    url: urlOf(server, settings.host),
    services,
    close: () => (closing ??= close()),
  };
}

function startTimers(opened: NodeServices, settings: NodeSettings): Timer[] {
  const { services, databases, fleet, fleetFile, disk, latestTime } = opened;
  const { clock, log } = services;
  const staticWorkers = createStaticWorkers({
    workers: () => fleet.staticWorkers(),
    workerToken: services.settings.workerToken,
    clock,
    fetch,
    announce: (announcement) => void fleet.announce(announcement),
    log,
  });
  const holds = createHoldSweeper({
    services,
    tenant: (id) => databases.openTenants.tenantForUpkeep(id),
    holdMs: settings.holdMs,
    usedIds: () => databases.openTenants.takeUsedIds(),
  });
  return [
    repeat(holds.sweep, { everyMs: reconcileEveryMs, log }),
    repeat(latestTime.save, { everyMs: latestTimeEveryMs, log }),
    repeat(() => staticWorkers.probe(), { everyMs: probeEveryMs, log }),
    repeat(disk.look, { everyMs: diskEveryMs, log }),
    repeat(fleetFile.saveAgain, { everyMs: fleetEveryMs, log }),
  ];
}

function logTo(level: NodeSettings['logLevel']): Services['log'] {
  const logger = pino({ level });
  return (severity, event, fields) => logger[severity](fields, event);
}
