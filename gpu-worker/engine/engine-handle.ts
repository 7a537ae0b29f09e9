/**
 * The engine as the HTTP side sees it: starts its thread, hands requests over and events back.
 * Only `main.ts` may pick a backend, so the thread's entry module comes in as a URL; it calls
 * `runEngineThread` with what it opened.
 */
import { once } from 'node:events';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import type { FromEngine, LoadingProgress, StepEvents, ToEngine } from './engine-messages.ts';
import { nothingComputed } from './request.ts';
import type {
  Engine,
  EngineCall,
  EngineDescription,
  EngineEvent,
  EngineLoad,
  EngineRequest,
  EngineUsage,
} from './request.ts';

/** Loading alone would fill young generations of 48 MiB, which V8 does not give back. */
const resourceLimits = { maxYoungGenerationSizeMb: 12 };
/** A thread gets so much beyond the grace to finish its last step and close its backend. */
const closeMarginMs = 10_000;

/**
 * For so long events are taken before all else has its turn. Node gives a listener whatever has
 * come, which after a pause may be the events of many steps; so they wait at a port without one.
 */
const turnMs = 10;

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
  const { entry, workerData } = options;
  const thread = new Worker(entry, { workerData, resourceLimits });
  const { port1: events, port2 } = new MessageChannel();
  const opening: ToEngine = { kind: 'open', events: port2 };
  thread.postMessage(opening, [port2]);
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
      else if (message.kind === 'events') engine?.takeEvents();
      else resolve((engine = new EngineHandle({ ...message, thread, events })));
    });
    thread.on('error', (error) => fail(`the engine thread failed: ${String(error)}`));
    thread.on('exit', (code) => {
      fail(
        engine?.isClosing ? 'the engine is closed' : `the engine thread ended with code ${code}`,
      );
    });
  });
}

/** Events of one call that its reader has not taken yet: at most the output of its requests. */
interface Stream {
  readonly events: EngineEvent[];
  /** Requests that have not ended, by the names that the thread knows them by. */
  readonly open: Map<string, OpenRequest>;
  readonly onUsage: (id: string, usage: EngineUsage) => void;
  wake: () => void;
}

interface OpenRequest {
  readonly request: EngineRequest;
  /** The usage of the last event that came: it is what counts of a request whose engine fails. */
  usage: EngineUsage;
}

class EngineHandle implements Engine {
  readonly description: EngineDescription;
  readonly #thread: Worker;
  readonly #events: MessagePort;
  #isTaking = false;
  /** Streams by the names of their requests that have not ended. */
  readonly #streams = new Map<string, Stream>();
  #load: EngineLoad;
  #failure: string | null = null;
  #nextStream = 0;
  #closing: Promise<void> | null = null;

  constructor(opened: {
    readonly thread: Worker;
    readonly events: MessagePort;
    readonly description: EngineDescription;
    readonly load: EngineLoad;
  }) {
    this.#thread = opened.thread;
    this.#events = opened.events;
    this.description = opened.description;
    this.#load = opened.load;
  }

  async *submit(requests: readonly EngineRequest[], call: EngineCall): AsyncGenerator<EngineEvent> {
    const refusal = this.#refusal();
    if (refusal !== null) {
      for (const each of requests) yield endWith(each, refusal, nothingComputed);
      return;
    }
    const { signal } = call;
    const stream = this.#open(requests, call);
    const abort = (): void => this.#send({ kind: 'abort', ids: [...stream.open.keys()] });
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    try {
      for (;;) {
        for (const event of stream.events.splice(0)) yield event;
        // More may have come while the reader was at the last ones.
        if (stream.events.length > 0) continue;
        if (stream.open.size === 0) return;
        if (this.#failure !== null) {
          this.#endAll(stream, this.#failure);
          continue;
        }
        await new Promise<void>((resolve) => {
          stream.wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener('abort', abort);
      // The reader left the loop: nobody wants the rest.
      if (stream.open.size > 0) abort();
      for (const name of stream.open.keys()) this.#streams.delete(name);
    }
  }

  /**
   * Hands the requests to the thread under names of our own: the last events of a stream that was
   * left can't be taken for those of a new one with the same ids.
   */
  #open(requests: readonly EngineRequest[], { onUsage = () => {} }: EngineCall): Stream {
    const stream: Stream = { events: [], open: new Map(), onUsage, wake: () => {} };
    const named = requests.map((request) => {
      const name = String(this.#nextStream++);
      stream.open.set(name, { request, usage: nothingComputed });
      this.#streams.set(name, stream);
      return { ...request, id: name };
    });
    this.#send({ kind: 'submit', requests: named });
    return stream;
  }

  #endAll(stream: Stream, message: string): void {
    for (const [name, { request, usage }] of stream.open) {
      stream.events.push(endWith(request, { kind: 'internal', message }, usage));
      this.#streams.delete(name);
    }
    stream.open.clear();
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

  /** Takes what is at the port, step by step, in as many turns of the event loop as it needs. */
  takeEvents(): void {
    if (this.#isTaking) return;
    this.#isTaking = true;
    const untilMs = performance.now() + turnMs;
    const goOn = (): void => {
      this.#isTaking = false;
      this.takeEvents();
    };
    const takeNext = (): void => {
      if (performance.now() >= untilMs) setImmediate(goOn);
      // The tick comes once whatever reads the events has done so: its microtasks go first.
      else if (this.#takeStep()) queueMicrotask(() => process.nextTick(takeNext));
      else this.#isTaking = false;
    };
    takeNext();
  }

  /** The events of one step, each for the stream of its request; false if there are none. */
  #takeStep(): boolean {
    const received = receiveMessageOnPort(this.#events);
    if (received === undefined) return false;
    // The thread sends nothing else there.
    const { events, load } = received.message as StepEvents;
    this.#load = load;
    for (const event of events) {
      const stream = this.#streams.get(event.id);
      const found = stream?.open.get(event.id);
      // A stream whose reader left is gone before its last events arrive.
      if (stream === undefined || found === undefined) continue;
      stream.events.push({ ...event, id: found.request.id });
      found.usage = event.usage;
      stream.onUsage(found.request.id, event.usage);
      if (event.kind === 'end') {
        stream.open.delete(event.id);
        this.#streams.delete(event.id);
      }
      stream.wake();
    }
    return true;
  }

  fail(message: string): void {
    // Events that the thread sent before it failed, or ended, still count.
    while (this.#takeStep());
    this.#failure ??= message;
    for (const stream of new Set(this.#streams.values())) stream.wake();
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
