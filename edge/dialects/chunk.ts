/** What becomes of an answer's events: the answer's head, its bill, and what writes it. */
import type { Chunk } from '../engines/chunk.ts';
import type { ApiError } from '../errors.ts';
import type { Usage } from '../money.ts';

/** What the edge says in its own name on every answer. */
export interface AnswerHead {
  readonly id: string;
  readonly model: string;
  /** To a client that asked for one. */
  readonly service_tier?: 'default';
}

/** The end of an answer: what it used and what that costs. */
export interface Bill {
  readonly usage: Usage;
  readonly costNanoUsd: number;
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
}
