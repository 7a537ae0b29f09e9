/**
 * The events of an answer while it is made, for any number of readers: each begins at an event of
 * its choice and goes on as events come. Events are numbered from 1. Old ones are let go of beyond
 * a bound. The reader that is ahead of all others makes the writer wait, so it never misses one;
 * another that falls so far behind it is told that it did, and holds up nobody.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../errors.ts';

export interface EventLog {
  /** Resolves once the reader that is ahead leaves room for more: at once where nobody reads. */
  append(events: readonly string[]): Promise<void>;
  /** Ends the log: no more events come. */
  end(): void;
  /** Ends the log with an error, which readers get once they have read the events before it. */
  fail(error: unknown): void;
  /**
   * Reads the events after that one, as many at a time as there are.
   * @throws ApiError when they are no longer kept, or not any more, or there is no such event; the
   * signal's reason.
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
  return new MemoryEventLog(charactersMax);
}

class MemoryEventLog implements EventLog {
  readonly #charactersMax: () => number;
  readonly #events: string[] = [];
  readonly #readers = new Set<{ next: number }>();
  readonly #wake = (): void => this.#tellAll();
  /** The number of the oldest event that is kept. */
  #oldest = 1;
  #characters = 0;
  #end: End = { kind: 'open' };
  #changed = Promise.withResolvers<void>();

  constructor(charactersMax: () => number) {
    this.#charactersMax = charactersMax;
  }

  async append(events: readonly string[]): Promise<void> {
    for (const event of events) {
      this.#events.push(event);
      this.#characters += event.length;
    }
    this.#tellAll();
    while (!this.#makeRoom() && this.#readers.size > 0) await this.#changed.promise;
  }

  end(): void {
    this.#close({ kind: 'done' });
  }

  fail(error: unknown): void {
    this.#close({ kind: 'failed', error });
  }

  async *read(afterEvent: number, signal: AbortSignal): AsyncGenerator<string, void> {
    const reader = { next: afterEvent + 1 };
    if (reader.next < this.#oldest) throw new ApiError('idempotency_no_answer', beginningIsGone);
    this.#readers.add(reader);
    signal.addEventListener('abort', this.#wake);
    try {
      for (;;) {
        signal.throwIfAborted();
        if (reader.next < this.#oldest) {
          throw new ApiError('idempotency_no_answer', fellBehind);
        }
        const here = reader.next - this.#oldest;
        if (here < this.#events.length) {
          const after = this.#oldest + this.#events.length;
          yield this.#events.slice(here).join('');
          reader.next = after;
          this.#tellAll();
        } else if (this.#end.kind === 'open') {
          await this.#changed.promise;
        } else {
          if (this.#end.kind === 'failed') throw this.#end.error;
          if (here > this.#events.length) throw noSuchEvent(afterEvent);
          return;
        }
      }
    } finally {
      signal.removeEventListener('abort', this.#wake);
      this.#readers.delete(reader);
      this.#tellAll();
    }
  }

  /** Lets go of events that a reader has had, and tells if the rest is within the bound. */
  #makeRoom(): boolean {
    const after = this.#oldest + this.#events.length;
    // One that asked for an event that is still to come, or never comes, has read none.
    const reached = [...this.#readers].map(({ next }) => next).filter((next) => next <= after);
    const furthest = reached.length === 0 ? after : Math.max(...reached);
    const charactersMax = this.#charactersMax();
    while (this.#characters > charactersMax && this.#oldest < furthest) {
      const event = this.#events.shift();
      if (event === undefined) break;
      this.#characters -= event.length;
      this.#oldest++;
    }
    return this.#characters <= charactersMax;
  }

  #close(end: End): void {
    assert(this.#end.kind === 'open', 'a log ends once');
    this.#end = end;
    this.#tellAll();
  }

  #tellAll(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

const fellBehind =
  'This client has read the answer so much more slowly than another one under the same ' +
  'Idempotency-Key that what it has not read is no longer kept.';

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
