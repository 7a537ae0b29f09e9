/**
 * The record of a request, which the access log, the metrics and the trace are told once it is
 * over. Nothing that was said in it is here. A stage is reached at most once.
 */
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

const unknown: RequestFacts = {
  tenant: null,
  keyId: null,
  model: null,
  alias: null,
  stream: null,
  worker: null,
  code: null,
  outcome: null,
  usage: null,
  heldNanoUsd: null,
  costNanoUsd: null,
  predictedCachedBytes: null,
};

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

/** Is told of each request that is over. */
export type Observe = (ended: EndedRequest) => void;

/** Follows one request. It is over once its answer has been given and its hold is settled. */
export class RequestRecord {
  readonly #observe: Observe;
  readonly #startedAtMs: number;
  readonly #start = performance.now();
  #stages: Partial<Record<Stage, number>> = {};
  #facts = unknown;
  #http: HttpFacts | null = null;
  /** The answer is to be given yet, and perhaps a hold is to be settled. */
  #pending = 1;

  constructor(observe: Observe, startedAtMs: number) {
    this.#observe = observe;
    this.#startedAtMs = startedAtMs;
  }

  note(facts: Partial<RequestFacts>): void {
    this.#facts = { ...this.#facts, ...facts };
  }

  reach(stage: Stage): void {
    this.#stages[stage] ??= performance.now() - this.#start;
  }

  /**
   * A hold was opened: the request is not over before `settled`. One that no worker of a model took
   * is admitted again for the next model.
   */
  admitted(): void {
    const { authenticated } = this.#stages;
    this.#stages = { ...(authenticated !== undefined && { authenticated }) };
    this.reach('admitted');
    this.#pending++;
  }

  settled(facts: Partial<RequestFacts>): void {
    this.note(facts);
    this.reach('settled');
    this.#endOne();
  }

  answered(http: HttpFacts): void {
    this.#http = http;
    this.#endOne();
  }

  #endOne(): void {
    this.#pending--;
    if (this.#pending > 0 || this.#http === null) return;
    this.#observe({
      ...this.#facts,
      ...this.#http,
      startedAtMs: this.#startedAtMs,
      durationMs: performance.now() - this.#start,
      stages: this.#stages,
    });
  }
}
