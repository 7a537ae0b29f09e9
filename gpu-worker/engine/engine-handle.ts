/**
 * The engine as the HTTP side sees it: starts its thread, hands requests over and events back.
 * Only `main.ts` may pick a backend, so the thread's entry module comes in as a URL; it calls
 * `runEngineThread` with what it opened.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { FromEngine, LoadingProgress, ToEngine } from './engine-messages.ts';
import type {
  Engine,
  EngineDescription,
  EngineEvent,
  EngineLoad,
  EngineRequest,
  EngineUsage,
} from './request.ts';

const nothingDone: EngineUsage = {
  promptTokens: 0,
  cachedTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};
/** What a thread gets beyond the grace to finish its last step and close its backend. */
const closeMarginMs = 10_000;

export interface StartOptions {
  readonly entry: URL;
  /** Handed to the entry module as is; has to survive structured clone. */
  readonly workerData: unknown;
  onProgress(progress: LoadingProgress): void;
  /** Called once if the engine fails after it was ready; not when it is closed. */
  onFailure?(reason: string): void;
}

/** Resolves once the engine is ready; rejects with the reason where it can't start. */
export async function startEngine(options: StartOptions): Promise<Engine> {
  const thread = new Worker(options.entry, { workerData: options.workerData });
  return new Promise<Engine>((resolve, reject) => {
    let engine: EngineHandle | null = null;
    const fail = (message: string): void => {
      if (engine !== null) {
        if (engine.failure() === null && !engine.isClosing) options.onFailure?.(message);
        return engine.fail(message);
      }
      reject(new Error(message));
      void thread.terminate();
    };
    thread.on('message', (message: FromEngine) => {
      if (message.kind === 'loading') options.onProgress(message.progress);
      else if (message.kind === 'failed') fail(message.message);
      else if (message.kind === 'events') engine?.deliver(message.events, message.load);
      else resolve((engine = new EngineHandle(thread, message.description, message.load)));
    });
    thread.on('error', (error) => fail(`the engine thread failed: ${String(error)}`));
    thread.on('exit', (code) => {
      fail(
        engine?.isClosing ? 'the engine is closed' : `the engine thread ended with code ${code}`,
      );
    });
  });
}

/** Events of one request that its reader has not taken yet: at most its own output. */
interface Stream {
  readonly events: EngineEvent[];
  /** As of the last event that came: what was delivered of a request whose engine fails. */
  usage: EngineUsage;
  wake: () => void;
}

class EngineHandle implements Engine {
  readonly description: EngineDescription;
  readonly #thread: Worker;
  readonly #streams = new Map<string, Stream>();
  #load: EngineLoad;
  #failure: string | null = null;
  #nextStream = 0;
  #closing: Promise<void> | null = null;

  constructor(thread: Worker, description: EngineDescription, load: EngineLoad) {
    this.#thread = thread;
    this.description = description;
    this.#load = load;
  }

  async *submit(request: EngineRequest, signal: AbortSignal): AsyncGenerator<EngineEvent> {
    const refusal = this.#refusal();
    if (refusal !== null) {
      yield endWith(request, refusal, nothingDone);
      return;
    }
    // The thread knows the request by a name of our own: the last events of a stream that was left
    // can't be taken for those of a new one with the same id.
    const id = String(this.#nextStream++);
    const stream: Stream = { events: [], usage: nothingDone, wake: () => {} };
    this.#streams.set(id, stream);
    const abort = (): void => this.#send({ kind: 'abort', id });
    this.#send({ kind: 'submit', request: { ...request, id } });
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    let isEnded = false;
    try {
      while (!isEnded) {
        for (const event of stream.events.splice(0)) {
          isEnded = event.kind === 'end';
          yield { ...event, id: request.id };
        }
        if (isEnded) return;
        if (this.#failure !== null) {
          isEnded = true;
          yield endWith(request, { kind: 'internal', message: this.#failure }, stream.usage);
          return;
        }
        await new Promise<void>((resolve) => {
          stream.wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener('abort', abort);
      this.#streams.delete(id);
      // The reader left the loop: nobody wants the rest.
      if (!isEnded) abort();
    }
  }

  load(): EngineLoad {
    return this.#load;
  }

  failure(): string | null {
    return this.#failure;
  }

  get isClosing(): boolean {
    return this.#closing !== null;
  }

  async close({ graceMs }: { graceMs: number }): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  /** From the thread: events, each for the stream of its request. */
  deliver(events: readonly EngineEvent[], load: EngineLoad): void {
    this.#load = load;
    for (const event of events) {
      const stream = this.#streams.get(event.id);
      // A stream whose reader left is gone before its last events arrive.
      if (stream === undefined) continue;
      stream.events.push(event);
      stream.usage = event.usage;
      stream.wake();
    }
  }

  fail(message: string): void {
    this.#failure ??= message;
    for (const stream of this.#streams.values()) stream.wake();
  }

  async #close(graceMs: number): Promise<void> {
    if (this.#failure !== null) return;
    const exited = once(this.#thread, 'exit');
    this.#send({ kind: 'close', graceMs });
    const stuck = setTimeout(() => void this.#thread.terminate(), graceMs + closeMarginMs);
    await exited;
    clearTimeout(stuck);
  }

  #refusal(): { kind: 'busy' | 'internal'; message: string } | null {
    if (this.#failure !== null) return { kind: 'internal', message: this.#failure };
    if (this.#closing !== null) return { kind: 'busy', message: 'the engine is shutting down' };
    return null;
  }

  #send(message: ToEngine): void {
    this.#thread.postMessage(message, []);
  }
}

function endWith(
  request: EngineRequest,
  error: { kind: 'busy' | 'internal'; message: string },
  usage: EngineUsage,
): EngineEvent {
  const retryAfterSeconds = error.kind === 'busy' ? 1 : null;
  return { kind: 'end', id: request.id, usage, error: { ...error, retryAfterSeconds } };
}
