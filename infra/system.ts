/**
 * The system behind an edge that runs already: a worker with the tiny model that announces itself
 * there, a demo tenant, two real questions through the public URL, a book, and then serving until
 * Ctrl-C.
 */
import { join } from 'node:path';
import { pino } from 'pino';
import { startWorker } from '../gpu-worker/main.ts';
import type { RunningWorker } from '../gpu-worker/main.ts';
import { readWorkerSettings } from '../gpu-worker/settings.ts';
import { readBookAtStart } from './book/book-at-start.ts';
import type { BookReader } from './book/read-book.ts';
import { askDemoQuestions, callingLines } from './demo-questions.ts';
import { callAdmin, prepareDemoTenant } from './demo-tenant.ts';
import { untilAborted } from './stop-signal.ts';

export interface EdgeInFront {
  readonly url: string;
  readonly adminToken: string;
  readonly workerToken: string;
  /** The worker's journal and the demo key are kept there too. */
  readonly dataFolder: string;
  close(): Promise<void>;
}

const tinyModel = new URL('../gpu-worker/models/tiny/', import.meta.url).href;
export const bookOption = 'do not read the beginning of a book once it serves';
export const settingsNote =
  'Settings are the environment variables of the edge (sift edge --help) and of its worker.';
/** The worker's first heartbeat takes no longer, unless something is wrong. */
const announcedMsMax = 10_000;

/**
 * Resolves once it was told to stop, whether it had started or not, and has.
 * @throws what kept it from starting, once all that had started is closed again.
 */
export async function runSystem(
  edge: EdgeInFront,
  env: Readonly<Record<string, string | undefined>>,
  { stop, book }: { readonly stop: AbortSignal; readonly book: boolean },
): Promise<void> {
  let worker: RunningWorker | null = null;
  const start = async (): Promise<void> => {
    worker = await startTinyWorker(edge, env);
    await showSystem(edge, worker, { stop, book });
  };
  const stopped = untilAborted(stop);
  try {
    await Promise.race([start(), stopped]);
    await stopped;
  } catch (error) {
    if (stop.aborted) console.log('\nstopping: requests under way may finish');
    // The worker first: its last answers are settled while the edge still runs.
    await closeWorker(worker);
    await edge.close();
    if (!stop.aborted) throw error;
  }
}

async function closeWorker(worker: RunningWorker | null): Promise<void> {
  await worker?.close();
}

/** A worker with the tiny model, unless the environment names another. */
export async function startTinyWorker(
  edge: EdgeInFront,
  env: Readonly<Record<string, string | undefined>>,
): Promise<RunningWorker> {
  const settings = readWorkerSettings(
    {},
    {
      SIFT_LOG_LEVEL: 'warn',
      SIFT_MODEL: tinyModel,
      SIFT_BACKEND: 'auto',
      SIFT_DATA: join(edge.dataFolder, 'worker'),
      ...env,
      WORKER_TOKEN: edge.workerToken,
      SIFT_EDGE_URL: edge.url,
    },
  );
  return startWorker(settings, pino({ level: settings.logLevel }));
}

/**
 * Sells the worker's model to a demo tenant, asks two questions in its name and says how to go on;
 * then, if it is told to, reads a book.
 */
async function showSystem(
  edge: EdgeInFront,
  worker: RunningWorker,
  { stop, book }: { readonly stop: AbortSignal; readonly book: boolean },
): Promise<void> {
  const reader = await openDemo(edge, worker);
  console.log(
    `sift serves ${reader.model} on ${edge.url}, computed on the ${worker.backend} backend; ` +
      `its data is in ${edge.dataFolder}\n`,
  );
  const seen = await askDemoQuestions(reader);
  console.log(callingLines(reader));
  const tokensMax = Math.min(
    worker.model.contextLength,
    worker.plan.blocks * worker.plan.blockTokens,
  );
  if (book) await readBookAtStart(reader, { seen, tokensMax, stop });
}

/** Resolves once a demo tenant can ask the worker's model. */
export async function openDemo(edge: EdgeInFront, worker: RunningWorker): Promise<BookReader> {
  const key = await prepareDemoTenant({
    edge,
    model: worker.model,
    keyFile: join(edge.dataFolder, 'demo-key'),
  });
  await announced(edge, worker);
  return {
    edgeUrl: edge.url,
    key,
    model: worker.model.id,
    workerUrl: worker.url,
    workerToken: edge.workerToken,
  };
}

/** The edge knows the worker from its first heartbeat on. */
async function announced(edge: EdgeInFront, worker: RunningWorker): Promise<void> {
  const untilMs = performance.now() + announcedMsMax;
  for (;;) {
    // The operator API's own answer; /openapi.json describes it.
    const { workers } = (await callAdmin(edge, 'GET', '/workers')) as {
      workers: { url: string; state: string }[];
    };
    if (workers.some(({ url, state }) => url === worker.url && state === 'ready')) return;
    if (performance.now() > untilMs)
      throw new Error('the worker did not announce itself to the edge');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
