/** Asks one worker how many tokens a prompt has: a sift worker exactly, vLLM by the same route. */
import { tokenizeResponseSchema } from '../../gpu-worker/protocol/responses.ts';
import { readBoundedJson } from '../engines/bounded-json.ts';
import type { ApiError } from '../errors.ts';
import { readRefusal, sendToWorker } from './open-worker.ts';
import type { WorkerCall } from './open-worker.ts';
import { piecesOf } from './post.ts';

export type PromptCount =
  | { readonly kind: 'counted'; readonly tokens: number }
  /** The worker serves the model and does not count for others. */
  | { readonly kind: 'cannot-count' }
  /** Another worker may count. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** The request is at fault. */
  | { readonly kind: 'rejected'; readonly error: ApiError };

const countPath = '/tokenize';
/** The answer lists every token of the prompt: a million of them, of eight characters each. */
const countBytesMax = 8 * 2 ** 20;
/** Statuses of foreign engines that lack the route, or know it for plain text alone. */
const unknownRoute = [400, 404, 405, 422, 501];

/** @throws the signal's reason if it is aborted; nothing else. */
export async function countPrompt(
  call: Omit<WorkerCall, 'path'> & { readonly isSift: boolean },
): Promise<PromptCount> {
  const response = await sendToWorker({ ...call, path: countPath }, 'application/json');
  if (response instanceof Error) {
    return { kind: 'refused', reason: `connection failed: ${response.message}` };
  }
  const { status } = response;
  if (status === 200) {
    const json = await readBoundedJson({ body: piecesOf(response.body) }, countBytesMax);
    const counted = tokenizeResponseSchema.safeParse(json).data;
    return counted === undefined
      ? { kind: 'cannot-count' }
      : { kind: 'counted', tokens: counted.count };
  }
  const refusal = await readRefusal(response, call);
  if (call.isSift && refusal?.kind === 'rejected') return refusal;
  return !call.isSift && unknownRoute.includes(status)
    ? { kind: 'cannot-count' }
    : { kind: 'refused', reason: `status ${status}` };
}
