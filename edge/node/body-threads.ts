/**
 * Work on large bodies on threads of their own, so that none holds up the event loop. Bytes are
 * handed over, not copied. Tenants take turns; the body budget bounds how many wait. A thread that
 * takes too long or too much memory, or whose client leaves, is ended; so is one that has had
 * nothing to do, which gives its memory back.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { ApiError } from '../errors.ts';
import type { FromThread, ToThread } from '../bodies/body-messages.ts';
import type { BodyClient } from '../bodies/body-work.ts';

/** One core is left to the event loop. */
const threadsOfProcess = Math.min(2, availableParallelism() - 1);
const jobMsMax = 20_000;
const idleMsMax = 30_000;
const heapMiBMax = 512;

interface Job {
  readonly message: ToThread;
  readonly tenant: string;
  readonly resolve: (answer: FromThread) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  job: Job | null;
  /** Ends a job that takes too long, or else the idle thread. */
  timer: NodeJS.Timeout | undefined;
}

export interface BodyThreads {
  /**
   * @throws ApiError 413 if the work takes too long or too much memory, 499 if the client leaves.
   */
  run(message: ToThread, client: BodyClient): Promise<FromThread>;
  close(): Promise<void>;
}

/** @param edges the event loops of the process, each of which has threads of its own. */
export function createBodyThreads({ edges }: { readonly edges: number }): BodyThreads {
  return new ThreadPool(Math.max(1, Math.floor(threadsOfProcess / edges)));
}

class ThreadPool implements BodyThreads {
  readonly #threadsMax: number;
  /** Owners stand in the order of their turns. */
  readonly #waiting = new Map<string, Job[]>();
  readonly #threads = new Set<Thread>();

  constructor(threadsMax: number) {
    this.#threadsMax = threadsMax;
  }

  async run(message: ToThread, { tenant, signal }: BodyClient): Promise<FromThread> {
    if (signal.aborted) throw leftError();
    const { promise, resolve, reject } = Promise.withResolvers<FromThread>();
    const job = { message, tenant, resolve, reject };
    const onAbort = () => this.#withdraw(job);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#waiting.set(tenant, [...(this.#waiting.get(tenant) ?? []), job]);
    this.#dispatch();
    return promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#threads].map(({ worker }) => worker.terminate()));
  }

  #dispatch(): void {
    while (this.#waiting.size > 0) {
      const idle = [...this.#threads].find(({ job }) => job === null);
      if (idle === undefined && this.#threads.size === this.#threadsMax) return;
      this.#give(idle ?? this.#start(), this.#takeNext());
    }
  }

  #takeNext(): Job {
    for (const [tenant, [job, ...rest]] of this.#waiting) {
      this.#waiting.delete(tenant);
      if (rest.length > 0) this.#waiting.set(tenant, rest);
      if (job !== undefined) return job;
    }
    throw new Error('somebody waits');
  }

  #start(): Thread {
    const worker = new Worker(new URL('./body-thread.ts', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: heapMiBMax },
    });
    const thread: Thread = { worker, job: null, timer: undefined };
    this.#threads.add(thread);
    worker.on('message', (answer: FromThread) => this.#finish(thread, answer));
    worker.on('error', (error) => this.#end(thread, reasonOf(error)));
    worker.on('exit', () => this.#end(thread, new Error('a thread for bodies ended')));
    return thread;
  }

  #give(thread: Thread, job: Job): void {
    clearTimeout(thread.timer);
    thread.job = job;
    thread.timer = setTimeout(() => this.#end(thread, tooMuchError()), jobMsMax);
    const { message } = job;
    // The bytes of a body to rewrite are still needed for other workers; those to prepare are
    // read once, in a buffer of their own, which is no shared one.
    const transfer = message.kind === 'prepare' ? [message.input.bytes.buffer as ArrayBuffer] : [];
    thread.worker.postMessage(message, transfer);
  }

  #finish(thread: Thread, answer: FromThread): void {
    const { job } = thread;
    thread.job = null;
    clearTimeout(thread.timer);
    thread.timer = setTimeout(() => this.#end(thread, null), idleMsMax);
    thread.timer.unref();
    job?.resolve(answer);
    this.#dispatch();
  }

  #end(thread: Thread, reason: unknown): void {
    if (!this.#threads.delete(thread)) return;
    clearTimeout(thread.timer);
    void thread.worker.terminate();
    thread.job?.reject(reason);
    this.#dispatch();
  }

  #withdraw(job: Job): void {
    const left = leftError();
    const rest = this.#waiting.get(job.tenant)?.filter((each) => each !== job) ?? [];
    if (rest.length > 0) this.#waiting.set(job.tenant, rest);
    else this.#waiting.delete(job.tenant);
    job.reject(left);
    for (const thread of this.#threads) if (thread.job === job) this.#end(thread, left);
  }
}

function reasonOf(error: unknown): unknown {
  const isMemory =
    error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY';
  return isMemory ? tooMuchError() : error;
}

function leftError(): ApiError {
  return new ApiError('client_left', 'The client closed the request.');
}

function tooMuchError(): ApiError {
  return new ApiError('request_too_large', 'The body takes too long, or too much memory, to read.');
}
