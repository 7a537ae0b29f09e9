/**
 * The threads that read requests, so that the thread that serves everybody never does. A thread
 * that is free takes what waits; one that is busy with something long takes what is much smaller,
 * or another scope's, in between (text-thread.ts). What takes too long is ended, at worst with its
 * thread.
 */
import { strict as assert } from 'node:assert';
import { ApiError } from '../api-error.ts';
import type { ReadByRoute, TextReader, TextRequest, TextRoute } from './text-model.ts';
import { TextQueue } from './text-queue.ts';
import { TextThread } from './text-thread-handle.ts';
import type { TextJob, TextThreadSettings } from './text-thread-handle.ts';
import type { TextDescription } from './text-messages.ts';

/** One thread of several begins with nothing larger, so that small requests find it free soon. */
const smallBytesMax = 128 * 1024;
/** A thread may have begun so many requests. */
const depthMax = 4;
/** A busy thread takes what is so many times smaller at once, and another scope's after so long. */
const muchSmaller = 4;
const turnMs = 50;
/** Beyond these the next one is refused until some were read. */
const waitingMax = 1024;
const defaultWaitingBytesMax = 256 * 2 ** 20;
/** The scope is looked for in so much of the end of a body, which is where the edge writes it. */
const scopeBytesMax = 2048;

export interface TextPoolOptions extends TextThreadSettings {
  readonly threads: number;
  /** Bodies that wait for a thread, together. */
  readonly waitingBytesMax?: number;
}

/** Resolves once every thread can read; rejects with the reason where one can't. */
export async function openTextPool(options: TextPoolOptions): Promise<TextPool> {
  const pool = new TextPool(options);
  try {
    await pool.opened;
    return pool;
  } catch (error) {
    await pool.close();
    throw error;
  }
}

export class TextPool implements TextReader {
  readonly #options: TextPoolOptions;
  readonly #threads: readonly TextThread[];
  readonly #queue = new TextQueue<TextJob>();
  /** Resolves with what the threads say of the text. */
  readonly opened: Promise<TextDescription>;
  #nextId = 0;
  #isClosed = false;
  #turn: NodeJS.Timeout | null = null;

  constructor(options: TextPoolOptions) {
    this.#options = options;
    this.#threads = Array.from(
      { length: options.threads },
      () =>
        new TextThread({
          ...options,
          onFree: () => this.#dispatch(),
          onReturned: (job) => this.#queue.add(job),
        }),
    );
    this.opened = Promise.all(this.#threads.map((thread) => thread.opened)).then(([first]) => {
      assert(first !== undefined, 'there is at least one thread');
      return first;
    });
  }

  /** Requests that wait for a thread. */
  get waiting(): number {
    return this.#queue.count;
  }

  async read<Route extends TextRoute>(
    request: TextRequest<Route>,
    signal: AbortSignal,
  ): Promise<ReadByRoute[Route]> {
    if (signal.aborted) throw clientLeft();
    this.#refuseIfFull(request);
    const { promise, resolve } = Promise.withResolvers<Parameters<TextJob['finish']>[0]>();
    const job: TextJob = {
      id: this.#nextId++,
      scope: scopeOf(request.body),
      bytes: request.body.byteLength,
      request,
      finish: resolve,
    };
    const stop = (): void => {
      if (!this.#queue.remove(job)) for (const thread of this.#threads) thread.stop(job);
      resolve({ kind: 'stopped' });
    };
    signal.addEventListener('abort', stop, { once: true });
    this.#queue.add(job);
    this.#dispatch();
    const outcome = await promise;
    signal.removeEventListener('abort', stop);
    if (outcome.kind !== 'read') throw errorOf(outcome, this.#options.jobMs);
    // A thread answers what the route of its request reads.
    return outcome.result as ReadByRoute[Route];
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#turn !== null) clearTimeout(this.#turn);
    for (const job of this.#queue.drain()) job.finish({ kind: 'stopped' });
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** @throws ApiError 429, 503 */
  #refuseIfFull({ body }: TextRequest): void {
    if (this.#isClosed) throw new ApiError('not_ready', 'the worker is shutting down');
    const { count, bytes } = this.#queue;
    const { waitingBytesMax = defaultWaitingBytesMax } = this.#options;
    if (count < waitingMax && bytes + body.byteLength <= waitingBytesMax) return;
    throw new ApiError('engine_busy', 'too many requests wait to be read', {
      headers: { 'retry-after': '1' },
    });
  }

  /** Gives threads what they may take; looks again after a turn while something is left. */
  #dispatch(): void {
    if (this.#isClosed) return;
    for (const fits of [this.#fitsFree, this.#fitsBetween]) {
      for (const [index, thread] of this.#threads.entries()) {
        const job = this.#queue.take((each) => fits(each, { index, thread }));
        if (job !== null) thread.read(job);
      }
    }
    if (this.#queue.count === 0 || this.#turn !== null) return;
    this.#turn = setTimeout(() => {
      this.#turn = null;
      this.#dispatch();
    }, turnMs);
  }

  readonly #fitsFree = (job: TextJob, { index, thread }: Place): boolean =>
    thread.isFree && (index > 0 || this.#threads.length === 1 || job.bytes <= smallBytesMax);

  readonly #fitsBetween = (job: TextJob, { thread }: Place): boolean => {
    const { innermost } = thread;
    if (innermost === null || thread.depth >= depthMax) return false;
    if (job.bytes * muchSmaller <= innermost.job.bytes) return true;
    const hadTurn = performance.now() - innermost.startedMs >= turnMs;
    return hadTurn && !thread.reads(job.scope);
  };
}

interface Place {
  readonly index: number;
  readonly thread: TextThread;
}

/** The unit of fair order, which the edge makes of the tenant; empty where none is seen. */
function scopeOf(body: SharedArrayBuffer): string {
  const end = Buffer.from(body, Math.max(0, body.byteLength - scopeBytesMax)).toString('latin1');
  return /.*"(?:fair_scope|cache_salt)":"([^"]*)"/s.exec(end)?.[1] ?? '';
}

function errorOf(
  outcome: Exclude<Parameters<TextJob['finish']>[0], { kind: 'read' }>,
  jobMs: number,
): Error {
  switch (outcome.kind) {
    case 'refused': {
      const { code, message, param, overflow } = outcome.refusal;
      return new ApiError(code, message, {
        ...(param !== null && { param }),
        ...(overflow && { overflow }),
      });
    }
    case 'too-slow':
      return new ApiError(
        'request_too_complex',
        `Reading the request took longer than the ${jobMs / 1000} s that one may take; ` +
          'send shorter texts, fewer tools or a simpler schema.',
      );
    case 'too-large':
      return new ApiError(
        'request_too_complex',
        'Reading the request took more memory than one may take; send shorter texts.',
      );
    case 'stopped':
      return clientLeft();
    case 'failed':
      return new Error(`a text thread failed: ${outcome.message}`);
  }
}

function clientLeft(): Error {
  return new ApiError('not_ready', 'the request was stopped before it was read');
}
