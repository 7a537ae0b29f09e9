/** Sends a request to one worker, and says whether it took it, has no room, or finds it wrong. */
import { readBoundedJson } from '../engines/bounded-json.ts';
import { secretsOf } from '../engines/error-message.ts';
import { readError } from '../engines/errors.ts';
import type { EngineError } from '../engines/errors.ts';
import { ApiError } from '../errors.ts';
import { piecesOf } from './post.ts';
import type { AnswerBytes, Post, PostedAnswer } from './post.ts';

export type WorkerAnswer =
  | { readonly kind: 'open'; readonly body: AnswerBytes }
  /** Another worker may take it; if none does, the error says why, where this one said so. */
  | {
      readonly kind: 'refused';
      readonly reason: string;
      readonly retryAfterSeconds: number | null;
      /** true if the worker would take the request later. */
      readonly isFull: boolean;
      readonly error: ApiError | null;
    }
  /** No worker will take it: the request is at fault. */
  | { readonly kind: 'rejected'; readonly error: ApiError };

export interface WorkerCall {
  readonly post: Post;
  readonly url: string;
  readonly path: string;
  /** Sent as a bearer token; null sends none. */
  readonly token: string | null;
  readonly requestId: string;
  /** Headers of its trace. */
  readonly traceHeaders?: Readonly<Record<string, string>>;
  /** JSON. */
  readonly body: string | Uint8Array<ArrayBuffer>;
  readonly signal: AbortSignal;
}

const errorBytesMax = 64 * 1024;
/** No client is sent away for longer on the word of a worker. */
const retryAfterSecondsMax = 3_600;

/** @throws the signal's reason if it is aborted; nothing else. */
export async function openWorker(call: WorkerCall): Promise<WorkerAnswer> {
  const response = await sendToWorker(call, 'text/event-stream');
  if (response instanceof Error) return refused(`connection failed: ${response.message}`);
  const { status, body } = response;
  if (status === 200 && isEventStream(response)) return { kind: 'open', body };
  const refusal = await readRefusal(response, call);
  if (refusal?.kind === 'rejected') return refusal;
  if (refusal?.kind === 'lacking') return refused(refusal.reason, { error: refusal.error });
  const reason = refusal ? `status ${status}: ${refusal.reason}` : `status ${status}`;
  const retryAfterSeconds = secondsOf(response.header('retry-after'));
  return refused(reason, { retryAfterSeconds, isFull: status === 429 });
}

/** @returns the answer, or why there is none. @throws the signal's reason if it is aborted. */
export async function sendToWorker(
  call: WorkerCall,
  accept: 'text/event-stream' | 'application/json',
): Promise<PostedAnswer | Error> {
  try {
    return await call.post(new URL(call.path, call.url), {
      headers: {
        'content-type': 'application/json',
        accept,
        ...(call.token !== null && { authorization: `Bearer ${call.token}` }),
        'x-request-id': call.requestId,
        ...call.traceHeaders,
      },
      body: call.body,
      signal: call.signal,
    });
  } catch (error) {
    if (call.signal.aborted) throw error;
    return error instanceof Error ? error : new Error(String(error));
  }
}

type Refusal = Extract<WorkerAnswer, { kind: 'refused' }>;

function refused(
  reason: string,
  more: Partial<Pick<Refusal, 'retryAfterSeconds' | 'isFull' | 'error'>> = {},
): Refusal {
  const none = { retryAfterSeconds: null, isFull: false, error: null };
  return { kind: 'refused', reason, ...none, ...more };
}

/**
 * Statuses whose body may tell that the request is at fault; 200 is that of an error sent as one.
 */
const toldStatuses = [200, 400, 404, 413, 422, 500];

/**
 * Reads a refusal in a worker's answer that is no event stream; null if it holds none that matters.
 */
export async function readRefusal(
  response: PostedAnswer,
  call: Pick<WorkerCall, 'url' | 'token'>,
): Promise<EngineError | null> {
  const { status, body } = response;
  if (!toldStatuses.includes(status)) {
    body.cancel();
    return null;
  }
  const json = await readBoundedJson({ body: piecesOf(body) }, errorBytesMax);
  const secrets = secretsOf(call.url, call.token);
  const error = readError(json, { status: status === 200 ? null : status, secrets });
  const isAtFault = status === 400 || status === 413 || status === 422;
  if (error !== null || !isAtFault) return error;
  const message = 'The model cannot take this request.';
  const code = status === 422 ? 'invalid_value' : 'invalid_request';
  return { kind: 'rejected', error: new ApiError(code, message) };
}

function isEventStream(response: PostedAnswer): boolean {
  return (response.header('content-type') ?? '').startsWith('text/event-stream');
}

/** Reads the seconds of a Retry-After; a date, which no worker sends, is left out. */
function secondsOf(retryAfter: string | null): number | null {
  const seconds = retryAfter === null ? Number.NaN : Number(retryAfter);
  if (!Number.isFinite(seconds) || seconds < 0) return null;
  return Math.min(Math.ceil(seconds), retryAfterSecondsMax);
}
