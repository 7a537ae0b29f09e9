/**
 * The fleet on Cloudflare: one Durable Object for the workers of all models. A worker may serve
 * several models, and its tokens in flight must be counted in one place; an object per model would
 * each see a part. One object places some hundreds of requests a second; beyond that the name under
 * which the worker reaches it is the one place to shard by. Callers reach it as a `Fleet`
 * (worker-env.ts).
 */
import type { DurableObjectState } from '@cloudflare/workers-types';
import { DurableObject } from 'cloudflare:workers';
import { openDirectoryDb } from '../../db/drivers/d1.ts';
import { createDirectory } from '../directory/directory.ts';
import { cacheDirectory } from '../directory/directory-cache.ts';
import { readWorkerSettings } from '../settings/read-settings.ts';
import { LocalFleet } from '../fleet/fleet.ts';
import type { FleetSnapshot } from '../fleet/fleet-snapshot.ts';
import { createStaticWorkers, probeEveryMs } from '../fleet/static-workers.ts';
import type { StaticWorkers } from '../fleet/static-workers.ts';
import { fleetMethods } from '../fleet/fleet-contract.ts';
import type { Accepted } from '../fleet/fleet-contract.ts';
import type { StaticWorker } from '../fleet/worker-contract.ts';
import { createContextLog } from '../directory/served-contexts.ts';
import { createUnsoldLog } from '../directory/unsold-models.ts';
import { logToConsole } from './console-log.ts';
import { delegate } from './delegate.ts';
import type { WorkerEnv } from './worker-env.ts';

const snapshotKey = 'snapshot';
/** Each worker announces itself every 5 s; the directory is read less often. */
const directoryTtlMs = 30_000;

export class FleetObject extends DurableObject<WorkerEnv> {
  static {
    delegate(this.prototype, fleetMethods, (self) => self.#fleet);
  }

  readonly #fleet: LocalFleet;
  readonly #static: StaticWorkers;

  constructor(ctx: DurableObjectState, env: WorkerEnv) {
    super(ctx, env);
    const clock = { nowMs: () => Date.now() };
    const { staticWorkers: configured, workerHosts: hosts, workerToken } = readWorkerSettings(env);
    const log = logToConsole;
    const directory = cacheDirectory(createDirectory(openDirectoryDb(env.DIRECTORY)), {
      clock,
      ttlMs: directoryTtlMs,
    });
    const logUnsold = createUnsoldLog({ directory, clock, log });
    const logContexts = createContextLog({ directory, log });
    // Written by `save` alone. The object may be evicted at any time, drained workers may not
    // return.
    const snapshot = ctx.storage.kv.get<FleetSnapshot>(snapshotKey);
    const fleet = new LocalFleet({
      clock,
      configured,
      hosts,
      ...(snapshot && { snapshot }),
      // Writes of an object in one turn are one write.
      save: (changed) => ctx.storage.kv.put(snapshotKey, changed()),
      onAnnounced: (worker, served) => {
        ctx.waitUntil(logUnsold(worker, served));
        ctx.waitUntil(logContexts(worker, served));
      },
    });
    this.#fleet = fleet;
    this.#static = createStaticWorkers({
      workers: () => fleet.staticWorkers(),
      workerToken,
      clock,
      fetch: (...call) => fetch(...call),
      announce: (announcement) => void fleet.announce(announcement),
      log,
    });
    if (fleet.staticWorkers().length > 0) void ctx.storage.setAlarm(Date.now());
  }

  /** Only a fleet with static workers has one. */
  async alarm(): Promise<void> {
    if (this.#fleet.staticWorkers().length === 0) return;
    await this.#static.probe();
    await this.ctx.storage.setAlarm(Date.now() + probeEveryMs);
  }

  /** Adds the worker and wakes the object at once to probe it. */
  async addStatic(worker: StaticWorker): Promise<Accepted> {
    const answer = await this.#fleet.addStatic(worker);
    if (answer.accepted) await this.ctx.storage.setAlarm(Date.now());
    return answer;
  }
}
