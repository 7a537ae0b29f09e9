/** The state of one HTTP request while it is answered. */
import type { RequestTrace } from '../../infra/tracing/tracing.ts';
import type { EngineUsage } from '../engine/request.ts';

/** The outcome of a request's run through the engine. */
export interface RunRecord {
  readonly outcome: 'done' | 'aborted' | 'failed';
  readonly usage: EngineUsage;
  readonly firstTokenMs: number | null;
  /** Milliseconds from the request, of its first prompt; null before that is computed. */
  readonly prompt: PromptTimes | null;
  /** false while the journal's disk does not have it. */
  readonly isJournalled: boolean;
}

export interface PromptTimes {
  readonly submittedMs: number;
  readonly begunMs: number;
  readonly computedMs: number;
}

/** Each field that changes has one writer. */
export interface RequestContext {
  readonly id: string;
  readonly startedMs: number;
  /** null when no traces are sent. */
  readonly trace: RequestTrace | null;
  /** Aborted when nobody waits for the answer any more: the client left, or a part of it failed. */
  readonly stop: AbortController;
  /** Written by `createApp`. The route's pattern: a path of the client's making is no label. */
  route: string;
  /** Written by `readBody`: the operator's end user, if the request names one. */
  user: string | null;
  /** Written by `runRequest`; null as long as the engine has not ended the request. */
  run: RunRecord | null;
  /** Written by `createApp`. True of a request whose answer was given up because it was stopped. */
  isGivenUp: boolean;
  /** Written by `streamEvents`, which then calls `end` when the stream ends. */
  isStreaming: boolean;
  /** Writes the log line and counts the request; only the first call does. */
  end(status: number): void;
}
