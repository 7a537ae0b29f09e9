/**
 * One worker process. The main thread serves HTTP; the same file is the entry of the engine's
 * thread, because this is where a backend is picked and everything is put together.
 */
import { createHash, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { Logger } from 'pino';
import { createDiskWatch, diskOf } from '../infra/disk-watch.ts';
import type { DiskWatch } from '../infra/disk-watch.ts';
import { openTracing } from '../infra/tracing/open-tracing.ts';
import { tracingChoice } from '../infra/tracing/tracing-settings.ts';
import { version } from '../infra/program.ts';
import type { KernelChoice } from './backend/kernel-choices.ts';
import { startEngine } from './engine/engine-handle.ts';
import { runEngineThread } from './engine/engine-thread.ts';
import type { Engine, MemoryPlan } from './engine/request.ts';
import { createApp } from './http/app.ts';
import { systemClock } from './http/clock.ts';
import { startHeartbeat } from './http/heartbeat.ts';
import type { HeartbeatSender } from './http/heartbeat.ts';
import { createLifecycle } from './http/lifecycle.ts';
import type { Lifecycle, ServedModel } from './http/lifecycle.ts';
import { createMetrics } from './http/metrics.ts';
import type { SamplingDefaults } from './http/request/sampling-defaults.ts';
import { listen } from './http/server.ts';
import { nextEpoch } from './http/start-epoch.ts';
import { defaultHttpSettings } from './http/worker-services.ts';
import { shutDown } from './http/shut-down.ts';
import { openTextPool } from './http/text/text-pool.ts';
import type { TextPool } from './http/text/text-pool.ts';
import { openUsageJournal } from './http/journal/usage-journal.ts';
import type { UsageJournal } from './http/journal/usage-journal.ts';
import { openEngineModel } from './open-engine-model.ts';
import { bytesText, createProgress } from './progress.ts';
import { openSource } from './weights/open-source.ts';
import { verifyWhole } from './weights/verified-source.ts';
import { sourceSettings } from './settings.ts';
import type { WorkerSettings } from './settings.ts';

/** Running requests may go on for so long once the worker is told to stop. */
const drainMs = 30_000;
/** A disk that fills up is noticed this soon. */
const diskEveryMs = 10_000;
export interface RunningWorker {
  readonly url: string;
  readonly model: {
    readonly id: string;
    readonly contextLength: number;
    readonly revision: string;
    readonly tokenizerId: string;
    /** Requests that state no values are sampled with these. */
    readonly samplingDefaults: SamplingDefaults;
  };
  readonly backend: 'cpu' | 'cuda';
  readonly plan: MemoryPlan;
  readonly kernels: readonly KernelChoice[];
  /**
   * Resolves with the reason if the engine fails: the worker then answers 503 until it is closed.
   */
  readonly failed: Promise<string>;
  /** Lets running requests finish for up to `graceMs`. */
  close(options?: { graceMs: number }): Promise<void>;
}

/** Resolves once the model is loaded and requests are answered; /health is up before that. */
export async function startWorker(
  settings: WorkerSettings,
  logger: Logger,
): Promise<RunningWorker> {
  const journal = await openJournal(settings, logger);
  const lifecycle = createLifecycle(() => journal.problem());
  const disk = watchDisk(settings, logger);
  const token = settings.token ?? null;
  const tracing = await openTracing('sift-worker', tracingChoice(settings));
  const app = createApp({
    lifecycle,
    journal,
    metrics: createMetrics({ lifecycle, version, journalErrors: () => journal.errors() }),
    logger,
    clock: systemClock,
    tracing,
    settings: { ...defaultHttpSettings, token, bodyBytesMax: settings.bodyBytes },
    warnings: disk.warnings,
  });
  const server = await listen({ app, host: settings.host, port: settings.port, token }).catch(
    async (error: unknown) => {
      await journal.close();
      throw error;
    },
  );
  let model: ServedModel;
  const failure = Promise.withResolvers<string>();
  try {
    model = await openServedModel(settings, lifecycle, failure.resolve);
  } catch (error) {
    await shutDown({ lifecycle, server, journal, tracing, heartbeat: null, graceMs: 0 });
    throw error;
  }
  lifecycle.serve(model);
  const heartbeat = await announce({ settings, url: server.url, lifecycle, logger });
  void failure.promise.then((reason) => {
    logger.fatal({ reason }, 'the engine failed');
    // The edge learns at once that it should ask another worker.
    return heartbeat?.beat();
  });
  return {
    url: server.url,
    model: {
      id: model.id,
      contextLength: model.engine.description.contextLength,
      revision: model.engine.description.revision,
      tokenizerId: model.tokenizerId,
      samplingDefaults: model.samplingDefaults,
    },
    backend: model.engine.description.backend,
    plan: model.engine.description.plan,
    kernels: model.engine.description.kernels,
    failed: failure.promise,
    close: ({ graceMs } = { graceMs: drainMs }) =>
      shutDown({ lifecycle, server, journal, tracing, heartbeat, graceMs }),
  };
}

/** A journal has one writer; the port that a worker holds is what tells two of them apart. */
async function openJournal(settings: WorkerSettings, logger: Logger): Promise<UsageJournal> {
  const name = settings.port === 0 ? `process-${process.pid}` : `port-${settings.port}`;
  const directory = join(settings.data, 'journal', name);
  try {
    return await openUsageJournal({ directory, clock: systemClock, logger });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`the usage journal can't be kept in ${directory}: ${reason}`, { cause });
  }
}

function watchDisk(settings: WorkerSettings, logger: Logger): DiskWatch {
  const watch = createDiskWatch({
    freePercentMin: settings.diskFreePercent,
    log: (level, event, fields) => logger[level](fields, event),
    readDisk: () => diskOf(settings.data),
  });
  const look = (): void => void watch.look().catch((err: unknown) => logger.warn({ err }));
  look();
  setInterval(look, diskEveryMs).unref();
  return watch;
}

async function openServedModel(
  settings: WorkerSettings,
  lifecycle: Lifecycle,
  onFailure: (reason: string) => void,
): Promise<ServedModel> {
  if (settings.verify) await verifyCheckpoint(settings, lifecycle);
  lifecycle.starting('loading the tokenizer');
  const text = await startTextPool(settings, onFailure);
  lifecycle.starting('loading weights');
  const engine = await startEngineThread(settings, lifecycle, onFailure).catch(
    async (error: unknown) => {
      await text.close();
      throw error;
    },
  );
  return {
    id: settings.modelId,
    ownedBy: 'sift',
    created: Math.floor(Date.now() / 1000),
    engine,
    text,
    ...(await text.opened),
  };
}

function startTextPool(
  settings: WorkerSettings,
  onFailure: (reason: string) => void,
): Promise<TextPool> {
  return openTextPool({
    entry: new URL('./text-entry.ts', import.meta.url),
    workerData: settings,
    threads: settings.textThreads,
    jobMs: settings.textSeconds * 1000,
    onFailure,
  });
}

async function verifyCheckpoint(settings: WorkerSettings, lifecycle: Lifecycle): Promise<void> {
  await using source = await openSource(settings.model, sourceSettings(settings));
  const verifying = createProgress('verifying', 'bytes');
  try {
    await verifyWhole(source, (done, total) => {
      verifying.update(done, total);
      lifecycle.starting(`verifying the checkpoint: ${done} of ${total} bytes`);
    });
  } finally {
    verifying.stop();
  }
}

async function startEngineThread(
  settings: WorkerSettings,
  lifecycle: Lifecycle,
  onFailure: (reason: string) => void,
): Promise<Engine> {
  const loading = createProgress('loading', 'bytes');
  const startedMs = performance.now();
  try {
    return await startEngine({
      entry: new URL(import.meta.url),
      workerData: settings,
      onFailure,
      onProgress({ done, total }) {
        loading.update(done, total);
        const seconds = (performance.now() - startedMs) / 1000;
        lifecycle.starting(`loading weights: ${bytesText({ done, total, seconds })}`);
      },
    });
  } finally {
    loading.stop();
  }
}

async function announce(options: {
  settings: WorkerSettings;
  url: string;
  lifecycle: Lifecycle;
  logger: Logger;
}): Promise<HeartbeatSender | null> {
  const { settings, url, lifecycle, logger } = options;
  if (settings.edgeUrl === undefined) return null;
  const workerUrl = settings.publicUrl ?? url;
  return startHeartbeat({
    edgeUrl: settings.edgeUrl,
    workerUrl,
    // The same at every start, so that the edge sees a restart and not a second worker.
    workerId: createHash('sha256').update(workerUrl).digest('hex').slice(0, 16),
    epoch: await nextEpoch({ directory: settings.data, nowMs: Date.now(), logger }),
    start: randomUUID(),
    token: settings.token ?? null,
    lifecycle,
    logger,
    fetch,
    sleep: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => {}),
  });
}

if (!isMainThread && parentPort !== null) {
  // startEngineThread above is the only one to start a thread on this file.
  const settings = workerData as WorkerSettings;
  await runEngineThread({
    port: parentPort,
    open: (onProgress) => openEngineModel(settings, onProgress),
  });
}
