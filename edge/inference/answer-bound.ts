/**
 * The most bytes that a worker's answer takes on the wire. One that is longer goes on without end:
 * the edge lets go of it before it has filled the memory.
 */

import { wholeLogprobsMax } from '../../gpu-worker/protocol/limits.ts';
import { ApiError } from '../errors.ts';

/** Room for what stands before the first token and after the last: prompt logprobs, above all. */
const restBytesMax = 16 * 2 ** 20;
/** An event may hold a single token, under all the names that engines give it. */
const eventBytesMax = 4 * 1024;
const alternativeBytesMax = 2 * 1024;

/** Bounds the bytes of one token, with its alternatives if the request asks for logprobs. */
export function tokenBytesMax(workerBody: Readonly<Record<string, unknown>>): number {
  const { logprobs, top_logprobs: top } = workerBody;
  const alternatives = [logprobs, top].map(Number).filter(Number.isFinite);
  return eventBytesMax + Math.max(0, ...alternatives) * alternativeBytesMax;
}

/** Counts the log-probabilities of each token: its own and those of its alternatives. */
export function logprobsPerToken(workerBody: Readonly<Record<string, unknown>>): number {
  const { logprobs, top_logprobs: top } = workerBody;
  // A chat asks for them with `true`, a completion with a number.
  if (logprobs === true) return 1 + Number(top ?? 0);
  return typeof logprobs === 'number' ? 1 + logprobs : 0;
}

/**
 * @throws ApiError for a whole answer that would be kept in memory until its end, and is too long.
 */
export function refuseLongLogprobs(prepared: {
  readonly request: {
    readonly stream: boolean;
    readonly endsWhole?: true;
    readonly logprobsPerToken: number;
    readonly workerPath: string;
  };
  readonly outputTokensMax: number;
}): void {
  const { stream, endsWhole, logprobsPerToken: each, workerPath } = prepared.request;
  const values = prepared.outputTokensMax * each;
  if ((stream && !endsWhole) || values <= wholeLogprobsMax) return;
  throw new ApiError(
    'invalid_value',
    `The answer could have ${values} log-probabilities, all choices and alternatives together; ` +
      `one that is not streamed may have at most ${wholeLogprobsMax}. ` +
      (endsWhole ? "Lower 'max_tokens'." : "Set 'stream', or lower 'max_tokens'."),
    { param: workerPath === '/v1/chat/completions' ? 'top_logprobs' : 'logprobs' },
  );
}

export function answerBytesMax(prepared: {
  readonly request: { readonly tokenBytesMax: number };
  readonly outputTokensMax: number;
}): number {
  return restBytesMax + prepared.outputTokensMax * prepared.request.tokenBytesMax;
}
