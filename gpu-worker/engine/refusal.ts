/** Says why requests that come together are refused, all of them. */
import type { Model } from '../model/model.ts';
import { checkRequest } from './check-request.ts';
import { nothingComputed } from './request.ts';
import type { EngineError, EngineEvent, EngineRequest } from './request.ts';

export interface Occupancy {
  readonly model: Model;
  readonly isInFlight: (id: string) => boolean;
  readonly waitingCount: number;
  readonly waitingMax: number;
  readonly retryAfterSeconds: () => number;
}

/** The reason to refuse the requests, or null if all can be queued. */
export function refusalOf(
  requests: readonly EngineRequest[],
  { model, isInFlight, waitingCount, waitingMax, retryAfterSeconds }: Occupancy,
): EngineError | null {
  for (const request of requests) {
    const error = checkRequest(request, model);
    if (error !== null) return error;
    if (isInFlight(request.id)) {
      const message = `a request with id ${request.id} is in flight already`;
      return { kind: 'invalid', message, retryAfterSeconds: null };
    }
  }
  const choices = requests.reduce((sum, request) => sum + request.choices, 0);
  if (choices > waitingMax) {
    const message = `${choices} choices are more than may wait at once (${waitingMax})`;
    return { kind: 'invalid', message, retryAfterSeconds: null };
  }
  if (waitingCount + choices > waitingMax) {
    const message = `the queue is full: ${waitingCount} of ${waitingMax} places`;
    return { kind: 'busy', message, retryAfterSeconds: retryAfterSeconds() };
  }
  return null;
}

/** Ends a request that was refused. */
export function refusal({ id }: EngineRequest, error: EngineError): EngineEvent {
  return { kind: 'end', id, usage: nothingComputed, error };
}
