/**
 * A streamed response: numbered events, of which the first tell that it was made, the next how its
 * items grow, and the last is the whole response. There is no `[DONE]`.
 */
import type { StreamEncoder } from '../answer-format.ts';
import { createResponse } from './answer.ts';
import type { AnswerOptions, ResponseHead } from './answer.ts';
import type { ItemEvent } from './item-events.ts';

export function createResponsesEncoder(head: ResponseHead, options: AnswerOptions): StreamEncoder {
  const response = createResponse(head, options);
  let sequence = 0;
  let started = false;

  const write = (events: readonly ItemEvent[]): string =>
    events.map((event) => frame(event, sequence++)).join('');
  const start = (createdAt?: number): string => {
    if (started) return '';
    started = true;
    if (createdAt !== undefined) response.createdAt(createdAt);
    const made = response.toWire();
    return write([
      { type: 'response.created', response: made },
      { type: 'response.in_progress', response: made },
    ]);
  };

  return {
    keepAlive: ': keep-alive\n\n',
    chunk(chunk) {
      // The first events have the time of the first chunk, and nothing of its items yet.
      const begun = start(chunk.created);
      return begun + write(response.add(chunk));
    },
    end(bill) {
      const closing = start() + write(response.close());
      const whole = response.toWire({ bill });
      return closing + write([{ type: `response.${response.status()}`, response: whole }]);
    },
    error: (error) =>
      frame({ type: 'response.failed', response: response.toWire({ error }) }, sequence),
  };
}

function frame({ type, ...fields }: ItemEvent, sequence: number): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence, ...fields })}\n\n`;
}
