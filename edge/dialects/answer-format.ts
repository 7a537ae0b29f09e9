/** Writes an answer out of a worker's chunks, streamed or whole. */
import type { Chunk, StopCode } from '../engines/chunk.ts';
import type { ApiError } from '../errors.ts';
import type { Usage } from '../money.ts';
import type { CacheMissReason } from './cache-miss-reason.ts';

/** Writes one answer; a stream and a whole answer begin alike. */
export interface AnswerFormat {
  encoder(): StreamEncoder;
  builder(): AnswerBuilder;
  /** Each event of a stream states a count: the usage so far, or its own number. */
  readonly statesEachCount: boolean;
}

/** The fields of an answer that the edge fills in itself. */
export interface AnswerHead {
  readonly id: string;
  readonly model: string;
  /** Stated to a client that asked for a tier. */
  readonly service_tier?: 'default';
}

/** The end of an answer: what it used, what that costs and why not more of it was cached. */
export interface Bill {
  readonly usage: Usage;
  readonly costNanoUsd: number;
  readonly cacheMissReason: CacheMissReason | null;
  /** The code with which money ran out and ended the answer; null: it did not. */
  readonly stoppedBy?: StopCode | null;
}

/** The fields of ours that stand beside the counts, in the usage of every dialect. */
export function billFields({ costNanoUsd, cacheMissReason, stoppedBy }: Omit<Bill, 'usage'>) {
  return {
    cost_nano_usd: costNanoUsd,
    cache_miss_reason: cacheMissReason,
    ...(stoppedBy && { stopped_by: stoppedBy }),
  };
}

/** A response that the tenant stores, with its own input: JSON of both. */
export interface NewStoredResponse {
  readonly id: string;
  readonly previousId: string | null;
  readonly input: string;
  readonly response: string;
}

/** Turns a worker's chunks into the text of a streamed answer. */
export interface StreamEncoder {
  /** `usage` is the count so far. '' if the chunk has nothing for the client. */
  chunk(chunk: Chunk, usage: Usage | null): string;
  end(bill: Bill): string;
  /** Ends a stream that cannot be completed. */
  error(error: ApiError): string;
  readonly keepAlive: string;
}

/** Puts a worker's chunks together to the answer of a request that did not ask for a stream. */
export interface AnswerBuilder {
  add(chunk: Chunk): void;
  finish(bill: Bill): object;
  /** The assistant's message as the next turn would send it back; null if that is not known. */
  reply(): object | null;
  /** The response that the tenant is to store; null if nothing is to be stored. */
  stored?(bill: Bill): NewStoredResponse | null;
}
