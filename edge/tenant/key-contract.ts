/** API keys of a tenant: what a request shows, and what the operator sets. */

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
  readonly limits: KeyLimits;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number | null;
}

/** null means that the key, or the tenant, has no limit of its own. */
export interface KeyLimits {
  readonly requestsPerMinute: number | null;
  readonly tokensPerMinute: number | null;
  readonly concurrentRequests: number | null;
}

export interface NewKey {
  readonly keyId: string;
  readonly secretHash: string;
  readonly label: string;
  readonly scopes: readonly Scope[];
  /** A key without one has the priority `normal`. */
  readonly priority?: Priority;
  readonly limits: KeyLimits;
}

export interface KeyChange {
  readonly status?: 'revoked';
  readonly label?: string;
  readonly priority?: Priority;
  readonly limits?: KeyLimits;
}
