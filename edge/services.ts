/**
 * The contract between the routes (`edge/http`), which alone know the order of the stages, and what
 * they stand on. The two runtimes (`worker.ts` on Cloudflare, `node.ts`) build a `Services` each; all
 * values crossing here are plain objects, because a tenant and a fleet may be Durable Objects
 * reached by RPC.
 */

import type { BodyBudget } from './bodies/body-budget.ts';
import type { EventLog } from './relay/event-log.ts';
import type { Log } from '../infra/log.ts';

// ---- money and usage -----------------------------------------------------------------------------

/** Disjoint token counts; every wire format is a pure function of this row. 0 is a value, not "absent". */
export interface Usage {
  readonly inputUncached: number;
  /** null: the worker did not say, and the whole prompt is `inputUncached`. */
  readonly inputCached: number | null;
  readonly outputText: number;
  readonly outputReasoning: number;
}

/** Integers, nano-USD per 1,000,000 tokens. `id` names the price row in force, stored with each entry. */
export interface Price {
  readonly id: string;
  readonly inputCached: number;
  readonly inputUncached: number;
  readonly output: number;
}

export interface Balance {
  /** All in nano-USD. */
  readonly granted: number;
  readonly toppedUp: number;
  /** Part of the two that open holds reserve. */
  readonly held: number;
}

// ---- a tenant ------------------------------------------------------------------------------------

export type Scope = 'inference' | 'read' | 'admin';

/** A key whose mac has been verified; whether it is still valid is the tenant's to say. */
export interface VerifiedKey {
  readonly tenant: string;
  readonly keyId: string;
  /** SHA-256 of the key's secret, hex. */
  readonly secretHash: string;
}

export interface AdmitInput {
  readonly key: VerifiedKey;
  readonly scope: Scope;
  readonly requestId: string;
  readonly model: string;
  readonly price: Price;
  /** Upper bound of the prompt in tokens: its UTF-8 bytes (docs/design.md#money). */
  readonly promptTokensMax: number;
  readonly outputTokensMax: number;
  /**
   * Of the request's canonical bytes, hex, with their byte counts: the prefix chain
   * (docs/design.md#prefix-chain).
   */
  readonly prefixChain: readonly PrefixKey[];
  readonly idempotency: IdempotentRequest | null;
}

/** What is known of a request from its headers. */
export interface PreadmitInput {
  readonly key: VerifiedKey;
  readonly scope: Scope;
  readonly idempotencyKey: string | null;
  /** Whether it costs something for sure. */
  readonly costs: boolean;
}

export interface IdempotentRequest {
  readonly key: string;
  /** Of everything that the answer depends on. */
  readonly requestHash: string;
  /** The client has the events of the answer up to this one; 0: it has none. */
  readonly afterEvent: number;
}

export interface PrefixKey {
  /** 16 bytes, hex. */
  readonly key: string;
  /** Bytes of the prompt up to and with this chunk. */
  readonly bytes: number;
}

export type AdmitResult =
  | {
      readonly kind: 'admitted';
      readonly holdNanoUsd: number;
      /** The key's. */
      readonly priority: Priority;
      /** The deepest confirmed or expected prefix on each worker, in bytes of the prompt. */
      readonly prefixHits: readonly { worker: string; epoch: number; bytes: number }[];
      readonly limits: RateLimits;
    }
  | { readonly kind: 'replay'; readonly answer: StoredAnswer }
  /** The same request was admitted under its idempotency key before, and is not settled yet. */
  | { readonly kind: 'running'; readonly requestId: string }
  | { readonly kind: 'refused'; readonly reason: Refusal; readonly limits: RateLimits | null };

export type Refusal =
  | { readonly kind: 'bad-key' }
  | { readonly kind: 'no-scope'; readonly scope: Scope }
  | {
      readonly kind: 'no-balance';
      readonly availableNanoUsd: number;
      /** null: more than that, whatever the body says. */
      readonly neededNanoUsd: number | null;
    }
  | {
      readonly kind: 'limit';
      readonly limit: 'requests' | 'tokens' | 'concurrency';
      readonly of: 'key' | 'tenant';
      readonly retryAfterMs: number;
    }
  /** Nothing is known under the key, and the client asks for what follows an event. */
  | { readonly kind: 'idempotency-no-event'; readonly afterEvent: number }
  /** Answered and billed before, under this request id, but the answer is no longer kept. */
  | { readonly kind: 'idempotency-no-answer'; readonly requestId: string }
  | { readonly kind: 'idempotency-mismatch' };

/** What the x-ratelimit headers say: the tighter of key and tenant. */
export interface RateLimits {
  readonly requestsLimit: number;
  readonly requestsRemaining: number;
  readonly requestsResetMs: number;
  readonly tokensLimit: number;
  readonly tokensRemaining: number;
  readonly tokensResetMs: number;
}

/** The bytes of an answer, kept for replay under its idempotency key. */
export interface StoredAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** An answer at once, not yet written. */
export interface WholeAnswer {
  readonly json: object;
  readonly headers: Readonly<Record<string, string>>;
}

export interface SettleInput {
  readonly requestId: string;
  readonly outcome: 'done' | 'aborted' | 'failed';
  /** null when nothing was delivered: the hold is voided. */
  readonly usage: Usage | null;
  readonly worker: string | null;
  readonly epoch: number | null;
  /** What the index promised, in tokens as far as known; stored beside the worker's count. */
  readonly predictedCachedBytes: number;
  /** The chain of the whole conversation that the worker now holds; [] confirms nothing. */
  readonly confirmedChain: readonly PrefixKey[];
  readonly answer: StoredAnswer | null;
}

export interface Settlement {
  readonly costNanoUsd: number;
  readonly usage: Usage;
  /** false when the request had been settled before: the first settlement stands. */
  readonly first: boolean;
  /** What the usage would have cost beyond the hold: never billed; more than 0 is an alarm. */
  readonly excessNanoUsd: number;
}

/** A hold that is still open after its time: to be settled from a worker's journal, or voided. */
export interface OpenHold {
  readonly requestId: string;
  /** null: it was never placed. */
  readonly worker: string | null;
  /** null as well when the worker keeps no journal. */
  readonly workerUrl: string | null;
  readonly openedAtMs: number;
}

export interface KeyRecord {
  readonly keyId: string;
  readonly label: string;
  readonly status: 'active' | 'revoked';
  readonly scopes: readonly Scope[];
  readonly priority: Priority;
  readonly limits: KeyLimits;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number | null;
}

/** null means no limit of its own. */
export interface KeyLimits {
  readonly requestsPerMinute: number | null;
  readonly tokensPerMinute: number | null;
  readonly concurrentRequests: number | null;
}

export interface UsageRow {
  /** YYYY-MM-DD, UTC. */
  readonly day: string;
  readonly model: string;
  readonly keyId: string;
  readonly requests: number;
  readonly usage: Usage;
  readonly costNanoUsd: number;
  /** Complete answers whose prompt the prefix index expected to be cached where they were placed. */
  readonly prefixPromised: number;
  /** Of those, the ones of which the worker had nothing: the index's mismatches. */
  readonly prefixBroken: number;
}

/** Rows come in this order. */
export type UsageCursor = Pick<UsageRow, 'day' | 'model' | 'keyId'>;

export interface LedgerEntry {
  readonly id: number;
  readonly kind: 'credit' | 'pending' | 'posted' | 'voided' | 'correction';
  readonly requestId: string | null;
  /** The entry that this one resolves or corrects. */
  readonly refersTo: number | null;
  readonly amountNanoUsd: number;
  readonly grantedNanoUsd: number;
  readonly toppedUpNanoUsd: number;
  readonly model: string | null;
  readonly keyId: string | null;
  readonly priceId: string | null;
  readonly usage: Usage | null;
  readonly predictedCachedBytes: number | null;
  readonly note: string | null;
  readonly createdAtMs: number;
}

/** One tenant's database behind its door. Every method is one synchronous transaction inside. */
export interface Tenant {
  admit(input: AdmitInput): Promise<AdmitResult>;
  /**
   * What can be said of a request before its body is read: whether the key may, is within its limits
   * and has any money. Takes nothing; one whose idempotency key is known may be owed an answer.
   */
  preadmit(
    input: PreadmitInput,
  ): Promise<{ readonly refusal: Refusal | null; readonly limits: RateLimits | null }>;
  /** Remembers where an admitted request went, for reconciliation, and its optimistic prefix rows. */
  placed(input: {
    requestId: string;
    worker: string;
    epoch: number;
    /** null: it keeps no journal that could be asked. */
    workerUrl: string | null;
    chain: readonly PrefixKey[];
    /** The client is told of the answer before it is settled, so its hold has to outlive the power. */
    durable?: boolean;
  }): Promise<void>;
  settle(input: SettleInput): Promise<Settlement>;
  /** The prefix hits that `admit` would find, for a quote: holds nothing and counts as no use. */
  prefixHits(
    chain: readonly PrefixKey[],
  ): Promise<readonly { worker: string; epoch: number; bytes: number }[]>;
  /** Key check without money, for /user/balance, /v1/usage and the like. */
  authorize(key: VerifiedKey, scope: Scope): Promise<Refusal | null>;
  /** The same for a request that costs nothing and gives work: it counts as one per minute. */
  admitFree(
    key: VerifiedKey,
    scope: Scope,
  ): Promise<{ readonly refusal: Refusal | null; readonly limits: RateLimits | null }>;
  balance(): Promise<Balance>;
  /** At most `limit` rows, after that one; fewer mean the end. */
  usage(page: {
    fromDay: string;
    toDay: string;
    after: UsageCursor | null;
    limit: number;
  }): Promise<UsageRow[]>;
  entries(page: { afterId: number; limit: number }): Promise<LedgerEntry[]>;
  /** Open for at least that long (or since a time that the clock has not reached yet), oldest first. */
  openHolds(olderThanMs: number): Promise<OpenHold[]>;
  /** Recomputes every balance from the entries; sentences about what does not agree, [] when all does. */
  audit(): Promise<string[]>;

  createKey(input: {
    keyId: string;
    secretHash: string;
    label: string;
    scopes: readonly Scope[];
    /** Without one it is normal. */
    priority?: Priority;
    limits: KeyLimits;
  }): Promise<KeyRecord>;
  updateKey(
    keyId: string,
    change: { status?: 'revoked'; label?: string; priority?: Priority; limits?: KeyLimits },
  ): Promise<KeyRecord | null>;
  keys(): Promise<KeyRecord[]>;
  /** The tenant's own limits, over all of its keys. */
  limits(): Promise<KeyLimits>;
  setLimits(limits: KeyLimits): Promise<void>;
  /** Credits once per source, whatever is repeated; false when the source was seen before. */
  credit(input: {
    kind: 'granted' | 'topped-up';
    amountNanoUsd: number;
    source: string;
    note: string;
  }): Promise<boolean>;
  /** Those of the sources that no credit has, nor one of the operator's under the same name. */
  uncredited(sources: readonly string[]): Promise<string[]>;
  /** A new entry that names the one it corrects; negative takes back. */
  correct(input: { entryId: number; amountNanoUsd: number; note: string }): Promise<LedgerEntry>;
}

// ---- the fleet -----------------------------------------------------------------------------------

/** Of a worker that is not ours. */
export interface OwnToken {
  /** Sent as a bearer token; null sends none. */
  readonly bearer: string | null;
}

/** A worker that does not announce itself (vLLM, SGLang): the edge probes it. */
export interface StaticWorker {
  readonly id: string;
  readonly url: string;
  /** null: it is shown WORKER_TOKEN. */
  readonly ownToken: OwnToken | null;
  /** Answers that it is given at a time; absent: as many as most engines run. */
  readonly slots?: number;
}

export interface PlaceInput {
  readonly requestId: string;
  readonly model: string;
  /** Estimates in tokens; bytes / 4 until a model's own ratio is known. */
  readonly promptTokens: number;
  readonly outputTokensMax: number;
  readonly prefixHits: readonly { worker: string; epoch: number; tokens: number }[];
  /** Workers that already refused this request. */
  readonly exclude: readonly string[];
  /** First key of the prefix chain: requests that begin alike meet on one of several idle workers. */
  readonly prefixKey?: string | null;
  /** null: it takes no slot and does not wait, such as a count of tokens. */
  readonly turn: Turn | null;
}

/** Of a key, among the keys of its tenant. */
export type Priority = 'low' | 'normal' | 'high';

/** What a request asks of the queue in front of the workers. */
export interface Turn {
  readonly tenant: string;
  /** Its tenant's share beside others that wait too. */
  readonly weight: number;
  readonly priority: Priority;
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
      /** Of the model on that worker; null: it does not say. */
      readonly contextLength: number | null;
      readonly reportsCachedTokens: boolean;
      readonly hasJournal: boolean;
      /** What the edge shows it in place of WORKER_TOKEN; null: nothing of its own. Never logged. */
      readonly ownToken: OwnToken | null;
    }
  | {
      readonly kind: 'no-worker';
      /** `none-ready`: those that serve the model fail or drain; `all-refused`: they are in `exclude`. */
      readonly reason: 'none-serves' | 'none-ready' | 'all-refused';
      readonly retryAfterSeconds: number;
    }
  /** `wait`: its turn would not come in time; `queue`: too many wait; `closing`: the edge ends. */
  | {
      readonly kind: 'overloaded';
      readonly reason: 'wait' | 'queue' | 'closing';
      /** When it would have its turn, as far as can be known. */
      readonly retryAfterSeconds: number;
    }
  /** By `withdraw`. */
  | { readonly kind: 'withdrawn' };

/** What was computed for a request: a worker's speed is learned from it. */
export interface Computed {
  /** Without what was cached. */
  readonly promptTokens: number;
  readonly outputTokens: number;
}

/** Live workers of all models; counts tokens in flight at placement, before dispatch. */
export interface Fleet {
  /** Resolves when the request has its turn and a worker has a slot for it, or at once with why not. */
  place(input: PlaceInput): Promise<PlaceResult>;
  /**
   * What `place` would refuse for its wait, before anything has been written for the request; null if
   * it would not, or if asking is as dear as placing.
   */
  expectedRefusal(input: {
    readonly model: string;
    readonly turn: Turn;
  }): Promise<Exclude<PlaceResult, { kind: 'placed' }> | null>;
  /** Its client left while it waited. */
  withdraw(requestId: string): Promise<void>;
  /** First token seen: its prompt tokens no longer wait. */
  started(requestId: string, worker: string): Promise<void>;
  /** Its slots are free; null: the worker did not take it, or nobody knows what it computed. */
  finished(requestId: string, worker: string, computed: Computed | null): Promise<void>;
  heartbeat(body: unknown): Promise<{ accepted: boolean; reason: string | null }>;
  status(): Promise<WorkerStatus[]>;
  drain(worker: string, draining: boolean): Promise<boolean>;
  /** Adds a static worker, or changes one that was added so; takes effect at its next probe. */
  addStatic(worker: StaticWorker): Promise<{ accepted: boolean; reason: string | null }>;
  /** Forgets a worker that was added so; false if there is none. */
  removeStatic(worker: string): Promise<boolean>;
  /** Heartbeats that were refused lately, newest first, each with its worker and reason once. */
  refusals(): Promise<readonly RefusedAnnouncement[]>;
}

/** A heartbeat that was refused, of somebody with the worker token. */
export interface RefusedAnnouncement {
  /** null: it says none that can be read. */
  readonly id: string | null;
  /** Without what may be secret in it. */
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
  /** The same models with what the worker says of them. */
  readonly served: readonly ServedModel[];
  readonly tokensInFlight: number;
  readonly requestsInFlight: number;
  /** Taken by answers under way, and all that the edge gives it at a time. */
  readonly slotsInFlight: number;
  readonly slots: number;
  readonly seenAtMs: number;
  /** null when it reports cached tokens; else why there is no discount. */
  readonly noDiscountReason: string | null;
}

/** What a worker says of a model; null: it does not say. */
export interface ServedModel {
  readonly id: string;
  readonly contextLength: number | null;
  readonly revision: string | null;
  readonly tokenizer: string | null;
}

/** Of the live workers of a model; null: none says. */
export interface ServedContext {
  readonly longest: number | null;
  /** Of foreign engines, which do not know the directory's. */
  readonly longestOfForeignEngines: number | null;
}

export type ServedContexts = (model: string) => Promise<ServedContext>;

/** A model that nobody can use until the operator has run the command. */
export interface UnsoldModel {
  readonly model: string;
  readonly lacks: 'directory entry' | 'price';
  readonly command: string;
}

// ---- the directory -------------------------------------------------------------------------------

export interface ModelRecord {
  readonly id: string;
  readonly contextLength: number;
  readonly revision: string;
  readonly tokenizer: string;
  readonly ownedBy: string;
  readonly createdAtMs: number;
}

/** A price row: in force from `fromMs`, inside its daily window if it has one (minutes of the UTC day). */
export interface PriceRecord extends Price {
  readonly model: string;
  readonly fromMs: number;
  readonly window: { readonly startMinute: number; readonly endMinute: number } | null;
}

export interface TenantRecord {
  /** Its share of the workers beside other tenants that wait too: an integer from 1. */
  readonly weight: number;
  readonly id: string;
  readonly name: string;
  /** `creating`: its database is not known to exist yet, and it has no key. */
  readonly status: 'creating' | 'active' | 'suspended';
  readonly createdAtMs: number;
}

/** Models, prices, tenants and payments: shared by all tenants, holds no balances. */
export interface Directory {
  models(): Promise<ModelRecord[]>;
  putModel(model: ModelRecord): Promise<void>;
  /** The row in force at that instant; rows with a window win over rows without. */
  priceAt(model: string, atMs: number): Promise<Price | null>;
  prices(model: string | null): Promise<PriceRecord[]>;
  addPrice(price: PriceRecord): Promise<void>;
  tenant(id: string): Promise<TenantRecord | null>;
  tenants(): Promise<TenantRecord[]>;
  /** Its weight is 1. */
  createTenant(tenant: Omit<TenantRecord, 'weight'>): Promise<boolean>;
  setTenantStatus(id: string, status: TenantRecord['status']): Promise<boolean>;
  setTenantWeight(id: string, weight: number): Promise<boolean>;
  /** Notes a payment event that was credited; false when it was noted before. */
  noteEvent(event: PaymentEvent): Promise<boolean>;
  knowsEvent(id: string): Promise<boolean>;
  /**
   * Before a payment is credited: what was known of its source. It outlives the tenant's database, so
   * that a payment is not credited again where that was put back from an older copy.
   */
  beginPayment(payment: Payment): Promise<'new' | 'begun' | 'credited'>;
  /** After it was credited. */
  endPayment(source: string): Promise<void>;
  /** A page of a tenant's payments that were credited, by source. */
  creditedPayments(page: {
    readonly tenant: string;
    readonly afterSource: string;
    readonly limit: number;
  }): Promise<Payment[]>;
}

export interface Payment {
  readonly source: string;
  readonly tenant: string;
  readonly amountNanoUsd: number;
  readonly beganAtMs: number;
}

export interface PaymentEvent {
  readonly id: string;
  readonly kind: string;
  readonly tenant: string | null;
  readonly receivedAtMs: number;
}

// ---- answers that outlive their clients -----------------------------------------------------------

/** The answers under an idempotency key that are being made here, by request id. */
export interface RunningAnswers {
  /** Before admission, so that whoever finds the request's key in use finds its answer too. */
  claim(requestId: string): RunningAnswer;
  find(requestId: string): RunningAnswer | null;
  /** It was stopped, and is found no longer; its bill is on the way. */
  isSettling(requestId: string): boolean;
  /** From now on an answer ends when its last client has left; those without a client end at once. */
  stopAbandoned(): void;
}

export interface RunningAnswer {
  /** The answer of a request that does not stream. */
  readonly whole: PromiseWithResolvers<WholeAnswer>;
  /** The events of one that does. */
  readonly log: EventLog;
  /** Resolved once a worker has taken the request: from then on clients may be told of an answer. */
  readonly accepted: PromiseWithResolvers<void>;
  /**
   * One more client waits for it. Call what it returns when that one has left.
   * @throws ApiError when too many wait.
   */
  join(): () => void;
  /** It is being made; `stop` ends that. */
  runs(stop: () => void): void;
  /** It is settled, or was never admitted: it is found no longer. */
  over(): void;
}

/**
 * Answers a request with an idempotency key where all requests with that key are answered. A key
 * is a key of a tenant's API key.
 */
export type ForwardKeyed = (
  name: { readonly tenant: string; readonly keyId: string; readonly idempotencyKey: string },
  request: Request,
) => Promise<Response>;

/** For work that would hold up the event loop. */
export interface Threads {
  /** Resolves with the answer of the thread that the message is sent to. @throws ApiError */
  run(
    message: object,
    client: { readonly tenant: string; readonly signal: AbortSignal },
  ): Promise<object>;
}

// ---- all of it -----------------------------------------------------------------------------------

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
  /** What the operator should see to before it stops requests; /health shows it. */
  readonly warnings: () => readonly string[];
  /** To the workers. */
  readonly fetch: typeof fetch;
  readonly log: Log;
  /** Keeps work alive after the answer (Cloudflare's waitUntil; on Node a tracked promise). */
  readonly keepAlive: (work: Promise<unknown>) => void;
  readonly runningAnswers: RunningAnswers;
  /** null: here. */
  readonly forwardKeyed: ForwardKeyed | null;
  readonly bodies: BodyBudget;
  /** null: the runtime has none. */
  readonly threads: Threads | null;
}

export interface EdgeSettings {
  /** Newest first; all verify, the newest signs. */
  readonly keySigningSecrets: readonly string[];
  readonly cacheSecret: string;
  readonly workerToken: string;
  readonly adminToken: string;
  readonly stripe: { readonly secretKey: string; readonly webhookSecret: string } | null;
  readonly bodyBytesMax: number;
  readonly keepAliveMs: number;
  readonly outputTokensDefault: number;
  /** A request that states no longest wait for a worker is refused if it would wait longer. */
  readonly queueMsMax: number;
  /** A worker that sends nothing for this long, not even a comment, is taken for dead. */
  readonly workerSilenceMsMax?: number;
  /** A whole answer that takes longer begins with empty lines, and has no cost header. */
  readonly wholeAnswerQuietMs?: number;
  /** A client that sends less than 64 KiB of its body in this time is refused. */
  readonly bodyWindowMs?: number;
}
