/**
 * The edge on Node: one process, one SQLite file per tenant and one for the directory under a data
 * folder that only its user can read. `sift edge` and `sift start` run it, and so do tests.
 */
import { UserError } from '../../infra/user-error.ts';
import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { pino } from 'pino';
import { openDirectoryDb } from '../../db/drivers/better-sqlite3.ts';
import { createTenantFile, openTenantFile } from '../../db/drivers/tenant-file.ts';
import { commitInGroups } from '../../db/group-commit.ts';
import { whenUnlocked } from '../../db/unavailable.ts';
import { tenantIdPattern } from '../auth/api-key.ts';
import { createDirectory } from '../directory/directory.ts';
import { cacheDirectory } from '../directory/directory-cache.ts';
import { waitForLocks } from '../directory/directory-retry.ts';
import { allSecrets } from '../env.ts';
import type { NodeSettings, Secrets } from '../env.ts';
import { createFleet } from '../fleet/fleet.ts';
import type { FleetSnapshot } from '../fleet/fleet.ts';
import { createStaticWorkers, probeEveryMs } from '../fleet/static-workers.ts';
import { finishCreations } from '../tenant/create-tenant.ts';
import { createEdge } from '../edge.ts';
import { createBodyBudget } from '../bodies/body-budget.ts';
import { createRunningAnswers } from '../inference/running-answers.ts';
import { createKnownTime, parseLatestTime } from '../directory/known-time.ts';
import { makeFile, messageOf, openDataFolder, replaceFile } from './data-folder.ts';
import type { DataFolder } from './data-folder.ts';
import { createDiskWatch, diskOf } from '../../infra/disk-watch.ts';
import { createBodyThreads } from './body-threads.ts';
import { closesUnused, listen, stopServing, urlOf } from './http-server.ts';
import { createNodeFetch } from './node-fetch.ts';
import { createOpenTenants } from './open-tenants.ts';
import { createHoldSweeper } from '../reconcile/hold-sweeper.ts';
import type { Services } from '../services.ts';
import { createTenant } from '../tenant/tenant.ts';
import { createContextLog, createServedContexts } from '../directory/served-contexts.ts';
import { createUnsoldLog } from '../directory/unsold-models.ts';

/** Holds are looked at this often; an expired one waits at most so much longer. */
const reconcileEveryMs = 30_000;
/** New workers are written down this soon, so that many at once cost one write. */
const fleetEveryMs = 1_000;
/** A disk that fills up is noticed this soon. */
const diskEveryMs = 10_000;
/** Requests under way may finish for this long after the first Ctrl-C. */
const drainMsMax = 30_000;
/** Kept of answers that are being made under idempotency keys. */
const answerCharactersMax = 256 * 1024 * 1024;
/**
 * A commit gathers what arrives in so many turns of the event loop. Waiting for the disk holds all
 * requests up, so fewer and larger groups serve more of them; an idle loop turns in microseconds.
 */
const turnsPerCommit = 3;

/** A process that is killed forgets as much of the time that it has seen. */
const latestTimeEveryMs = 60_000;
/** What workers say of their contexts, read out of the same process. */
const contextsTtlMs = 250;

export interface RunningEdge {
  readonly url: string;
  readonly services: Services;
  /** Answers nobody new, lets the requests under way finish and settle, then closes the databases. */
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
  const folder = dataFolder.path;
  const secrets = makeSecrets(settings, join(folder, 'secrets.env'));
  const directoryDb = await whenUnlocked(async () =>
    openDatabase(join(folder, 'directory.db'), openDirectoryDb),
  );
  const tenantPath = (id: string): string => {
    assert(tenantIdPattern.test(id), 'a tenant id is a file name');
    return join(folder, 'tenants', `${id}.db`);
  };
  const openTenants = createOpenTenants({
    openMax: settings.openTenantsMax,
    open(id) {
      const { db, waitForDisk, isCurrent, close } = openTenantFile(tenantPath(id), id);
      const committer = commitInGroups(db, afterTurns, { waitForDisk });
      return { tenant: createTenant(db, { clock, committer }), isCurrent, close };
    },
  });
  const { staticWorkers: configured } = settings;
  const latestTimePath = join(folder, 'latest-time');
  const knownTime = createKnownTime({ latestMs: readLatestTime(latestTimePath), log });
  const directory = cacheDirectory(waitForLocks(createDirectory(directoryDb.db)), {
    clock,
    ttlMs: Infinity,
    knownTime,
  });
  const logUnsold = createUnsoldLog({ directory, clock, log });
  const logContexts = createContextLog({ directory, log });
  const memory = fleetMemory(join(folder, 'fleet.json'), log);
  const fleet = createFleet({
    clock,
    configured,
    hosts: settings.workerHosts,
    ...(memory.snapshot && { snapshot: memory.snapshot }),
    save: memory.save,
    onAnnounced: (worker, served) => {
      services.keepAlive(logUnsold(worker, served));
      services.keepAlive(logContexts(worker, served));
    },
  });
  const disk = createDiskWatch({
    freePercentMin: settings.diskFreePercentMin,
    log,
    readDisk: () => diskOf(folder),
  });
  const underWay = new Set<Promise<unknown>>();
  const runningAnswers = createRunningAnswers({
    clock,
    runOnMs: settings.runOnMs,
    charactersMax: answerCharactersMax,
  });
  const bodyThreads = createBodyThreads();
  const services: Services = {
    tenant: (id) => openTenants.tenant(id),
    async createDatabase(id) {
      createTenantFile(tenantPath(id), id);
      await openTenants.tenant(id).limits();
    },
    fleet,
    servedContexts: createServedContexts({ fleet: () => fleet, clock, ttlMs: contextsTtlMs }),
    directory,
    settings: { ...settings, ...secrets },
    clock,
    random: { bytes: randomBytes },
    warnings: () => [...disk.warnings(), ...knownTime.warnings(clock.nowMs())],
    fetch: createNodeFetch(),
    log,
    keepAlive(work) {
      underWay.add(work);
      void work.catch(() => {}).finally(() => underWay.delete(work));
    },
    runningAnswers,
    forwardKeyed: null,
    threads: bodyThreads,
    bodies: createBodyBudget({
      bytesMax: settings.bodiesBytesMax,
      bodyBytesMax: settings.bodyBytesMax,
    }),
  };
  const staticWorkers = createStaticWorkers({
    workers: fleet.staticWorkers,
    workerToken: secrets.workerToken,
    clock,
    fetch,
    announce: (announcement) => void fleet.announce(announcement),
    log,
  });
  const holds = createHoldSweeper({
    services,
    tenant: openTenants.tenantForUpkeep,
    holdMs: settings.holdMs,
    usedIds: openTenants.takeUsedIds,
  });
  const closeDatabases = async (): Promise<void> => {
    await openTenants.close();
    directoryDb.close();
  };

  let server: Server;
  try {
    await finishCreations(services);
    server = await listen(createEdge(services).fetch, settings);
  } catch (error) {
    await closeDatabases();
    throw error;
  }
  const closeUnused = closesUnused(server);
  const timers = [
    repeat(holds.sweep, { everyMs: reconcileEveryMs, log }),
    repeat(
      async () => {
        knownTime.of(clock.nowMs());
        replaceFile(latestTimePath, `${knownTime.latestMs() ?? 0}\n`);
      },
      { everyMs: latestTimeEveryMs, log },
    ),
    repeat(staticWorkers.probe, { everyMs: probeEveryMs, log }),
    repeat(disk.look, { everyMs: diskEveryMs, log }),
    repeat(memory.saveAgain, { everyMs: fleetEveryMs, log }),
  ];

  let closing: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    fleet.close();
    const late = setTimeout(() => {
      server.closeAllConnections();
      runningAnswers.stopAbandoned();
    }, drainMsMax);
    await stopServing(server, closeUnused);
    await bodyThreads.close();
    await Promise.all(timers.map((timer) => timer.stop()));
    await memory.saveAgain();
    while (underWay.size > 0) await Promise.allSettled(underWay);
    clearTimeout(late);
    await closeDatabases();
    dataFolder.release();
  };
  return {
    url: urlOf(server, settings.host),
    services,
    close: () => (closing ??= close()),
  };
}

// ---- files ---------------------------------------------------------------------------------------

function openDatabase<Database>(path: string, open: (path: string) => Database): Database {
  try {
    // SQLite gives its log the mode of the database, so this settles all of its files.
    makeFile(path);
    return open(path);
  } catch (cause) {
    throw new UserError(
      `the database ${path} cannot be opened (${messageOf(cause)}); put back a copy of it`,
      { cause },
    );
  }
}

function afterTurns(flush: () => void, turns = turnsPerCommit): void {
  setImmediate(turns === 1 ? flush : () => afterTurns(flush, turns - 1));
}

/** Secrets that were not given are made once and kept beside the data. */
export function makeSecrets(settings: NodeSettings, path: string): Secrets {
  const kept = readKept(path);
  const made: Record<string, string> = {};
  const keptOrMade = (name: string): string =>
    kept[name] ?? (made[name] = randomBytes(32).toString('base64url'));
  const secrets = allSecrets({
    ...settings,
    keySigningSecrets:
      settings.keySigningSecrets ?? keptOrMade('EDGE_KEY_SIGNING_SECRETS').split(','),
    cacheSecret: settings.cacheSecret ?? keptOrMade('EDGE_CACHE_SECRET'),
    workerToken: settings.workerToken ?? keptOrMade('WORKER_TOKEN'),
    adminToken: settings.adminToken ?? keptOrMade('EDGE_ADMIN_TOKEN'),
  });
  if (Object.keys(made).length > 0) {
    const lines = Object.entries({ ...kept, ...made }).map(([name, value]) => `${name}=${value}\n`);
    replaceFile(path, lines.join(''));
  }
  return secrets;
}

function readKept(path: string): Readonly<Record<string, string | undefined>> {
  try {
    return existsSync(path) ? parseEnv(readFileSync(path, 'utf8')) : {};
  } catch (cause) {
    throw new UserError(
      `${path} cannot be read (${messageOf(cause)}); run the edge as the user that owns it`,
      { cause },
    );
  }
}

function readLatestTime(path: string): number | null {
  return existsSync(path) ? parseLatestTime(readFileSync(path, 'utf8')) : null;
}

interface FleetMemory {
  readonly snapshot?: FleetSnapshot;
  readonly save: (snapshot: () => FleetSnapshot, urgency: 'now' | 'soon') => void;
  /** Writes what is not written yet: what was not urgent, or what the disk had no room for. */
  saveAgain(): Promise<void>;
}

function fleetMemory(path: string, log: Services['log']): FleetMemory {
  let unsaved: (() => FleetSnapshot) | null = null;
  const saveAgain = async (): Promise<void> => {
    if (unsaved === null) return;
    try {
      replaceFile(path, JSON.stringify(unsaved()));
      unsaved = null;
    } catch (error) {
      log('warn', 'fleet-save-failed', { reason: messageOf(error) });
    }
  };
  const save: FleetMemory['save'] = (snapshot, urgency) => {
    unsaved = snapshot;
    if (urgency === 'now') void saveAgain();
  };
  if (!existsSync(path)) return { save, saveAgain };
  try {
    // Written by `save` alone, whole or not at all.
    const snapshot = JSON.parse(readFileSync(path, 'utf8')) as FleetSnapshot;
    return { save, saveAgain, snapshot };
  } catch (cause) {
    throw new UserError(`${path} cannot be read (${messageOf(cause)}); remove it`, { cause });
  }
}

// ---- upkeep and log ---------------------------------------------------------------------------------

/** Runs the work now and again after each pause; its failures are logged and never end it. */
function repeat(
  work: () => Promise<void>,
  options: { readonly everyMs: number; readonly log: Services['log'] },
): { stop(): Promise<void> } {
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  const run = async (): Promise<void> => {
    try {
      await work();
    } catch (error) {
      options.log('warn', 'timer-failed', { reason: messageOf(error) });
    }
    if (!stopped) timer = setTimeout(() => (running = run()), options.everyMs);
  };
  let running = run();
  return {
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}

function logTo(level: NodeSettings['logLevel']): Services['log'] {
  const logger = pino({ level });
  return (severity, event, fields) => logger[severity](fields, event);
}
