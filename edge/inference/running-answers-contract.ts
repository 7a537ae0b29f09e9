/** Answers under an idempotency key, which outlive the clients that asked for them. */
import type { EventLog } from '../relay/event-log.ts';

/** An answer that is given at once and whose JSON is not yet written. */
export interface WholeAnswer {
  readonly json: object;
  readonly headers: Readonly<Record<string, string>>;
}

/** The answers under an idempotency key that are being made here, by request id. */
export interface RunningAnswers {
  /**
   * Enters an answer before admission, so that a request that finds its key in use finds the answer
   * too.
   */
  claim(request: { readonly requestId: string; readonly tenant: string }): RunningAnswer;
  find(requestId: string): RunningAnswer | null;
  /** true when the answer was stopped and is found no longer, while its bill is on the way. */
  isSettling(requestId: string): boolean;
  /**
   * From now on an answer ends when its last client has left; those without a client end at once.
   */
  stopAbandoned(): void;
}

export interface RunningAnswer {
  /** The answer of a request that does not stream. */
  readonly whole: PromiseWithResolvers<WholeAnswer>;
  /** The events of an answer that streams. */
  readonly log: EventLog;
  /**
   * Resolved once a worker has taken the request: from then on clients may be told of an answer.
   */
  readonly accepted: PromiseWithResolvers<void>;
  /**
   * Adds a client that waits for the answer. Call what it returns when that client has left.
   * @throws ApiError when too many wait.
   */
  join(): () => void;
  /** Tells how many tokens the answer has so far. */
  counts(outputTokens: number): void;
  /** Tells that the answer is being made; `stop` ends that. */
  runs(stop: () => void): void;
  /** Removes the answer, which is settled or was never admitted. */
  over(): void;
}
