/** The reports on a tenant's money: its balance, its usage by day and its ledger. */
import type { Price, Usage } from '../money.ts';

/** All amounts are in nano-USD. */
export interface Balance {
  readonly granted: number;
  readonly toppedUp: number;
  /** The part of the two that open holds reserve. */
  readonly held: number;
}

export interface UsageRow {
  /** YYYY-MM-DD, UTC. */
  readonly day: string;
  readonly model: string;
  readonly keyId: string;
  readonly requests: number;
  readonly usage: Usage;
  readonly costNanoUsd: number;
  /**
   * Complete answers whose prompt the prefix index expected to be cached where they were placed.
   */
  readonly prefixPromised: number;
  /** Those of them of which the worker had nothing cached: the index's mismatches. */
  readonly prefixBroken: number;
}

/** The place of a row in the report, whose rows are in the order of these fields. */
export type UsageCursor = Pick<UsageRow, 'day' | 'model' | 'keyId'>;

export interface UsagePage {
  readonly fromDay: string;
  readonly toDay: string;
  readonly after: UsageCursor | null;
  readonly limit: number;
}

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
  /** The name that the request had for the model, where that was not its own. */
  readonly alias?: string;
  /** The budgets that the request named, where it named any. */
  readonly budgets?: readonly string[];
  /** The part of a posted or voided hold that was reserved while its answer was made. */
  readonly extendedNanoUsd?: number;
  readonly keyId: string | null;
  readonly priceId: string | null;
  readonly usage: Usage | null;
  readonly predictedCachedBytes: number | null;
  /** JSON: the reason that the request's usage stated; absent where there was none. */
  readonly cacheMissReason?: string;
  readonly note: string | null;
  readonly createdAtMs: number;
}

/** A request that was admitted, as its entries tell it; `open` until it is settled. */
export type BilledRequest =
  | { readonly kind: 'missing' }
  | { readonly kind: 'open' }
  | ({ readonly kind: 'settled' } & SettledRequest);

export interface SettledRequest {
  readonly requestId: string;
  /** The entry that settled it. */
  readonly entryId: number;
  readonly status: 'posted' | 'voided';
  /** null in entries that are older than the field. */
  readonly outcome: 'done' | 'aborted' | 'failed' | null;
  readonly keyId: string;
  readonly model: string;
  readonly alias: string | null;
  /** null in entries that are older than the field. */
  readonly revision: string | null;
  readonly price: Price;
  readonly usage: Usage;
  readonly costNanoUsd: number;
  /** Cost beyond the hold, which was not billed. */
  readonly excessNanoUsd: number;
  readonly worker: string | null;
  /** JSON of the reason, as the request's usage stated it. */
  readonly cacheMissReason: string | null;
  readonly admittedAtMs: number;
  readonly settledAtMs: number;
  /** Entries that corrected it since, oldest first. */
  readonly corrections: readonly Pick<LedgerEntry, 'id' | 'amountNanoUsd' | 'createdAtMs'>[];
}
