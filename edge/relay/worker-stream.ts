/**
 * A worker's server-sent events, read as they arrive, each with the usage so far. Events of one
 * network read come as one batch, so that a fast worker costs few writes to the client.
 * Nothing is read ahead of the consumer beyond the one read.
 */
import { createParser } from 'eventsource-parser';
import type { Chunk } from '../engines/chunk.ts';
import { createEventReader } from '../engines/events.ts';
import type { DialectOptions, EventReader } from '../engines/events.ts';
import type { ApiError } from '../errors.ts';
import type { Usage } from '../money.ts';
import type { AnswerBytes } from './post.ts';

/** Characters of one event; logprobs of 20 alternatives over many tokens stay far below it. */
const eventCharactersMax = 4 * 1024 * 1024;

/**
 * One read holds more only if the edge has fallen behind; then all else has its turn in between.
 */
const sliceBytes = 16 * 1024;

/** A worker that goes on after `[DONE]` loses its connection. */
const endMsMax = 1_000;
const readsToEndMax = 16;

export interface WorkerEvent {
  readonly chunk: Chunk;
  /** The count so far; null if this event carries none. */
  readonly usage: Usage | null;
  /**
   * null for the chunk itself. Else it stands for several like it, each with one of these texts in
   * place of its own, as JSON writes them between quotes.
   */
  readonly texts: readonly string[] | null;
}

/** The worker's fault: it died, fell silent or sent what is no answer. */
export class WorkerFailure extends Error {
  override readonly name = 'WorkerFailure';
}

/**
 * Yields until the worker's `[DONE]`, or until its stream ends after a whole answer and its count.
 * @throws WorkerFailure if the stream ends before, or is not an answer; ApiError if the worker
 * finds the request at fault; the signal's reason.
 */
export async function* readWorkerStream(
  body: AnswerBytes,
  options: DialectOptions & {
    readonly silenceMsMax: number;
    /** Bytes of the whole answer: more shows that the worker does not end it. */
    readonly bytesMax: number;
    /** Lets go of the worker at once, even while nobody takes the events. */
    readonly signal: AbortSignal;
    /** Called when the worker says `[DONE]`, which its journal has on its disk before. */
    readonly onDone?: () => void;
  },
): AsyncGenerator<readonly WorkerEvent[], void> {
  const { signal } = options;
  const silence = watchSilence(options.silenceMsMax, () => body.cancel());
  const stop = () => {
    silence.stop();
    body.cancel();
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  const stream = new EventStream(options);
  let bytes = 0;
  try {
    while (!stream.isOver) {
      const read = await readNext(body, signal);
      signal.throwIfAborted();
      const isSilent = silence.broken();
      silence.heard();
      bytes += read?.length ?? 0;
      if (bytes > options.bytesMax) throw new WorkerFailure('its answer does not end');
      const length = read?.length ?? 0;
      for (let start = 0; start === 0 || start < length; start += sliceBytes) {
        if (start > 0) await nextTurn();
        signal.throwIfAborted();
        const batch = stream.feed(read?.subarray(start, start + sliceBytes) ?? null);
        if (batch.length > 0) yield batch;
        if (stream.isOver) break;
      }
      if (read === null) stream.close(isSilent);
    }
    if (stream.failure) throw stream.failure;
  } finally {
    signal.removeEventListener('abort', stop);
    silence.stop();
    if (stream.isDone && !signal.aborted) void readToEnd(body);
    else body.cancel();
  }
}

/** Parses the bytes of a worker's stream, up to its end or its first fault. */
class EventStream {
  readonly #dialect: EventReader;
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    maxBufferSize: eventCharactersMax,
    onEvent: ({ event: name, data }) => this.#take({ name, data }),
    onError: (error) => {
      if (error.type === 'max-buffer-size-exceeded') {
        this.#failure = new WorkerFailure(error.message);
      } else if (error.type === 'unknown-field' && error.field === 'error') {
        // Older llama.cpp servers write an error as a field of its own in place of an event's data.
        this.#take({ name: 'error', data: error.value ?? '' });
      }
    },
  });
  #batch: WorkerEvent[] = [];
  #done = false;
  #failure: WorkerFailure | ApiError | null = null;

  readonly #onDone: () => void;

  constructor(options: DialectOptions & { readonly onDone?: () => void }) {
    this.#onDone = options.onDone ?? (() => {});
    this.#dialect = createEventReader(options);
  }

  get isDone(): boolean {
    return this.#done;
  }

  get failure(): WorkerFailure | ApiError | null {
    return this.#failure;
  }

  get isOver(): boolean {
    return this.#done || this.#failure !== null;
  }

  /** Returns the events that the bytes complete; null stands for the end of the stream. */
  feed(slice: Uint8Array | null): readonly WorkerEvent[] {
    // The last event of a stream that just ends may lack the empty line after it.
    this.#parser.feed(slice === null ? '\n\n' : this.#decoder.decode(slice, { stream: true }));
    this.#endRun();
    const batch = this.#batch;
    this.#batch = [];
    return batch;
  }

  /** The stream ended. @throws WorkerFailure unless the answer is whole. */
  close(isSilent: boolean): void {
    if (this.isOver) return;
    if (!this.#dialect.isWhole()) {
      throw new WorkerFailure(isSilent ? 'it fell silent' : 'its stream ended before [DONE]');
    }
    this.#done = true;
  }

  #take(event: { readonly name?: string | undefined; readonly data: string }): void {
    if (this.isOver || this.#dialect.takeText(event)) return;
    this.#endRun();
    const read = this.#dialect.read(event);
    if (read.kind === 'done') {
      this.#done = true;
      this.#onDone();
    } else if (read.kind === 'rejected') this.#failure = read.error;
    else if (read.kind === 'failed') this.#failure = new WorkerFailure(read.reason);
    else this.#batch.push({ chunk: read.chunk, usage: read.usage, texts: null });
  }

  /** Ends a run of events that only add text, which is one event of the batch. */
  #endRun(): void {
    const run = this.#dialect.endRun();
    if (run !== null) this.#batch.push({ chunk: run.like, usage: run.usage, texts: run.texts });
  }
}

/** Gives all else its turn of the event loop. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, 0));
}

/**
 * The end follows `[DONE]` at once. A body that is read to it leaves its connection to the next
 * request; one that is cancelled before it takes the connection along.
 */
async function readToEnd(body: AnswerBytes): Promise<void> {
  const late = setTimeout(() => body.cancel(), endMsMax);
  try {
    for (let reads = 0; reads < readsToEndMax; reads++) {
      if ((await body.read()) === null) return;
    }
    body.cancel();
  } catch {
    // The answer was complete before its connection broke.
  } finally {
    clearTimeout(late);
  }
}

/** null at the end. */
async function readNext(body: AnswerBytes, signal: AbortSignal): Promise<Uint8Array | null> {
  try {
    return await body.read();
  } catch (cause) {
    signal.throwIfAborted();
    throw new WorkerFailure('its connection broke', { cause });
  }
}

/** Calls `onSilence` once nothing was heard for one to two times `silenceMsMax`. */
function watchSilence(silenceMsMax: number, onSilence: () => unknown) {
  let heard = true;
  let broken = false;
  const timer = setInterval(() => {
    if (heard) heard = false;
    else {
      broken = true;
      onSilence();
    }
  }, silenceMsMax);
  return {
    heard: () => void (heard = true),
    broken: () => broken,
    stop: () => clearInterval(timer),
  };
}
