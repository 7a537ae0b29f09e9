/**
 * The most bytes that a worker's answer takes on the wire. One that is longer goes on without end:
 * the edge lets go of it before it has filled the memory.
 */

/** Before the first token and after the last: prompt logprobs, above all. */
const restBytesMax = 16 * 2 ** 20;
/** An event may hold a single token, under all the names that engines give it. */
const eventBytesMax = 4 * 1024;
const alternativeBytesMax = 2 * 1024;

/** Of one token, with its alternatives if the request asks for logprobs. */
export function tokenBytesMax(workerBody: Readonly<Record<string, unknown>>): number {
  const { logprobs, top_logprobs: top } = workerBody;
  const alternatives = [logprobs, top].map(Number).filter(Number.isFinite);
  return eventBytesMax + Math.max(0, ...alternatives) * alternativeBytesMax;
}

export function answerBytesMax(order: {
  readonly request: { readonly tokenBytesMax: number };
  readonly outputTokensMax: number;
}): number {
  return restBytesMax + order.outputTokensMax * order.request.tokenBytesMax;
}
