/** The parts of which a Node process has one each, in its first thread: fleet, metrics, disk. */
import { join } from 'node:path';
import { createDiskWatch, diskOf } from '../../infra/disk-watch.ts';
import { createContextLog } from '../directory/served-contexts.ts';
import { createUnsoldLog } from '../directory/unsold-models.ts';
import { LocalFleet } from '../fleet/fleet.ts';
import { createStaticWorkers, probeEveryMs } from '../fleet/static-workers.ts';
import { describe } from '../middleware/answer-error.ts';
import { accessLog } from '../observe/access-log.ts';
import type { EndedRequest } from '../observe/ended-request.ts';
import { createEdgeMetrics } from './edge-metrics.ts';
import type { EdgeMetrics } from './edge-metrics.ts';
import { openFleetFile } from './fleet-file.ts';
import type { ThreadStores } from './node-services.ts';
import type { Process } from './threads/thread-contract.ts';
import { repeat } from './timers.ts';
import type { Timer } from './timers.ts';

/** New workers are written down this soon, so that many at once cost one write. */
const fleetEveryMs = 1_000;
/** A disk that fills up is noticed this soon. */
const diskEveryMs = 10_000;
/** A process that is killed forgets as much of the time that it has seen. */
const latestTimeEveryMs = 60_000;

export interface ProcessFleet {
  readonly fleet: LocalFleet;
  /** The other threads call it. */
  readonly process: Process;
  startTimers(): readonly Timer[];
  /** Writes down what is not written yet. */
  save(): Promise<void>;
}

export function openFleet(
  folder: string,
  stores: ThreadStores,
  threads: {
    /** Asks all threads. */
    readonly takeLongestBlockMs: () => Promise<number>;
    /** Tells the other threads how many requests wait. */
    readonly tellWaits: (count: number) => void;
  },
): ProcessFleet {
  const { settings, clock, log, directory, latestTime, keepAlive } = stores;
  const { knownTime } = latestTime;
  const fleetFile = openFleetFile(join(folder, 'fleet.json'), log);
  const logUnsold = createUnsoldLog({ directory, clock, log });
  const logContexts = createContextLog({ directory, log });
  const fleet = new LocalFleet({
    clock,
    configured: settings.staticWorkers,
    hosts: settings.workerHosts,
    ...(fleetFile.snapshot && { snapshot: fleetFile.snapshot }),
    save: fleetFile.save,
    onWaiting: threads.tellWaits,
    onAnnounced: (worker, served) => {
      keepAlive(logUnsold(worker, served));
      keepAlive(logContexts(worker, served));
    },
  });
  const disk = createDiskWatch({
    freePercentMin: settings.diskFreePercentMin,
    log,
    readDisk: () => diskOf(folder),
  });
  const staticWorkers = createStaticWorkers({
    workers: () => fleet.staticWorkers(),
    workerToken: settings.workerToken,
    clock,
    fetch,
    announce: (announcement) => void fleet.announce(announcement),
    log,
  });
  const metrics = createEdgeMetrics({ fleet, takeLongestBlockMs: threads.takeLongestBlockMs });
  const logAccess = accessLog(log);
  return {
    fleet,
    process: {
      log: async (level, event, fields) => log(level, event, fields),
      async observe(ended) {
        logAccess(ended);
        countOrLog(ended, { metrics, log });
      },
      metrics: metrics.text,
      async checkRecords() {
        // It is a file on the disk of the records: this writes it, and waits for the disk.
        await latestTime.save();
        await directory.checkWritable();
      },
      warnings: async () => [...disk.warnings(), ...knownTime.warnings(clock.nowMs())],
    },
    startTimers: () => [
      repeat(latestTime.save, { everyMs: latestTimeEveryMs, log }),
      repeat(() => staticWorkers.probe(), { everyMs: probeEveryMs, log }),
      repeat(disk.look, { everyMs: diskEveryMs, log }),
      repeat(fleetFile.saveAgain, { everyMs: fleetEveryMs, log }),
    ],
    save: fleetFile.saveAgain,
  };
}

/** Nobody waits for this: a figure that cannot be counted must not end the process. */
function countOrLog(
  ended: EndedRequest,
  { metrics, log }: { readonly metrics: EdgeMetrics; readonly log: ThreadStores['log'] },
): void {
  try {
    metrics.observe(ended);
  } catch (error) {
    const { requestId } = ended;
    log('error', 'request-not-counted', { requestId, reason: describe(error) });
  }
}
