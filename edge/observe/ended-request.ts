/** A request that is over, as far as it is told of: nothing that was said in it is here. */
import type { Usage } from '../money.ts';

/**
 * `authenticated`: the key proved itself. `admitted`: its hold is open. `placed`: its turn came,
 * and it has a worker. `began`: the worker's first event is here. `ended`: its last one is.
 * `settled`: the tenant has its entry.
 */
export type Stage = 'authenticated' | 'admitted' | 'placed' | 'began' | 'ended' | 'settled';

/** Facts become known on a request's way; one is null as long as it is not. */
export interface RequestFacts {
  readonly tenant: string | null;
  readonly keyId: string | null;
  readonly model: string | null;
  readonly alias: string | null;
  readonly stream: boolean | null;
  readonly worker: string | null;
  /** The code of the error that the client was told. */
  readonly code: string | null;
  /** `replayed`: the answer is that of an earlier request under the same key. */
  readonly outcome: 'done' | 'aborted' | 'failed' | 'unsettled' | 'replayed' | null;
  readonly usage: Usage | null;
  readonly heldNanoUsd: number | null;
  readonly costNanoUsd: number | null;
  /** Bytes of the prompt that the prefix index promised on that worker. */
  readonly predictedCachedBytes: number | null;
}

/** A request as HTTP sees it. */
export interface HttpFacts {
  readonly requestId: string;
  readonly method: string;
  /** The pattern of the path, so that there are few of them. */
  readonly route: string;
  /** The status of the answer; 499 when the client left before it had one. */
  readonly status: number;
}

export interface EndedRequest extends RequestFacts, HttpFacts {
  /** Unix milliseconds. */
  readonly startedAtMs: number;
  /** From its headers to the end of its answer. */
  readonly durationMs: number;
  /** Milliseconds from the start to each stage that it reached. */
  readonly stages: Readonly<Partial<Record<Stage, number>>>;
}
