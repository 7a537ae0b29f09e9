/**
 * Picks the worker for a request: the one that will have computed its prompt first. The rule weighs
 * a cached prefix against the queue in front of it; the longest prefix alone would send everything
 * that shares a system prompt to one worker.
 */
import { createHash } from 'node:crypto';

export interface Candidate {
  readonly worker: string;
  /** Tokens placed there that are still to be computed. */
  readonly tokensInFlight: number;
  /** Tokens of this request's prompt that the worker has cached. */
  readonly cachedTokens: number;
  readonly tokensPerSecond: number;
}

/** Seconds until the worker will have computed the prompt, were it the next in line. */
export function placementCost(candidate: Candidate, promptTokens: number): number {
  const uncached = Math.max(0, promptTokens - candidate.cachedTokens);
  return (candidate.tokensInFlight + uncached) / candidate.tokensPerSecond;
}

/**
 * Returns the candidate of least cost. The rendezvous hash of `tieKey` decides between equal ones,
 * so that two requests that begin alike meet on one worker although nobody has seen their prefix
 * yet.
 */
export function chooseWorker<C extends Candidate>(
  candidates: readonly C[],
  request: { readonly promptTokens: number; readonly tieKey: string },
): C | null {
  let best: C[] = [];
  let bestCost = Infinity;
  for (const candidate of candidates) {
    const cost = placementCost(candidate, request.promptTokens);
    if (cost > bestCost) continue;
    if (cost < bestCost) best = [];
    bestCost = cost;
    best.push(candidate);
  }
  if (best.length <= 1) return best[0] ?? null;
  const rank = (each: C): string =>
    createHash('sha256').update(`${each.worker}\0${request.tieKey}`).digest('hex');
  return best
    .map((each) => ({ each, rank: rank(each) }))
    .reduce((a, b) => (b.rank > a.rank ? b : a)).each;
}
