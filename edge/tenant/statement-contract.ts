/**
 * Parts of a statement: the ledger is read in pieces of bounded length, each in a transaction of
 * its own. Entries never change and new ones have larger ids, so the parts up to an id are those of
 * one moment.
 */

export interface StatementPartInput {
  /** Entries made from then on, and before `toMs`, are of the statement. */
  readonly fromMs: number;
  readonly toMs: number;
  /** Entries after this id are read; 0 begins. */
  readonly afterId: number;
  /** The last entry of the statement; null on the first call means all that there are. */
  readonly untilId: number | null;
}

export interface StatementPart {
  /** The last entry of the statement, for the calls that follow. */
  readonly untilId: number;
  /** The last entry that was read; null when there are no more. */
  readonly lastId: number | null;
  /** The balances' change before the statement's time. */
  readonly before: BalanceChange;
  readonly credits: readonly StatementCredit[];
  readonly spend: readonly StatementSpend[];
  readonly corrections: readonly StatementCorrection[];
  /** Holds opened before `toMs`, less those resolved before it. */
  readonly openHolds: { readonly count: number; readonly amountNanoUsd: number };
}

export interface BalanceChange {
  readonly grantedNanoUsd: number;
  readonly toppedUpNanoUsd: number;
}

export interface StatementCredit extends BalanceChange {
  readonly entryId: number;
  readonly source: string;
  readonly note: string | null;
  readonly createdAtMs: number;
}

/** The postings of one model and key. */
export interface StatementSpend extends BalanceChange {
  readonly model: string;
  readonly keyId: string;
  readonly requests: number;
  readonly inputUncached: number;
  readonly inputCached: number;
  readonly outputText: number;
  readonly outputReasoning: number;
  /** Cached tokens would have cost so much more as uncached ones, rounded down per request. */
  readonly savedNanoUsd: number;
}

export interface StatementCorrection extends BalanceChange {
  readonly entryId: number;
  readonly corrects: number;
  readonly model: string | null;
  readonly keyId: string | null;
  readonly note: string | null;
  readonly createdAtMs: number;
}
