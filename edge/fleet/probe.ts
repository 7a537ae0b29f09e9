/**
 * Asks a worker that does not announce itself (vLLM, SGLang) what it is: whether it is healthy,
 * which models it serves, and whether it reports cached tokens. Without that report nothing shows
 * that a prompt was cached, so such a worker gives no cached discount, and its status says why.
 */
import { modelListSchema } from '../../gpu-worker/protocol/responses.ts';
import { readBoundedJson } from '../engines/bounded-json.ts';
import { cachedTokens, readCounts } from '../engines/usage.ts';
import type { ServedModel } from './worker-contract.ts';

/**
 * The wait for each of two questions: one that hangs holds up the announcements of the others for
 * so long.
 */
const healthMsMax = 2_500;
/** A cold engine may compile at its first request. */
const completionMsMax = 60_000;
/** More than a block of any engine: 64 tokens here, 16 at vLLM, up to 256 elsewhere. */
const probeWords = 600;
const answerBytesMax = 2 ** 20;

export interface ProbeTarget {
  readonly url: string;
  /** Sent as a bearer token; null sends none. */
  readonly token: string | null;
  readonly fetch: typeof fetch;
}

export type Health =
  | { readonly kind: 'ready'; readonly served: readonly ServedModel[] }
  | { readonly kind: 'failing'; readonly reason: string };

export type CacheReport =
  | { readonly kind: 'reported' }
  | { readonly kind: 'unreported'; readonly reason: string }
  /** Nothing is known; ask again later. */
  | { readonly kind: 'failed'; readonly reason: string };

/** Asks a worker how it is. Never throws: an error is the reason why the worker is failing. */
export async function probeHealth(target: ProbeTarget): Promise<Health> {
  try {
    const health = await ask(target, '/health', null, healthMsMax);
    if (!health.ok) return { kind: 'failing', reason: `/health answers ${health.status}` };
    const listed = await ask(target, '/v1/models', null, healthMsMax);
    if (!listed.ok) return { kind: 'failing', reason: `/v1/models answers ${listed.status}` };
    const list = modelListSchema.safeParse(listed.json);
    if (!list.success) return { kind: 'failing', reason: '/v1/models is no list of models' };
    const served = list.data.data.map(({ id, max_model_len: contextLength = null }) => ({
      id,
      contextLength,
      revision: null,
      tokenizer: null,
    }));
    return { kind: 'ready', served };
  } catch (cause) {
    return { kind: 'failing', reason: reasonOf(cause) };
  }
}

/**
 * Sends one prompt twice. Engines leave the count out while it is 0, so only the second answer,
 * whose prompt is cached, tells. Never throws.
 */
export async function probeCachedTokens(target: ProbeTarget, model: string): Promise<CacheReport> {
  try {
    await cachedOfProbe(target, model);
    const cached = await cachedOfProbe(target, model);
    if (cached !== null) return { kind: 'reported' };
    const options = 'vLLM: --enable-prompt-tokens-details, SGLang: --enable-cache-report';
    return { kind: 'unreported', reason: `it does not report cached tokens (${options})` };
  } catch (cause) {
    const reason = `the probe for cached tokens failed: ${reasonOf(cause)}`;
    return { kind: 'failed', reason };
  }
}

/** Statuses of an engine that lacks the route. */
const unknownRoute = [404, 405, 501];

/** Returns null if the engine does not state cached tokens. Not every engine has both routes. */
async function cachedOfProbe(target: ProbeTarget, model: string): Promise<number | null> {
  const prompt = Array.from({ length: probeWords }, (_, index) => `w${index}`).join(' ');
  const common = { model, max_tokens: 1, temperature: 0, stream: false };
  const messages = [{ role: 'user', content: prompt }];
  let path = '/v1/completions';
  let answer = await ask(target, path, { ...common, prompt }, completionMsMax);
  if (unknownRoute.includes(answer.status)) {
    path = '/v1/chat/completions';
    answer = await ask(target, path, { ...common, messages }, completionMsMax);
  }
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
  const counts = readCounts(answer.json);
  if (counts === null) throw new Error(`${path} counts no tokens`);
  return cachedTokens(counts);
}

interface Answer {
  readonly ok: boolean;
  readonly status: number;
  /** undefined for a body that is no JSON, or longer than any list of models. */
  readonly json: unknown;
}

/**
 * Reads the whole answer within that time, and leaves no timer behind: it would keep a Durable
 * Object awake.
 */
async function ask(
  target: ProbeTarget,
  path: string,
  body: object | null,
  ms: number,
): Promise<Answer> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer within ${ms} ms`)), ms);
  try {
    const response = await target.fetch(`${target.url}${path}`, {
      method: body === null ? 'GET' : 'POST',
      headers: {
        'content-type': 'application/json',
        ...(target.token !== null && { authorization: `Bearer ${target.token}` }),
      },
      ...(body !== null && { body: JSON.stringify(body) }),
      redirect: 'manual',
      signal: late.signal,
    });
    const { ok, status } = response;
    return { ok, status, json: await readBoundedJson(response, answerBytesMax) };
  } finally {
    clearTimeout(timer);
  }
}

function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  // fetch says "fetch failed" and keeps what happened in the cause.
  return cause.cause instanceof Error ? `${cause.message}: ${cause.cause.message}` : cause.message;
}
