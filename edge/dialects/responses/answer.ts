/** A response as one object, and what the tenant stores of it. */
import { shortJson } from '../../../gpu-worker/protocol/json-pieces.ts';
import type { Chunk, FinishReason } from '../../engines/chunk.ts';
import type { ApiError } from '../../errors.ts';
import { billFields } from '../answer-format.ts';
import type { AnswerBuilder, Bill, NewStoredResponse } from '../answer-format.ts';
import { createAnswerItems } from './answer-items.ts';
import type { ItemEvent, ItemOptions } from './item-events.ts';
import { toResponsesUsage } from './usage.ts';

/** A response is stored with its own items, all of which fit one row of a Durable Object. */
export const storedInputBytesMax = 512 * 1024;
const storedResponseCharactersMax = 512 * 1024;

/** A request's wishes for the form of its answer: plain data, it may come from another thread. */
export interface AnswerOptions extends ItemOptions {
  /** The fields of the request that its answer repeats. */
  readonly echo: Readonly<Record<string, unknown>>;
  readonly previousId: string | null;
  /** The items to store with the answer, as JSON; null where nothing is stored. */
  readonly storedInput: string | null;
}

export interface ResponseHead {
  readonly requestId: string;
  readonly model: string;
}

type Status = 'in_progress' | 'completed' | 'incomplete' | 'failed';

/** A response while it is made; encoder and builder both write it from here. */
export interface GrowingResponse {
  /** States when the response was made, before its first chunk is added. */
  createdAt(seconds: number): void;
  add(chunk: Chunk): ItemEvent[];
  /** Closes the items, by the reason for which the answer ended. */
  close(): ItemEvent[];
  toWire(end?: { readonly bill: Bill } | { readonly error: ApiError }): Record<string, unknown>;
  readonly status: () => 'completed' | 'incomplete';
  /** null when nothing is to be stored, or what is to be stored is too long. */
  stored(bill: Bill): NewStoredResponse | null;
  onlyText(): string | null;
}

export function createResponse(head: ResponseHead, options: AnswerOptions): GrowingResponse {
  const id = `resp_${head.requestId}`;
  const items = createAnswerItems(head.requestId, options);
  let createdAt = 0;
  let finish: FinishReason | null = null;

  const status = () =>
    finish === 'length' || finish === 'content_filter' ? 'incomplete' : 'completed';

  const write = (
    state: Status,
    end: { readonly bill?: Bill; readonly error?: ApiError; readonly isStored: boolean },
  ): Record<string, unknown> => {
    const { bill, error } = end;
    return {
      id,
      object: 'response',
      created_at: createdAt,
      status: state,
      background: false,
      error: error ? { code: error.code, message: error.message } : null,
      incomplete_details: state === 'incomplete' ? { reason: incompleteReason(finish) } : null,
      model: head.model,
      output: items.toWire(),
      previous_response_id: options.previousId,
      store: end.isStored,
      ...options.echo,
      usage: bill ? { ...toResponsesUsage(bill.usage), ...billFields(bill) } : null,
    };
  };

  const stored = (bill: Bill): NewStoredResponse | null => {
    if (options.storedInput === null) return null;
    const wire = write(status(), { bill, isStored: true });
    const response = shortJson(wire, storedResponseCharactersMax);
    if (response === null || Buffer.byteLength(response) > storedResponseCharactersMax) return null;
    return { id, previousId: options.previousId, input: options.storedInput, response };
  };

  return {
    createdAt: (seconds) => void (createdAt = seconds),
    add(chunk) {
      createdAt = chunk.created ?? createdAt;
      return chunk.choices.flatMap((choice) => {
        finish = choice.finish_reason ?? finish;
        return items.add(choice);
      });
    },
    close: () => items.close(status()),
    status,
    stored,
    onlyText: () => items.onlyText(),
    toWire(end) {
      const isWanted = options.storedInput !== null;
      if (end === undefined) return write('in_progress', { isStored: isWanted });
      if ('error' in end) return write('failed', { ...end, isStored: false });
      return write(status(), { ...end, isStored: isWanted && stored(end.bill) !== null });
    },
  };
}

function incompleteReason(finish: FinishReason | null): string {
  return finish === 'content_filter' ? 'content_filter' : 'max_output_tokens';
}

export function createResponsesAnswer(head: ResponseHead, options: AnswerOptions): AnswerBuilder {
  const response = createResponse(head, options);
  return {
    add: (chunk) => void response.add(chunk),
    finish(bill) {
      response.close();
      return response.toWire({ bill });
    },
    reply() {
      const text = response.onlyText();
      return text === null ? null : { role: 'assistant', content: text };
    },
    stored(bill) {
      response.close();
      return response.stored(bill);
    },
  };
}
