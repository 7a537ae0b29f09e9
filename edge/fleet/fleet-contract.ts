/**
 * The fleet, as the rest of the edge sees it: the live workers of all models, in this process
 * (Node) or in a Durable Object (Cloudflare), so all values are plain objects. A new method is
 * declared here, in the interface and in the list, and written in `fleet.ts`; the stub and the
 * Durable Object take their methods from the list.
 */
import type { Computed, NotPlaced, PlaceInput, PlaceResult, Turn } from './placement-contract.ts';
import type { RefusedAnnouncement, StaticWorker, WorkerStatus } from './worker-contract.ts';

export type Accepted =
  | { readonly accepted: true; readonly reason: null }
  | { readonly accepted: false; readonly reason: string };

/** The fleet counts tokens in flight at placement, before dispatch. */
export interface Fleet {
  /** Resolves when the request has its turn and a worker a slot for it, or at once with why not. */
  place(input: PlaceInput): Promise<PlaceResult>;
  /**
   * Returns what `place` would refuse for its wait, before anything has been written for the
   * request; null if it would not, or if asking is as dear as placing.
   */
  expectedRefusal(input: {
    readonly model: string;
    readonly turn: Turn;
  }): Promise<NotPlaced | null>;
  /** Lists those of the models of which a request with this turn would be refused now. */
  refusing(input: {
    readonly models: readonly string[];
    readonly turn: Turn;
  }): Promise<readonly string[]>;
  /** Takes a request out of the queue because its client left while it waited. */
  withdraw(requestId: string): Promise<void>;
  /** The first token was seen: the request's prompt tokens no longer wait. */
  started(requestId: string, worker: string): Promise<void>;
  /**
   * Frees the request's slots. `computed` is null if the worker did not take it, or nobody knows
   * what it computed.
   */
  finished(requestId: string, worker: string, computed: Computed | null): Promise<void>;
  heartbeat(body: unknown): Promise<Accepted>;
  status(): Promise<WorkerStatus[]>;
  drain(worker: string, draining: boolean): Promise<boolean>;
  /** Adds a static worker, or changes one that was added so; takes effect at its next probe. */
  addStatic(worker: StaticWorker): Promise<Accepted>;
  /** Forgets a worker that was added so; false if there is none. */
  removeStatic(worker: string): Promise<boolean>;
  /** Heartbeats that were refused lately, newest first, each with its worker and reason once. */
  refusals(): Promise<readonly RefusedAnnouncement[]>;
}

/** The compiler refuses a stub that this list leaves without one of the methods. */
export const fleetMethods = [
  'place',
  'expectedRefusal',
  'refusing',
  'withdraw',
  'started',
  'finished',
  'heartbeat',
  'status',
  'drain',
  'addStatic',
  'removeStatic',
  'refusals',
] as const satisfies readonly (keyof Fleet)[];
