/**
 * The services that the routes stand on. The two runtimes (`cloudflare/`, `node/`) build a
 * `Services` each, and `edge/inference` alone knows the order in which a request meets its parts.
 */
import type { Log } from '../infra/log.ts';
import type { Tracing } from '../infra/tracing/tracing.ts';
import type { BodyBudget } from './bodies/body-budget.ts';
import type { Directory } from './directory/directory-contract.ts';
import type { ServedContexts } from './directory/served-contexts.ts';
import type { EdgeSettings } from './settings/edge-settings.ts';
import type { Fleet } from './fleet/fleet-contract.ts';
import type { AppContext } from './middleware/app-env.ts';
import type { Observe } from './observe/request-record.ts';
import type { Post } from './relay/post.ts';
import type { RunningAnswers } from './inference/running-answers-contract.ts';
import type { Tenant } from './tenant/tenant-contract.ts';

export interface Services {
  tenant(id: string): Tenant;
  /** Makes the database of a tenant that is being created, unless it is there. */
  createDatabase(tenant: string): Promise<void>;
  readonly fleet: Fleet;
  readonly servedContexts: ServedContexts;
  readonly directory: Directory;
  readonly settings: EdgeSettings;
  readonly clock: { nowMs(): number };
  readonly random: { bytes(count: number): Uint8Array };
  /** Sentences on what the operator should mend before it stops requests; /health shows them. */
  readonly warnings: () => Promise<readonly string[]>;
  /** Brings requests to the workers. */
  readonly post: Post;
  /** Reaches the workers for all else. */
  readonly fetch: typeof fetch;
  readonly log: Log;
  /** Is told of each request that is over: the access log, the metrics, the trace. */
  readonly observe: Observe;
  /** null when no traces are sent. */
  readonly tracing: Tracing | null;
  /** Prometheus text; null where requests of one edge end in many places. */
  readonly metrics: (() => Promise<string>) | null;
  /** @throws if records could not be written now. */
  readonly checkRecords: () => Promise<void>;
  /** Keeps work alive after the answer (Cloudflare's waitUntil; on Node a tracked promise). */
  readonly keepAlive: (work: Promise<unknown>) => void;
  readonly runningAnswers: RunningAnswers;
  /** null when such requests are answered here. */
  readonly forwardKeyed: ForwardKeyed | null;
  readonly bodies: BodyBudget;
  /** null when the runtime has none. */
  readonly threads: Threads | null;
}

/**
 * Answers a request with an idempotency key where all requests with that key are answered; null
 * when that is here. A key is a key of a tenant's API key.
 */
export type ForwardKeyed = (
  name: { readonly tenant: string; readonly keyId: string; readonly idempotencyKey: string },
  c: AppContext,
) => Promise<Response> | null;

/** Threads take work that would hold up the event loop. */
export interface Threads {
  /** Resolves with the answer of the thread that the message is sent to. @throws ApiError */
  run(
    message: object,
    client: { readonly tenant: string; readonly signal: AbortSignal },
  ): Promise<object>;
}
