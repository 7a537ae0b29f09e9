/** API keys of a tenant: what a request shows, and what the operator sets. */

import type { BudgetRecord, BudgetTerms } from './budget-contract.ts';

export type Scope = 'inference' | 'read' | 'admin';

/** A key whose MAC has been verified; the tenant says whether the key is still valid. */
export interface VerifiedKey {
  readonly tenant: string;
  readonly keyId: string;
  /** SHA-256 of the key's secret, hex. */
  readonly secretHash: string;
}

/** A change to a tenant is made by its operator or by one of its own keys. */
export type Actor =
  | { readonly kind: 'operator' }
  | { readonly kind: 'key'; readonly key: VerifiedKey };

/** The priority of a key among the keys of its tenant. */
export type Priority = 'low' | 'normal' | 'high';

export interface KeyRecord {
  readonly keyId: string;
  readonly label: string;
  readonly status: 'active' | 'revoked';
  readonly scopes: readonly Scope[];
  readonly priority: Priority;
  /** The key's share beside other keys of its tenant and priority that wait too. */
  readonly weight: number;
  readonly limits: KeyLimits;
  /** The key is refused from then on; null: never. */
  readonly expiresAtMs: number | null;
  /** Ids of the models that the key may run, by whatever name it asks for them; null: all. */
  readonly models: readonly string[] | null;
  /** null: the key may spend what the tenant has. */
  readonly budget: BudgetRecord | null;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number | null;
}

/** null means that the key, or the tenant, has no limit of its own. */
export interface KeyLimits {
  readonly requestsPerMinute: number | null;
  readonly tokensPerMinute: number | null;
  readonly concurrentRequests: number | null;
}

/** Terms that may be set of a key at any time. One that is absent stays, or is the default. */
export interface KeyTerms {
  /** A key without one has the priority `normal`. */
  readonly priority?: Priority;
  /** A key without one has the weight 1. */
  readonly weight?: number;
  readonly expiresAtMs?: number | null;
  readonly models?: readonly string[] | null;
  readonly budget?: BudgetTerms | null;
}

export interface NewKey extends KeyTerms {
  readonly keyId: string;
  readonly secretHash: string;
  readonly label: string;
  readonly scopes: readonly Scope[];
  readonly limits: KeyLimits;
}

export interface KeyChange extends KeyTerms {
  readonly status?: 'revoked';
  readonly label?: string;
  readonly limits?: KeyLimits;
}
