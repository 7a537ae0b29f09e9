/**
 * A worker's server-sent events, read as they arrive, each with the usage so far. Events of one
 * network read come as one batch, so that a fast worker costs few writes to the client.
 * Nothing is read ahead of the consumer beyond the one read.
 */
import { createParser } from 'eventsource-parser';
import type { Chunk } from '../engines/chunk.ts';
import { createEventReader } from '../engines/events.ts';
import type { DialectOptions } from '../engines/events.ts';
import type { ApiError } from '../errors.ts';
import type { Usage } from '../money.ts';

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
  body: ReadableStream<Uint8Array>,
  options: DialectOptions & {
    readonly silenceMsMax: number;
    /** Bytes of the whole answer: more shows that the worker does not end it. */
    readonly bytesMax: number;
    /** Lets go of the worker at once, even while nobody takes the events. */
    readonly signal: AbortSignal;
  },
): AsyncGenerator<readonly WorkerEvent[], void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const cancel = () => reader.cancel().catch(() => {});
  const silence = watchSilence(options.silenceMsMax, cancel);
  const stop = () => {
    silence.stop();
    void cancel();
  };
  if (options.signal.aborted) stop();
  else options.signal.addEventListener('abort', stop, { once: true });
  let batch: WorkerEvent[] = [];
  let bytes = 0;
  const end: { done: boolean; failure: WorkerFailure | ApiError | null } = {
    done: false,
    failure: null,
  };
  const dialect = createEventReader(options);
  const endRun = (): void => {
    const run = dialect.endRun();
    if (run !== null) batch.push({ chunk: run.like, usage: run.usage, texts: run.texts });
  };
  const take = (event: { readonly name?: string | undefined; readonly data: string }): void => {
    if (end.done || end.failure || dialect.takeText(event)) return;
    endRun();
    const read = dialect.read(event);
    if (read.kind === 'done') end.done = true;
    else if (read.kind === 'rejected') end.failure = read.error;
    else if (read.kind === 'failed') end.failure = new WorkerFailure(read.reason);
    else batch.push({ chunk: read.chunk, usage: read.usage, texts: null });
  };
  const parser = createParser({
    maxBufferSize: eventCharactersMax,
    onEvent: ({ event: name, data }) => take({ name, data }),
    onError(error) {
      if (error.type === 'max-buffer-size-exceeded') end.failure = new WorkerFailure(error.message);
      // Older llama.cpp servers write an error as a field of its own in place of an event's data.
      else if (error.type === 'unknown-field' && error.field === 'error') {
        take({ name: 'error', data: error.value ?? '' });
      }
    },
  });

  try {
    while (!end.done && !end.failure) {
      const read = await readNext(reader, options.signal);
      options.signal.throwIfAborted();
      const isSilent = silence.broken();
      silence.heard();
      bytes += read?.length ?? 0;
      if (bytes > options.bytesMax) throw new WorkerFailure('its answer does not end');
      const length = read?.length ?? 0;
      for (let start = 0; start === 0 || start < length; start += sliceBytes) {
        if (start > 0) await nextTurn();
        options.signal.throwIfAborted();
        const slice = read?.subarray(start, start + sliceBytes);
        // The last event of a stream that just ends may lack the empty line after it.
        parser.feed(slice === undefined ? '\n\n' : decoder.decode(slice, { stream: true }));
        endRun();
        if (batch.length > 0) yield batch;
        batch = [];
        if (end.done || end.failure) break;
      }
      if (read !== null || end.done || end.failure) continue;
      if (dialect.isWhole()) end.done = true;
      else throw new WorkerFailure(isSilent ? 'it fell silent' : 'its stream ended before [DONE]');
    }
    if (end.failure) throw end.failure;
  } finally {
    options.signal.removeEventListener('abort', stop);
    silence.stop();
    if (end.done && !options.signal.aborted) void readToEnd(reader, cancel);
    else await cancel();
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
async function readToEnd(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  cancel: () => Promise<void>,
): Promise<void> {
  const late = setTimeout(() => void cancel(), endMsMax);
  try {
    for (let reads = 0; reads < readsToEndMax; reads++) {
      if ((await reader.read()).done) return;
    }
    await cancel();
  } catch {
    // The answer was complete before its connection broke.
  } finally {
    clearTimeout(late);
  }
}

/** null at the end. */
async function readNext(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  signal: AbortSignal,
): Promise<Uint8Array | null> {
  try {
    const read = await reader.read();
    return read.done ? null : read.value;
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
