/**
 * The events of an answer while it is made, for any number of readers: each begins at an event of
 * its choice and goes on as events come. Events are numbered from 1. Old ones are let go of beyond
 * a bound; a reader that is that far behind makes the writer wait, so no reader ever misses one.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../errors.ts';

export interface EventLog {
  /** Resolves once the slowest reader leaves room for more: at once where nobody reads. */
  append(events: readonly string[]): Promise<void>;
  /** No more events come. */
  end(): void;
  /** Ends the log with an error, which readers get once they have read the events before it. */
  fail(error: unknown): void;
  /**
   * Reads the events after that one, as many at a time as there are.
   * @throws ApiError when they are no longer kept, or there is no such event; the signal's reason.
   */
  read(afterEvent: number, signal: AbortSignal): AsyncGenerator<string, void>;
}

type End =
  | { readonly kind: 'open' | 'done' }
  | { readonly kind: 'failed'; readonly error: unknown };

/**
 * Makes a log.
 * @param charactersMax asked anew each time, because logs may share a bound.
 */
export function createEventLog(charactersMax: () => number): EventLog {
  const events: string[] = [];
  const readers = new Set<{ next: number }>();
  /** The number of the oldest event that is kept. */
  let oldest = 1;
  let characters = 0;
  let end: End = { kind: 'open' };
  let changed = Promise.withResolvers<void>();

  const wake = (): void => {
    changed.resolve();
    changed = Promise.withResolvers();
  };

  const hasRoom = (): boolean => {
    const slowest = Math.min(...[...readers].map(({ next }) => next));
    while (characters > charactersMax() && events.length > 0 && oldest < slowest) {
      characters -= events.shift()?.length ?? 0;
      oldest++;
    }
    return characters <= charactersMax();
  };

  const close = (how: End): void => {
    assert(end.kind === 'open', 'a log ends once');
    end = how;
    wake();
  };

  return {
    async append(more) {
      for (const event of more) {
        events.push(event);
        characters += event.length;
      }
      wake();
      while (!hasRoom() && readers.size > 0) await changed.promise;
    },

    end: () => close({ kind: 'done' }),
    fail: (error) => close({ kind: 'failed', error }),

    async *read(afterEvent, signal) {
      const reader = { next: afterEvent + 1 };
      if (reader.next < oldest) throw new ApiError('idempotency_no_answer', beginningIsGone);
      readers.add(reader);
      signal.addEventListener('abort', wake);
      try {
        for (;;) {
          signal.throwIfAborted();
          const here = reader.next - oldest;
          if (here < events.length) {
            const after = oldest + events.length;
            yield events.slice(here).join('');
            reader.next = after;
            wake();
          } else if (end.kind === 'open') {
            await changed.promise;
          } else {
            if (end.kind === 'failed') throw end.error;
            if (here > events.length) throw noSuchEvent(afterEvent);
            return;
          }
        }
      } finally {
        signal.removeEventListener('abort', wake);
        readers.delete(reader);
        wake();
      }
    },
  };
}

const beginningIsGone =
  'The answer under this Idempotency-Key is still running, but it is too long to be given from ' +
  'there: its beginning is no longer kept.';

export function noSuchEvent(afterEvent: number): ApiError {
  return new ApiError(
    'invalid_value',
    `The answer under this Idempotency-Key has no event ${afterEvent}; without Last-Event-ID it ` +
      'is given from its beginning.',
    { param: 'Last-Event-ID' },
  );
}

/** The single events of a text that holds some, each with the blank line that ends it. */
export function splitEvents(text: string): string[] {
  return text.split(/(?<=\n\n)(?!$)/);
}

/** Gives the text's events numbers, by which a client may ask for what follows one of them. */
export function numberEvents(text: string, first: number): string {
  return splitEvents(text)
    .map((event, index) => `id: ${first + index}\n${event}`)
    .join('');
}

/**
 * The text without its first events.
 * @throws ApiError when it has not that many.
 */
export function eventsAfter(text: string, afterEvent: number): string {
  if (afterEvent === 0) return text;
  const events = splitEvents(text);
  if (events.length < afterEvent) throw noSuchEvent(afterEvent);
  return events.slice(afterEvent).join('');
}
