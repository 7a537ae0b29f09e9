/** Placement and settlement of an admitted request, as its tenant records them. */
import type { NewStoredResponse } from '../dialects/answer-format.ts';
import type { Usage } from '../money.ts';
import type { PrefixKey, Refusal, StoredAnswer } from './admission-contract.ts';

/** The place of an admitted request: kept for reconciliation and for the prefix index. */
export interface Placement {
  readonly requestId: string;
  readonly worker: string;
  readonly epoch: number;
  /** null when the worker keeps no journal that could be asked. */
  readonly workerUrl: string | null;
  readonly chain: readonly PrefixKey[];
  /**
   * true when the client hears of the answer before it is settled: the hold must outlive a crash.
   */
  readonly durable?: boolean;
}

export interface ExtendInput {
  readonly requestId: string;
  /** The hold is to grow by this much; less is given where less is left. */
  readonly amountNanoUsd: number;
  /** Less than that is of no use, and not taken. */
  readonly leastNanoUsd: number;
}

export type Extension =
  | { readonly kind: 'extended'; readonly holdNanoUsd: number }
  /** It is what is missing, should the request need more. */
  | {
      readonly kind: 'exhausted';
      readonly lacks: Extract<Refusal, { kind: 'budget' | 'no-balance' }>;
    }
  /** The request is settled. */
  | { readonly kind: 'over' };

export interface SettleInput {
  readonly requestId: string;
  readonly outcome: 'done' | 'aborted' | 'failed';
  /** null when nothing was delivered: the hold is voided. */
  readonly usage: Usage | null;
  readonly worker: string | null;
  readonly epoch: number | null;
  /** Bytes of the prompt that the prefix index promised; stored beside the worker's count. */
  readonly predictedCachedBytes: number;
  /** The chain of the whole conversation that the worker now holds; [] confirms nothing. */
  readonly confirmedChain: readonly PrefixKey[];
  readonly answer: StoredAnswer | null;
  /** The marks of the prompt that the worker has answered; null: nothing is remembered. */
  readonly promptMarks?: Int32Array | null;
  /** JSON: why a cache had no more of the prompt. */
  readonly cacheMissReason?: string | null;
  /** The response to store beside, where the request asked for that. */
  readonly response?: NewStoredResponse | null;
  /**
   * true when the usage is on the disk of the worker's journal, and the hold with the worker's
   * address on ours: were this settlement lost with the power, it would be made again from them.
   */
  readonly isJournalled?: boolean;
}

export interface Settlement {
  readonly costNanoUsd: number;
  readonly usage: Usage;
  /** false when the request had been settled before: the first settlement stands. */
  readonly first: boolean;
  /** The cost of the usage beyond the hold: never billed; more than 0 is an alarm. */
  readonly excessNanoUsd: number;
}

/** A hold that is still open after its time: a worker's journal settles it, or it is voided. */
export interface OpenHold {
  readonly requestId: string;
  /** null when the request was never placed. */
  readonly worker: string | null;
  /** null as well when the worker keeps no journal. */
  readonly workerUrl: string | null;
  readonly openedAtMs: number;
}
