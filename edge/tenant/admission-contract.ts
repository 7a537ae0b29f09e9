/** Admission: what a request asks of its tenant, and what the tenant answers. */
import type { Price } from '../money.ts';
import type { Period } from './budget-contract.ts';
import type { Priority, Scope, VerifiedKey } from './key-contract.ts';

export interface AdmitInput {
  readonly key: VerifiedKey;
  readonly scope: Scope;
  readonly requestId: string;
  readonly model: string;
  /** The name that the request has for the model; null or absent where that is its own. */
  readonly alias?: string | null;
  /** The revision of the model, for the receipt. */
  readonly revision?: string | null;
  readonly price: Price;
  /** Upper bound of the prompt in tokens: its UTF-8 bytes (docs/design.md#money). */
  readonly promptTokensMax: number;
  readonly outputTokensMax: number;
  /** Absent where the hold is to cover all of the output. */
  readonly lease?: Lease;
  /** Absent where the request names no budget. */
  readonly budgets?: BudgetsAsked;
  /** The prefix chain of the request's canonical bytes (docs/design.md#prefix-chain). */
  readonly prefixChain: readonly PrefixKey[];
  /** The marks of the prompt's trail (prompt-trail.ts); null where it has none. */
  readonly promptMarks?: Int32Array | null;
  readonly idempotency: IdempotentRequest | null;
}

/** The output that is held at first; more is held as it is generated. */
export interface Lease {
  readonly outputTokens: number;
}

export interface BudgetsAsked {
  readonly names: readonly string[];
  /**
   * The output tokens may be lowered to what budgets and balance cover, in multiples of so many:
   * the answers of the request. null: the request is refused instead.
   */
  readonly trimTo: number | null;
}

/** A request as far as its headers tell. */
export interface PreadmitInput {
  readonly key: VerifiedKey;
  readonly scope: Scope;
  readonly idempotencyKey: string | null;
  /** true when the request certainly costs something. */
  readonly costs: boolean;
}

export interface IdempotentRequest {
  readonly key: string;
  /** A hash of everything that the answer depends on. */
  readonly requestHash: string;
  /** The client has the events of the answer up to this one; 0 means that it has none. */
  readonly afterEvent: number;
}

/** The bytes of an answer, kept for replay under its idempotency key. */
export interface StoredAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface PrefixKey {
  /** The key's 16 bytes, hex. */
  readonly key: string;
  /** Bytes of the prompt up to and with this chunk. */
  readonly bytes: number;
}

/** The deepest confirmed or expected prefix of a prompt on one worker. */
export interface PrefixHit {
  readonly worker: string;
  readonly epoch: number;
  readonly bytes: number;
}

/** An earlier prompt of the tenant that begins like a prompt. */
export interface SeenPrompt {
  /** Marks of the trails that are the same. */
  readonly marks: number;
  /** true when all of the earlier prompt is at the beginning of this one. */
  readonly isWhole: boolean;
  /** The worker that answered it. */
  readonly worker: string;
}

export type AdmitResult =
  | {
      readonly kind: 'admitted';
      readonly holdNanoUsd: number;
      /** The amount that the hold can grow to: the most that the request can cost. */
      readonly holdNanoUsdMax: number;
      /** Lower than what was asked for where budgets or balance did not cover that. */
      readonly outputTokensMax: number;
      /** The priority of the request's key. */
      readonly priority: Priority;
      /** The weight of the request's key. */
      readonly weight: number;
      readonly prefixHits: readonly PrefixHit[];
      readonly seenPrompt: SeenPrompt | null;
      readonly limits: RateLimits;
    }
  | { readonly kind: 'replay'; readonly answer: StoredAnswer }
  /** The same request was admitted under its idempotency key before, and is not settled yet. */
  | { readonly kind: 'running'; readonly requestId: string }
  | { readonly kind: 'refused'; readonly reason: Refusal; readonly limits: RateLimits | null };

/** The answer to a request that holds no money; `refusal` is null when the request may go on. */
export interface LimitCheck {
  readonly refusal: Refusal | null;
  readonly limits: RateLimits | null;
}

export type Refusal =
  | { readonly kind: 'bad-key' }
  | { readonly kind: 'expired-key'; readonly expiredAtMs: number }
  | {
      readonly kind: 'model-not-allowed';
      readonly model: string;
      readonly models: readonly string[];
    }
  | {
      readonly kind: 'budget';
      /** null: the key's own. */
      readonly name: string | null;
      readonly period: Period;
      readonly leftNanoUsd: number;
      readonly neededNanoUsd: number;
      readonly resetsAtMs: number | null;
    }
  | { readonly kind: 'no-budget'; readonly name: string; readonly nearest: string | null }
  | { readonly kind: 'no-scope'; readonly scope: Scope }
  | {
      readonly kind: 'no-balance';
      readonly availableNanoUsd: number;
      /** null when the request needs more than is available, whatever its body says. */
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
  /** The request was answered and billed under this id, but its answer is no longer kept. */
  | { readonly kind: 'idempotency-no-answer'; readonly requestId: string }
  | { readonly kind: 'idempotency-mismatch' };

/** The values of the x-ratelimit headers: those of the tighter of key and tenant. */
export interface RateLimits {
  readonly requestsLimit: number;
  readonly requestsRemaining: number;
  readonly requestsResetMs: number;
  readonly tokensLimit: number;
  readonly tokensRemaining: number;
  readonly tokensResetMs: number;
}
