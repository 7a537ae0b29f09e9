/**
 * Log-probabilities as reported to clients: the log-softmax of the model's own logits, before
 * bias, penalties, temperature and filters, as OpenAI and vLLM report them by default.
 */
import { at, missing } from '../at.ts';

export interface RowLogprobs {
  readonly logprob: number;
  /** The most likely tokens, descending, lower index first on ties. */
  readonly top: readonly { token: number; logprob: number }[];
}

/** Computes one row's [vocabSize] log-probabilities; null where the logits are no distribution. */
export function rowLogprobs(
  logits: Float32Array,
  options: { token: number; topCount: number },
): RowLogprobs | null {
  const norm = logSumExp(logits);
  if (!Number.isFinite(norm)) return null;
  return {
    logprob: at(logits, options.token) - norm,
    top: topTokens(logits, options.topCount).map((token) => ({
      token,
      logprob: at(logits, token) - norm,
    })),
  };
}

function logSumExp(logits: Float32Array): number {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  return max + Math.log(sum);
}

/** Inserts into a list of the best so far: one comparison for nearly every token. */
function topTokens(logits: Float32Array, count: number): number[] {
  const top: number[] = [];
  if (count === 0) return top;
  let least = -Infinity;
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token] ?? missing();
    if (top.length === count && !(logit > least)) continue;
    if (top.length === count) top.pop();
    let place = top.length;
    while (place > 0 && at(logits, at(top, place - 1)) < logit) place--;
    top.splice(place, 0, token);
    least = at(logits, at(top, top.length - 1));
  }
  return top;
}
