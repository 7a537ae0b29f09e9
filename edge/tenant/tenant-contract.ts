/**
 * One tenant, as the rest of the edge sees it. Its database lies in a file (Node) or in a Durable
 * Object (Cloudflare), and each method is one synchronous transaction there, so all values are
 * plain objects. A new method is declared here, in an interface and in the list, and written in
 * `tenant.ts`; the stubs and the Durable Object take their methods from the list.
 */
import type { KeyDone } from './key-change-contract.ts';
import type {
  AdmitInput,
  AdmitResult,
  LimitCheck,
  PreadmitInput,
  PrefixHit,
  PrefixKey,
  Refusal,
  SeenPrompt,
} from './admission-contract.ts';
import type { TenantAudit } from './audit-contract.ts';
import type {
  Actor,
  KeyChange,
  KeyLimits,
  KeyRecord,
  NewKey,
  Scope,
  VerifiedKey,
} from './key-contract.ts';
import type {
  Balance,
  BilledRequest,
  LedgerEntry,
  UsagePage,
  UsageRow,
} from './report-contract.ts';
import type { TenantStoredResponses } from './stored-response-contract.ts';
import type { StatementPart, StatementPartInput } from './statement-contract.ts';
import type { TenantBudgets } from './budget-operations-contract.ts';
import type {
  ExtendInput,
  Extension,
  OpenHold,
  Placement,
  SettleInput,
  Settlement,
} from './settlement-contract.ts';
import { webhookMethods } from './webhook-contract.ts';
import type { TenantWebhooks } from './webhook-contract.ts';

/** The calls that a request makes on its tenant. */
export interface TenantRequests {
  admit(input: AdmitInput): Promise<AdmitResult>;
  /**
   * Checks a request before its body is read: its key, its limits, and that there is any money.
   * Takes nothing. A request whose idempotency key is known passes, since an answer may be owed.
   */
  preadmit(input: PreadmitInput): Promise<LimitCheck>;
  /** Remembers where an admitted request went, and the prefix that the worker will hold. */
  placed(input: Placement): Promise<void>;
  /** Lets the hold of an admitted request grow, within balance and budgets. */
  extend(input: ExtendInput): Promise<Extension>;
  settle(input: SettleInput): Promise<Settlement>;
  /** The prefix hits that `admit` would find, for a quote: holds nothing and counts as no use. */
  prefixHits(chain: readonly PrefixKey[]): Promise<readonly PrefixHit[]>;
  /** The earlier prompt that `admit` would find, for a quote too. */
  seenPrompt(marks: Int32Array): Promise<SeenPrompt | null>;
  /** Checks a key without money, for /user/balance, /v1/usage and the like. */
  authorize(key: VerifiedKey, scope: Scope): Promise<Refusal | null>;
  /**
   * The same for a request that is free but makes work: it counts against the requests a minute.
   */
  admitFree(key: VerifiedKey, scope: Scope): Promise<LimitCheck>;
}

/** The calls of the operator, of payments and of reconciliation. */
export interface TenantOperations {
  /** Makes a key. The same id and terms again are the same key. */
  createKey(input: NewKey, actor: Actor): Promise<KeyDone>;
  /** null when there is none of that id. */
  updateKey(keyId: string, change: KeyChange, actor: Actor): Promise<KeyDone | null>;
  key(keyId: string): Promise<KeyRecord | null>;
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
  /** Those sources that neither a credit nor a credit of the operator under the same name has. */
  uncredited(sources: readonly string[]): Promise<string[]>;
  /** Adds an entry that names the one it corrects; a negative amount takes back. */
  correct(input: { entryId: number; amountNanoUsd: number; note: string }): Promise<LedgerEntry>;
  /** Holds open for at least that long, or since a time still to come, oldest first. */
  openHolds(olderThanMs: number): Promise<OpenHold[]>;
}

export interface TenantReports {
  balance(): Promise<Balance>;
  /** At most `limit` rows after the cursor; fewer mean the end. */
  usage(page: UsagePage): Promise<UsageRow[]>;
  entries(page: { afterId: number; limit: number }): Promise<LedgerEntry[]>;
  /** Reads a piece of the ledger for a statement. */
  statementPart(input: StatementPartInput): Promise<StatementPart>;
  /** One request, as its entries tell it. */
  billedRequest(requestId: string): Promise<BilledRequest>;
  /** Recomputes every balance from the entries; a sentence about each that does not agree. */
  audit(): Promise<string[]>;
}

export interface Tenant
  extends
    TenantRequests,
    TenantOperations,
    TenantReports,
    TenantBudgets,
    TenantStoredResponses,
    TenantWebhooks,
    TenantAudit {}

/** The compiler refuses a stub that this list leaves without one of the methods. */
export const tenantMethods = [
  'admit',
  'preadmit',
  'placed',
  'extend',
  'settle',
  'prefixHits',
  'seenPrompt',
  'authorize',
  'admitFree',
  'createKey',
  'updateKey',
  'key',
  'keys',
  'limits',
  'setLimits',
  'credit',
  'uncredited',
  'correct',
  'openHolds',
  'balance',
  'usage',
  'entries',
  'statementPart',
  'billedRequest',
  'audit',
  'budgets',
  'budget',
  'setBudget',
  'removeBudget',
  'earlierItems',
  'storedResponse',
  'deleteStoredResponse',
  ...webhookMethods,
  'auditLog',
  'noteAction',
] as const satisfies readonly (keyof Tenant)[];
