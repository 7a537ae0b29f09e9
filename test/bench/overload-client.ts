/**
 * Clients of the overload benchmark: streamed text completions over kept connections, with the time
 * to the first token and whether the answer came whole. As light as can be, because they share the
 * cores with what is measured.
 */
import { Agent, request } from 'node:http';
import type { IncomingMessage } from 'node:http';

export interface Ask {
  readonly url: string;
  readonly key: string;
  readonly promptIds: readonly number[];
  readonly maxTokens: number;
  readonly waitMsMax: number;
  readonly model: string;
}

export interface Outcome {
  /** The edge's name for it, by which the worker's log knows it too; empty without an answer. */
  readonly requestId: string;
  /** 0: no answer at all. */
  readonly status: number;
  readonly retryAfter: number | null;
  /** A 200 that ended with its last event. */
  readonly isWhole: boolean;
  readonly firstTokenMs: number;
  readonly beganMs: number;
  readonly endedMs: number;
  /** Output tokens that a whole answer has. */
  readonly tokens: number;
}

const agent = new Agent({ keepAlive: true, maxSockets: Infinity });

export function ask(of: Ask): Promise<Outcome> {
  const beganMs = performance.now();
  const body = JSON.stringify({
    model: of.model,
    prompt: of.promptIds,
    max_tokens: of.maxTokens,
    ignore_eos: true,
    temperature: 0,
    stream: true,
  });
  return new Promise((resolve) => {
    const failed = (): void => resolve(outcome({ beganMs, status: 0 }));
    const req = request(`${of.url}/v1/completions`, {
      agent,
      method: 'POST',
      headers: {
        authorization: `Bearer ${of.key}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'x-sift-max-wait-ms': of.waitMsMax,
      },
    });
    req.on('response', (res) => {
      void readAnswer(res, beganMs, of).then(resolve, failed);
    });
    req.on('error', failed);
    req.end(body);
  });
}

async function readAnswer(res: IncomingMessage, beganMs: number, of: Ask): Promise<Outcome> {
  const { statusCode: status = 0 } = res;
  let firstTokenMs = Number.NaN;
  let end = '';
  try {
    for await (const piece of res.setEncoding('utf8')) {
      const text = String(piece);
      if (Number.isNaN(firstTokenMs) && text.includes('"text"')) {
        firstTokenMs = performance.now() - beganMs;
      }
      end = (end + text).slice(-64);
    }
  } catch {
    // An answer that is cut has no last event.
  }
  const isWhole = status === 200 && end.endsWith('data: [DONE]\n\n');
  const retryAfter = Number(res.headers['retry-after'] ?? Number.NaN);
  const requestId = String(res.headers['x-request-id'] ?? '');
  const tokens = isWhole ? of.promptIds.length + of.maxTokens : 0;
  return outcome({ requestId, beganMs, status, isWhole, firstTokenMs, tokens, retryAfter });
}

function outcome(of: Partial<Outcome> & Pick<Outcome, 'beganMs' | 'status'>): Outcome {
  const { retryAfter = null, ...rest } = of;
  return {
    requestId: '',
    isWhole: false,
    firstTokenMs: Number.NaN,
    tokens: 0,
    ...rest,
    retryAfter: Number.isNaN(retryAfter) ? null : retryAfter,
    endedMs: performance.now(),
  };
}

/** One request after another until the time is over. */
export async function closedLoop(
  untilMs: number,
  askOne: () => Promise<Outcome>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  while (performance.now() < untilMs) outcomes.push(await askOne());
  return outcomes;
}

/** One request after another, with a pause of random length before each. */
export async function spacedLoop(
  of: { readonly count: number; readonly pauseMs: number; readonly uniform: () => number },
  askOne: () => Promise<Outcome>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let each = 0; each < of.count; each++) {
    await waitMs(exponential(of.uniform) * of.pauseMs);
    outcomes.push(await askOne());
  }
  return outcomes;
}

/**
 * Requests at random moments, so many a second on average, whether or not earlier ones have ended.
 */
export async function openLoop(
  of: {
    readonly untilMs: number;
    readonly perSecond: number;
    readonly uniform: () => number;
    readonly signal?: AbortSignal;
  },
  askOne: () => Promise<Outcome>,
): Promise<Outcome[]> {
  const asked: Promise<Outcome>[] = [];
  let nextMs = performance.now();
  while (nextMs < of.untilMs && !of.signal?.aborted) {
    await waitMs(Math.max(0, nextMs - performance.now()));
    asked.push(askOne());
    nextMs += (exponential(of.uniform) / of.perSecond) * 1_000;
  }
  return Promise.all(asked);
}

/** A random value of mean 1, as the times between events at random moments are distributed. */
function exponential(uniform: () => number): number {
  return -Math.log(1 - uniform());
}

function waitMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
