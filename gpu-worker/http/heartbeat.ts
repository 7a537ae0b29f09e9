/**
 * Tells the edge every five seconds that this worker is there, what it serves and how loaded it is.
 * An edge that is away is normal: it is tried again at the next beat, and only the change is
 * logged.
 */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Heartbeat } from '../protocol/heartbeat.ts';
import { toWireLoad } from './health.ts';
import type { Lifecycle } from './lifecycle.ts';

const intervalMs = 5_000;
/** A beat that takes longer is given up, so that beats never pile up. */
const timeoutMs = 4_000;
const reasonCharactersMax = 300;

export interface HeartbeatOptions {
  /** The edge's base URL. */
  readonly edgeUrl: string;
  /** The edge reaches this worker there. */
  readonly workerUrl: string;
  readonly workerId: string;
  /** The epoch of this start is larger than that of any earlier one, whatever the clock says. */
  readonly epoch: number;
  /** Random, of this start. */
  readonly start: string;
  readonly token: string | null;
  readonly lifecycle: Lifecycle;
  readonly logger: Logger;
  readonly fetch: typeof fetch;
  /** Resolves after that time, or early when the signal aborts. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

export interface HeartbeatSender {
  /** Sends one beat now, such as one that says `draining`. Never throws. */
  beat(): Promise<void>;
  stop(): Promise<void>;
}

export function startHeartbeat(options: HeartbeatOptions): HeartbeatSender {
  const { edgeUrl, token, logger, lifecycle } = options;
  const url = new URL('/internal/workers/heartbeat', edgeUrl);
  const stopped = new AbortController();
  /** The problem of the last beat: null if there was none, undefined before the first. */
  let lastProblem: string | null | undefined;

  async function beat(): Promise<void> {
    const problem = await send();
    if (problem !== lastProblem) {
      if (problem === null) logger.info({ url: url.href }, 'the edge answers');
      else logger.warn({ url: url.href, problem }, 'the edge did not take the heartbeat');
    }
    lastProblem = problem;
  }

  /** Sends a heartbeat and says what went wrong, if something did. */
  async function send(): Promise<string | null> {
    try {
      const response = await options.fetch(url, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(token !== null && { authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify(heartbeat(options, lifecycle)),
        signal: AbortSignal.timeout(timeoutMs),
      });
      const reason = await readReason(response);
      if (response.status === 401) return "status 401: WORKER_TOKEN must be the edge's";
      if (response.status === 404) return 'status 404: --edge names something else than an edge';
      return response.ok
        ? null
        : `status ${response.status}${reason === null ? '' : `: ${reason}`}`;
    } catch (error) {
      // fetch says "fetch failed" and keeps what happened in the cause.
      const { message, cause } = error instanceof Error ? error : new Error(String(error));
      return cause instanceof Error ? `${message}: ${cause.message || cause.name}` : message;
    }
  }

  async function beatUntilStopped(): Promise<void> {
    while (!stopped.signal.aborted) {
      await beat();
      await options.sleep(intervalMs, stopped.signal);
    }
  }
  const beating = beatUntilStopped();

  return {
    beat,
    async stop() {
      stopped.abort();
      await beating;
    },
  };
}

const errorSchema = z.object({ error: z.object({ message: z.string() }) });

/** Reads why an edge refuses a heartbeat; null where it says nothing. */
async function readReason(response: Response): Promise<string | null> {
  const text = await response.text();
  if (response.ok) return null;
  try {
    return errorSchema.parse(JSON.parse(text)).error.message.slice(0, reasonCharactersMax);
  } catch {
    return null;
  }
}

function heartbeat(
  options: Pick<HeartbeatOptions, 'workerId' | 'workerUrl' | 'epoch' | 'start'>,
  lifecycle: Lifecycle,
): Heartbeat {
  const { status, model } = lifecycle.state();
  const identity = {
    id: options.workerId,
    url: options.workerUrl,
    epoch: options.epoch,
    start: options.start,
    engine: 'sift',
    state: status,
  };
  if (!model) return { ...identity, models: [], capacity: null, load: null };
  const { description } = model.engine;
  const { plan } = description;
  const load = model.engine.load();
  return {
    ...identity,
    models: [
      {
        id: model.id,
        revision: description.revision,
        tokenizer: model.tokenizerId,
        block_tokens: plan.blockTokens,
        context_length: description.contextLength,
      },
    ],
    capacity: {
      sequences: plan.sequencesMax,
      waiting: plan.waitingMax,
      step_tokens: plan.stepTokensMax,
      cache_tokens: load.blocksTotal * plan.blockTokens,
    },
    load: toWireLoad(load),
  };
}
