/** Responses that a tenant stores, as the rest of the edge asks for them. */
import type { EarlierItems, StoredNames } from '../dialects/inference-request.ts';
import type { Refusal } from './admission-contract.ts';
import type { VerifiedKey } from './key-contract.ts';

export interface StoredResponse {
  /** JSON of the response. */
  readonly response: string;
  /** JSON of the items of its own request. */
  readonly input: string;
}

/** A key that may not ask is told so before anything of what is stored. */
export type Asked<Found> = Found | { readonly kind: 'refused'; readonly refusal: Refusal };

export type StoredResponseFound = Asked<
  { readonly kind: 'found'; readonly stored: StoredResponse } | { readonly kind: 'missing' }
>;

export type StoredResponseDeleted = Asked<{ readonly kind: 'deleted' | 'missing' }>;

export type EarlierFound = Asked<
  | { readonly kind: 'found'; readonly earlier: EarlierItems }
  /** `after` goes on from the response that is missing; null of what the request names itself. */
  | { readonly kind: 'no-response'; readonly id: string; readonly after: string | null }
  | { readonly kind: 'no-item'; readonly id: string }
  | { readonly kind: 'too-long' }
>;

/** The calls about what a tenant stores; each first asks if the key may run the model. */
export interface TenantStoredResponses {
  /** Finds the items that a request goes on from, which counts as a use of their responses. */
  earlierItems(key: VerifiedKey, names: StoredNames): Promise<EarlierFound>;
  storedResponse(key: VerifiedKey, id: string): Promise<StoredResponseFound>;
  deleteStoredResponse(key: VerifiedKey, id: string): Promise<StoredResponseDeleted>;
}
