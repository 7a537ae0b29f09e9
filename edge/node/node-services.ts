/** The services of the edge in one Node process, over a data folder that it holds. */
import { join } from 'node:path';
import { createDiskWatch, diskOf } from '../../infra/disk-watch.ts';
import type { Log } from '../../infra/log.ts';
import { createBodyBudget } from '../bodies/body-budget.ts';
import { cacheDirectory } from '../directory/directory-cache.ts';
import { waitForLocks } from '../directory/directory-retry.ts';
import type { Directory } from '../directory/directory-contract.ts';
import { createDirectory } from '../directory/directory.ts';
import { createContextLog, createServedContexts } from '../directory/served-contexts.ts';
import { createUnsoldLog } from '../directory/unsold-models.ts';
import type { NodeSettings } from '../settings/read-settings.ts';
import { LocalFleet } from '../fleet/fleet.ts';
import { accessLog } from '../observe/access-log.ts';
import { createRunningAnswers } from '../inference/running-answers.ts';
import type { Services } from '../services.ts';
import { createBodyThreads } from './body-threads.ts';
import { openDatabases } from './databases.ts';
import type { Databases } from './databases.ts';
import { openFleetFile } from './fleet-file.ts';
import type { FleetFile } from './fleet-file.ts';
import { openLatestTime } from './latest-time.ts';
import type { LatestTime } from './latest-time.ts';
import { createEdgeMetrics } from './edge-metrics.ts';
import { createNodeFetch } from './node-fetch.ts';
import { randomBlocks } from './random-blocks.ts';
import { makeSecrets } from './secrets.ts';

/** Characters that are kept of answers being made under idempotency keys. */
const answerCharactersMax = 256 * 1024 * 1024;
/** The contexts that workers state are read out of the same process this often. */
const contextsTtlMs = 250;

export interface NodeServices {
  readonly services: Services;
  readonly databases: Databases;
  readonly fleet: LocalFleet;
  readonly fleetFile: FleetFile;
  readonly disk: ReturnType<typeof createDiskWatch>;
  readonly latestTime: LatestTime;
  readonly bodyThreads: ReturnType<typeof createBodyThreads>;
  /** Waits for the work that outlives its answers. */
  finishWork(): Promise<void>;
}

export async function openServices(
  folder: string,
  options: {
    readonly settings: NodeSettings;
    readonly clock: Services['clock'];
    readonly log: Log;
  },
): Promise<NodeServices> {
  const { settings, clock, log } = options;
  const secrets = makeSecrets(settings, join(folder, 'secrets.env'));
  const databases = await openDatabases(folder, { ...settings, clock });
  const latestTime = openLatestTime(join(folder, 'latest-time'), { clock, log });
  const directory = cacheDirectory(waitForLocks(createDirectory(databases.directoryDb)), {
    clock,
    ttlMs: Infinity,
    knownTime: latestTime.knownTime,
  });
  const work = trackWork();
  const fleetFile = openFleetFile(join(folder, 'fleet.json'), log);
  const logUnsold = createUnsoldLog({ directory, clock, log });
  const logContexts = createContextLog({ directory, log });
  const fleet = new LocalFleet({
    clock,
    configured: settings.staticWorkers,
    hosts: settings.workerHosts,
    ...(fleetFile.snapshot && { snapshot: fleetFile.snapshot }),
    save: fleetFile.save,
    onAnnounced: (worker, served) => {
      work.keepAlive(logUnsold(worker, served));
      work.keepAlive(logContexts(worker, served));
    },
  });
  const disk = createDiskWatch({
    freePercentMin: settings.diskFreePercentMin,
    log,
    readDisk: () => diskOf(folder),
  });
  const bodyThreads = createBodyThreads();
  const services: Services = {
    tenant: (id) => databases.openTenants.tenant(id),
    createDatabase: databases.createDatabase,
    fleet,
    servedContexts: createServedContexts({ fleet: () => fleet, clock, ttlMs: contextsTtlMs }),
    directory,
    settings: { ...settings, ...secrets },
    clock,
    random: randomBlocks(),
    warnings: () => [...disk.warnings(), ...latestTime.knownTime.warnings(clock.nowMs())],
    fetch: createNodeFetch(),
    log,
    ...watchedBy({ fleet, log, latestTime, directory }),
    keepAlive: work.keepAlive,
    runningAnswers: createRunningAnswers({
      clock,
      runOnMs: settings.runOnMs,
      charactersMax: answerCharactersMax,
    }),
    forwardKeyed: null,
    threads: bodyThreads,
    bodies: createBodyBudget({
      bytesMax: settings.bodiesBytesMax,
      bodyBytesMax: settings.bodyBytesMax,
    }),
  };
  const { finishWork } = work;
  return { services, databases, fleet, fleetFile, disk, latestTime, bodyThreads, finishWork };
}

/** Lets the operator's programs watch over the edge. */
function watchedBy(parts: {
  readonly fleet: LocalFleet;
  readonly log: Log;
  readonly latestTime: LatestTime;
  readonly directory: Directory;
}): Pick<Services, 'observe' | 'metrics' | 'checkRecords'> {
  const { fleet, log, latestTime, directory } = parts;
  const metrics = createEdgeMetrics(fleet);
  const logAccess = accessLog(log);
  return {
    observe(ended) {
      logAccess(ended);
      metrics.observe(ended);
    },
    metrics: metrics.text,
    async checkRecords() {
      // It is a file on the disk of the records: this writes it, and waits for the disk.
      await latestTime.save();
      await directory.checkWritable();
    },
  };
}

function trackWork(): Pick<Services, 'keepAlive'> & Pick<NodeServices, 'finishWork'> {
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
