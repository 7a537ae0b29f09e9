/** Placement: what a request asks of the fleet, and which worker it gets. */
import type { Priority } from '../tenant/key-contract.ts';
import type { OwnToken } from './worker-contract.ts';

export interface PlaceInput {
  readonly requestId: string;
  readonly model: string;
  /** Estimates in tokens; bytes / 4 until a model's own ratio is known. */
  readonly promptTokens: number;
  readonly outputTokensMax: number;
  readonly prefixHits: readonly { worker: string; epoch: number; tokens: number }[];
  /** Workers that already refused this request. */
  readonly exclude: readonly string[];
  /**
   * First key of the prefix chain: requests that begin alike meet on one of several idle workers.
   */
  readonly prefixKey?: string | null;
  /** null when the request takes no slot and does not wait, such as a count of tokens. */
  readonly turn: Turn | null;
}

/** A request's place in the queue in front of the workers. */
export interface Turn {
  readonly tenant: string;
  /** The tenant's share beside others that wait too. */
  readonly weight: number;
  readonly priority: Priority;
  /** The key that it came with, and its share beside the tenant's other keys; absent: unknown. */
  readonly key?: string;
  readonly keyWeight?: number;
  /** Answers that it runs at once, each of which takes a slot of the worker. */
  readonly slots: number;
  /** A wait that would be longer is refused at once. */
  readonly waitMsMax: number;
  /** The worker that took it last and had no slot after all; it goes first then. */
  readonly busyWorker: string | null;
}

export type PlaceResult =
  | {
      readonly kind: 'placed';
      readonly worker: string;
      readonly url: string;
      readonly epoch: number;
      /** The context of the model on that worker; null when the worker does not say. */
      readonly contextLength: number | null;
      readonly reportsCachedTokens: boolean;
      readonly hasJournal: boolean;
      /**
       * The token that the edge shows the worker in place of WORKER_TOKEN; null: none of its own.
       * Never logged.
       */
      readonly ownToken: OwnToken | null;
    }
  | NotPlaced;

export type NotPlaced =
  | {
      readonly kind: 'no-worker';
      /**
       * `none-ready`: those that serve the model fail or drain; `all-refused`: they are in
       * `exclude`.
       */
      readonly reason: 'none-serves' | 'none-ready' | 'all-refused';
      readonly retryAfterSeconds: number;
    }
  /** `wait`: its turn would not come in time; `queue`: too many wait; `closing`: the edge ends. */
  | {
      readonly kind: 'overloaded';
      readonly reason: 'wait' | 'queue' | 'closing';
      /** Seconds until the request would have its turn, as far as can be known. */
      readonly retryAfterSeconds: number;
    }
  /** `withdraw` took the request out of the queue. */
  | { readonly kind: 'withdrawn' };

/** The tokens that were computed for a request: a worker's speed is learned from them. */
export interface Computed {
  /** Prompt tokens without those that were cached. */
  readonly promptTokens: number;
  readonly outputTokens: number;
}
