/**
 * A thread that reads requests: JSON, chat template, tokens and grammar. Whatever takes long calls
 * `pause` as it goes: there a request that was stopped or has had its time ends, and one that the
 * pool has sent meanwhile, a smaller one or another tenant's, is read before the long one goes on.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { ApiError } from '../api-error.ts';
import { readRequest } from '../request/read-request.ts';
import type { FromText, TextDescription, TextOutcome, ToText } from './text-messages.ts';
import type { ReadByRoute, TextModel, TextRequest } from './text-model.ts';

/**
 * The shortest time between two looks of `pause` for messages; a look costs about a microsecond.
 */
const lookMs = 1;

/** The text of a model, opened for one thread. */
export interface OpenedText extends Omit<TextModel, 'description'> {
  readonly tokenizerId: string;
}

export interface TextThreadOptions {
  /** `parentPort` of the thread. */
  readonly port: MessagePort;
  /** A request may be read for so long. */
  readonly jobMs: number;
  /** Whatever takes long in what it opens has to call `pause`. */
  open(pause: () => void): Promise<OpenedText>;
}

/** Reads requests until the thread is terminated. */
export async function runTextThread({ port, jobMs, open }: TextThreadOptions): Promise<void> {
  const send = (message: FromText, transfer: readonly ArrayBuffer[] = []): void =>
    port.postMessage(message, transfer);
  const jobs = new Jobs({ port, jobMs, send });
  try {
    const text = await open(() => jobs.pause());
    const { tokenizerId, samplingDefaults } = text;
    const description: TextDescription = { tokenizerId, samplingDefaults };
    jobs.begin(text);
    send({ kind: 'ready', description });
  } catch (error) {
    send({ kind: 'broken', message: error instanceof Error ? error.message : String(error) });
    port.close();
  }
}

/** Thrown by `pause` through whatever is being read. */
class EndedError extends Error {
  override readonly name = 'EndedError';
  readonly outcome: 'stopped' | 'too-slow';

  constructor(outcome: 'stopped' | 'too-slow') {
    super(`the request is ${outcome}`);
    this.outcome = outcome;
  }
}

interface Job {
  readonly job: number;
  /** Moves on by as long as others were read in between. */
  startedMs: number;
  isStopped: boolean;
}

class Jobs {
  readonly #port: MessagePort;
  readonly #jobMs: number;
  readonly #send: (message: FromText, transfer?: readonly ArrayBuffer[]) => void;
  #text: OpenedText | null = null;
  /** The requests being read, the innermost last. */
  readonly #reading: Job[] = [];
  #lookedMs = 0;

  constructor(options: {
    readonly port: MessagePort;
    readonly jobMs: number;
    readonly send: (message: FromText, transfer?: readonly ArrayBuffer[]) => void;
  }) {
    this.#port = options.port;
    this.#jobMs = options.jobMs;
    this.#send = options.send;
  }

  begin(text: OpenedText): void {
    this.#text = text;
    this.#port.on('message', (message: ToText) => this.#take(message));
  }

  pause(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lookedMs < lookMs) return;
    this.#lookedMs = nowMs;
    const job = this.#reading.at(-1);
    if (job === undefined) return;
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) break;
      const otherMs = performance.now();
      // The port's other end, the pool, sends nothing else.
      this.#take(received.message as ToText);
      job.startedMs += performance.now() - otherMs;
    }
    if (job.isStopped) throw new EndedError('stopped');
    if (performance.now() - job.startedMs > this.#jobMs) throw new EndedError('too-slow');
  }

  #take(message: ToText): void {
    if (message.kind === 'read') return this.#read(message.job, message.request);
    // A thread that is not being read has just ended.
    const stopped = this.#reading.find(({ job }) => job === message.job);
    if (stopped !== undefined) stopped.isStopped = true;
  }

  #read(job: number, request: TextRequest): void {
    const reading: Job = { job, startedMs: performance.now(), isStopped: false };
    this.#reading.push(reading);
    this.#send({ kind: 'started', job });
    const outcome = this.#outcomeOf(request);
    this.#reading.pop();
    const transfer = outcome.kind === 'read' ? buffersOf(outcome.result) : [];
    this.#send({ kind: 'done', job, outcome }, transfer);
  }

  #outcomeOf(request: TextRequest): TextOutcome {
    try {
      if (this.#text === null) throw new Error('a request came before the text was open');
      const model = { ...this.#text, description: request.description };
      return { kind: 'read', result: readRequest(model, request) };
    } catch (error) {
      if (error instanceof EndedError) return { kind: error.outcome };
      if (!(error instanceof ApiError)) return { kind: 'failed', message: String(error) };
      const { code, message, param, overflow } = error;
      return { kind: 'refused', refusal: { code, message, param, overflow } };
    }
  }
}

/** Finds the buffers that need not be copied on their way to the pool. */
function buffersOf(result: ReadByRoute[keyof ReadByRoute]): ArrayBuffer[] {
  const arrays =
    result instanceof Uint8Array
      ? [result]
      : result.requests.map(({ promptTokens }) => promptTokens);
  return [...new Set(arrays.map(({ buffer }) => buffer))].filter(
    (buffer) => buffer instanceof ArrayBuffer,
  );
}
