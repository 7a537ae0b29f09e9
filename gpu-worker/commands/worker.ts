/** `sift worker`: one worker, until it is told to stop or its engine fails. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { addSettings } from '../../infra/program.ts';
import type { CommandModule } from '../../infra/program.ts';
import { environment } from '../../infra/settings.ts';
import { toUserError } from '../../infra/user-error.ts';
import { onStopSignal } from '../../infra/stop-signal.ts';
import { formatMemoryPlan } from '../engine/memory-plan.ts';
import { formatKernelChoices } from '../backend/kernel-choices.ts';
import { cudaSettings } from '../backend/cuda/cuda-settings.ts';
import { startWorker } from '../main.ts';
import { readWorkerSettings, workerSettings } from '../settings.ts';
import type { WorkerSettings } from '../settings.ts';

/** A failed worker says why for so long, before it ends for its supervisor to start a new one. */
const failedMs = 5_000;
/** EX_SOFTWARE: the engine failed after it had started. */
const failedExitCode = 70;

export const configure: CommandModule['configure'] = (program) => {
  addSettings(program, { ...workerSettings, ...cudaSettings }, (flags) =>
    serve(readWorkerSettings(flags, environment())),
  );
};
/** Serves until it is told to stop. */
async function serve(settings: WorkerSettings): Promise<void> {
  const logger = pino({ level: settings.logLevel, base: { worker: randomUUID().slice(0, 8) } });
  const worker = await startWorker(settings, logger).catch((error: unknown) => {
    throw toUserError(error);
  });
  console.error(formatMemoryPlan(worker.plan));
  console.error(formatKernelChoices(worker.kernels));
  const { url, backend } = worker;
  const sampling = worker.model.samplingDefaults;
  logger.info({ url, model: settings.modelId, backend, sampling }, 'ready');
  onStopSignal((signal) => {
    logger.info({ signal }, 'stopping');
    void worker.close().then(() => process.exit(0));
  });
  void worker.failed.then(async () => {
    await sleep(failedMs);
    await worker.close({ graceMs: 0 });
    process.exit(failedExitCode);
  });
}
