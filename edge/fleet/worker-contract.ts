/** Workers as the operator configures them and as the fleet reports them. */

/** The token of a worker that is not ours. */
export interface OwnToken {
  /** Sent as a bearer token; null sends none. */
  readonly bearer: string | null;
}

/** A worker that does not announce itself (vLLM, SGLang): the edge probes it. */
export interface StaticWorker {
  readonly id: string;
  readonly url: string;
  /** null when the worker is shown WORKER_TOKEN. */
  readonly ownToken: OwnToken | null;
  /** Answers that it is given at a time; absent means as many as most engines run. */
  readonly slots?: number;
}

/** A heartbeat that was refused although it carried the worker token. */
export interface RefusedAnnouncement {
  /** null when the heartbeat has no id that can be read. */
  readonly id: string | null;
  /** The URL without what may be secret in it. */
  readonly url: string | null;
  readonly reason: string;
  readonly times: number;
  readonly lastAtMs: number;
}

export interface WorkerStatus {
  readonly id: string;
  readonly url: string;
  readonly epoch: number;
  readonly state: 'ready' | 'draining' | 'lost' | 'failing';
  readonly static: boolean;
  readonly models: readonly string[];
  /** The models with what the worker says of each. */
  readonly served: readonly ServedModel[];
  readonly tokensInFlight: number;
  readonly requestsInFlight: number;
  /** Slots taken by answers under way, beside all that the edge gives the worker at a time. */
  readonly slotsInFlight: number;
  readonly slots: number;
  readonly seenAtMs: number;
  /** null when it reports cached tokens; else why there is no discount. */
  readonly noDiscountReason: string | null;
}

/** The statements of a worker about a model; null where it makes none. */
export interface ServedModel {
  readonly id: string;
  readonly contextLength: number | null;
  readonly revision: string | null;
  readonly tokenizer: string | null;
}
