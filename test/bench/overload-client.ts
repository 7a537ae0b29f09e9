/**
 * Clients of the overload benchmark: streamed text completions over kept connections, with the time to
 * the first token and whether the answer came whole. As light as can be, because they share the cores
 * with what is measured.
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
  /** 0: no answer at all. */
  readonly status: number;
  readonly retryAfter: number | null;
  /** A 200 that ended with its last event. */
  readonly isWhole: boolean;
  readonly firstTokenMs: number;
  readonly beganMs: number;
  readonly endedMs: number;
  /** Of a whole answer, what it asked for. */
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
  const tokens = isWhole ? of.promptIds.length + of.maxTokens : 0;
  return outcome({ beganMs, status, isWhole, firstTokenMs, tokens, retryAfter });
}

function outcome(of: Partial<Outcome> & Pick<Outcome, 'beganMs' | 'status'>): Outcome {
  const { retryAfter = null, ...rest } = of;
  return {
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

/** Requests at random moments, so many a second on average, whether or not earlier ones have ended. */
export async function openLoop(
  of: { readonly untilMs: number; readonly perSecond: number; readonly uniform: () => number },
  askOne: () => Promise<Outcome>,
): Promise<Outcome[]> {
  const asked: Promise<Outcome>[] = [];
  let nextMs = performance.now();
  while (nextMs < of.untilMs) {
    const leftMs = Math.max(0, nextMs - performance.now());
    await new Promise((resolve) => setTimeout(resolve, leftMs));
    asked.push(askOne());
    nextMs += (-Math.log(1 - of.uniform()) / of.perSecond) * 1_000;
  }
  return Promise.all(asked);
}
