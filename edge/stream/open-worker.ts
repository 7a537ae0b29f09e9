/** Sends a request to one worker, and says whether it took it, has no room, or finds it wrong. */
import { errorBodySchema, type ErrorBody } from '../../gpu-worker/protocol.ts';
import { ApiError, type ErrorCode, type Overflow } from '../errors.ts';

export type WorkerAnswer =
  | { readonly kind: 'open'; readonly body: ReadableStream<Uint8Array> }
  /** Another worker may take it. */
  | { readonly kind: 'refused'; readonly reason: string; readonly retryAfterSeconds: number | null }
  /** No worker will take it: the request is at fault. */
  | { readonly kind: 'rejected'; readonly error: ApiError };

export interface WorkerCall {
  readonly fetch: typeof fetch;
  readonly url: string;
  readonly path: string;
  /** Sent as a bearer token; null sends none. */
  readonly token: string | null;
  readonly requestId: string;
  readonly body: string;
  readonly signal: AbortSignal;
}

const errorBytesMax = 64 * 1024;

/** @throws the signal's reason if it is aborted; nothing else. */
export async function openWorker(call: WorkerCall): Promise<WorkerAnswer> {
  const response = await sendToWorker(call, 'text/event-stream');
  if (response instanceof Error) return refused(`connection failed: ${response.message}`);
  const { status, body } = response;
  if (status === 200 && body && isEventStream(response)) return { kind: 'open', body };
  if (status === 400 || status === 413 || status === 422)
    return { kind: 'rejected', error: await rejectionOf(response) };
  await body?.cancel().catch(() => {});
  return refused(`status ${status}`, secondsOf(response.headers.get('retry-after')));
}

/** @returns the answer, or why there is none. @throws the signal's reason if it is aborted. */
export async function sendToWorker(
  call: WorkerCall,
  accept: 'text/event-stream' | 'application/json',
): Promise<Response | Error> {
  // Not as a method: some runtimes refuse a fetch that has a `this`.
  const { fetch } = call;
  try {
    return await fetch(new URL(call.path, call.url), {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept,
        ...(call.token !== null && { authorization: `Bearer ${call.token}` }),
        'x-request-id': call.requestId,
      },
      body: call.body,
      redirect: 'manual',
      signal: call.signal,
    });
  } catch (error) {
    if (call.signal.aborted) throw error;
    return error instanceof Error ? error : new Error(String(error));
  }
}

function refused(reason: string, retryAfterSeconds: number | null = null): WorkerAnswer {
  return { kind: 'refused', reason, retryAfterSeconds };
}

/** What a worker that finds the request wrong says, as our own error. */
export async function rejectionOf(response: Response): Promise<ApiError> {
  const { error } = errorBodySchema.safeParse(await readJson(response)).data ?? {};
  const code: ErrorCode =
    error?.code === 'context_length_exceeded'
      ? 'context_length_exceeded'
      : response.status === 422 || error?.code === 'invalid_value'
        ? 'invalid_value'
        : error?.code === 'unsupported_parameter'
          ? 'unsupported_parameter'
          : 'invalid_request';
  const message = error?.message ?? 'The model cannot take this request.';
  const param = error?.param ?? undefined;
  const overflow = error?.overflow ? toOverflow(error.overflow) : null;
  return new ApiError(code, message, { ...(param && { param }), overflow });
}

function toOverflow(told: NonNullable<ErrorBody['error']['overflow']>): Overflow {
  const { prompt_tokens, output_tokens, context_tokens } = told;
  return {
    promptTokens: prompt_tokens,
    outputTokens: output_tokens,
    contextTokens: context_tokens,
  };
}

/** undefined if it is not JSON, or too long to be an error. */
async function readJson(response: Response): Promise<unknown> {
  try {
    const length = Number(response.headers.get('content-length') ?? '0');
    if (length > errorBytesMax) {
      await response.body?.cancel();
      return undefined;
    }
    return await response.json();
  } catch {
    return undefined;
  }
}

function isEventStream(response: Response): boolean {
  return (response.headers.get('content-type') ?? '').startsWith('text/event-stream');
}

/** Of a Retry-After in seconds; a date, which no worker sends, is left out. */
function secondsOf(retryAfter: string | null): number | null {
  const seconds = retryAfter === null ? Number.NaN : Number(retryAfter);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.ceil(seconds) : null;
}
