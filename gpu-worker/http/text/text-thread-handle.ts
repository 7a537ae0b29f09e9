/**
 * One text thread as the pool sees it: what it reads, and a new thread in its place if it is lost.
 */
import { Worker } from 'node:worker_threads';
import type { FromText, TextDescription, TextOutcome, ToText } from './text-messages.ts';
import type { TextRequest } from './text-model.ts';

/** A thread may take so long to end a request, once it should, before it is ended itself. */
const endMs = 1_000;
const resourceLimits = {
  maxOldGenerationSizeMb: 2048,
  // Loading alone would fill one of 48 MiB, which V8 does not give back.
  maxYoungGenerationSizeMb: 12,
};

export interface TextThreadSettings {
  /** Module of a thread that calls `runTextThread`. */
  readonly entry: URL;
  /** Handed to it as is; has to survive structured clone. */
  readonly workerData: unknown;
  /** A request may be read for so long; the threads are told the same. */
  readonly jobMs: number;
  /** Called where a thread that had to be started again can't be. */
  onFailure(reason: string): void;
}

/** A request from when it comes until it was read. */
export interface TextJob {
  readonly id: number;
  readonly scope: string;
  readonly bytes: number;
  readonly request: TextRequest;
  finish(outcome: TextOutcome | { readonly kind: 'too-large' }): void;
}

export interface TextThreadOptions extends TextThreadSettings {
  /** The thread can take another request. */
  onFree(): void;
  /** The thread was lost before it got to the request. */
  onReturned(job: TextJob): void;
}

interface Begun {
  readonly job: TextJob;
  readonly startedMs: number;
}

export class TextThread {
  readonly #options: TextThreadOptions;
  readonly opened: Promise<TextDescription>;
  #worker: Worker;
  #isOpen = false;
  #isClosing = false;
  /** Sent and not answered, by id; of those the ones that it has begun, the innermost last. */
  readonly #sent = new Map<number, TextJob>();
  readonly #begun: Begun[] = [];
  /** Ends the thread if the innermost does not end by itself. */
  #overdue: NodeJS.Timeout | null = null;
  #lossReason: 'too-slow' | 'stopped' | 'too-large' | null = null;
  #failure = '';

  constructor(options: TextThreadOptions) {
    this.#options = options;
    const { promise, resolve, reject } = Promise.withResolvers<TextDescription>();
    this.opened = promise;
    this.#worker = this.#start({
      onReady: resolve,
      onBroken: (reason) => reject(new Error(reason)),
    });
  }

  get isFree(): boolean {
    return this.#isOpen && this.#sent.size === 0;
  }

  get depth(): number {
    return this.#sent.size;
  }

  /** The request that it reads just now; null where there is none, or where it has yet to begin. */
  get innermost(): Begun | null {
    if (!this.#isOpen || this.#begun.length < this.#sent.size) return null;
    return this.#begun.at(-1) ?? null;
  }

  /** Tells whether a request of the scope is among those that it reads. */
  reads(scope: string): boolean {
    return this.#begun.some(({ job }) => job.scope === scope);
  }

  read(job: TextJob): void {
    this.#sent.set(job.id, job);
    this.#send({ kind: 'read', job: job.id, request: job.request });
  }

  /** Ends the reading of a request that it has. */
  stop(job: TextJob): void {
    if (!this.#sent.has(job.id)) return;
    this.#send({ kind: 'stop', job: job.id });
    if (this.#begun.at(-1)?.job === job) this.#endIn(endMs, 'stopped');
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#endIn(null);
    await this.#worker.terminate();
  }

  #start(on: {
    onReady(description: TextDescription): void;
    onBroken(reason: string): void;
  }): Worker {
    const { entry, workerData } = this.#options;
    const worker = new Worker(entry, { workerData, resourceLimits });
    worker.on('message', (message: FromText) => {
      switch (message.kind) {
        case 'ready':
          this.#isOpen = true;
          on.onReady(message.description);
          this.#options.onFree();
          break;
        case 'broken':
          this.#failure = message.message;
          on.onBroken(message.message);
          break;
        case 'started':
          this.#begin(message.job);
          break;
        case 'done':
          this.#done(message);
          break;
      }
    });
    worker.on('error', (error: NodeJS.ErrnoException) => {
      this.#failure = String(error);
      if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') this.#lossReason = 'too-large';
    });
    worker.on('exit', () => this.#lost(on.onBroken));
    return worker;
  }

  #begin(id: number): void {
    const job = this.#sent.get(id);
    if (job === undefined) return;
    this.#begun.push({ job, startedMs: performance.now() });
    this.#endIn(this.#options.jobMs + endMs, 'too-slow');
  }

  #done({ job: id, outcome }: Extract<FromText, { kind: 'done' }>): void {
    const job = this.#sent.get(id);
    this.#sent.delete(id);
    this.#begun.pop();
    if (this.#begun.length > 0) this.#endIn(this.#options.jobMs + endMs, 'too-slow');
    else this.#endIn(null);
    job?.finish(outcome);
    this.#options.onFree();
  }

  #send(message: ToText): void {
    this.#worker.postMessage(message, []);
  }

  #endIn(ms: number | null, reason: 'too-slow' | 'stopped' = 'too-slow'): void {
    if (this.#overdue !== null) clearTimeout(this.#overdue);
    this.#overdue = null;
    if (ms === null) return;
    this.#overdue = setTimeout(() => {
      this.#lossReason = reason;
      void this.#worker.terminate();
    }, ms);
  }

  /**
   * The thread has ended. What it was at is to blame; all else that it had can be read by another.
   */
  #lost(onBroken: (reason: string) => void): void {
    const wasOpen = this.#isOpen;
    this.#isOpen = false;
    this.#endIn(null);
    const reason = this.#lossReason;
    const message = this.#failure || 'it ended by itself';
    const blamed = this.#begun.at(-1)?.job;
    const sent = [...this.#sent.values()];
    this.#sent.clear();
    this.#begun.length = 0;
    this.#lossReason = null;
    this.#failure = '';
    for (const job of sent) {
      if (this.#isClosing) job.finish({ kind: 'stopped' });
      else if (job !== blamed) this.#options.onReturned(job);
      else job.finish(reason === null ? { kind: 'failed', message } : { kind: reason });
    }
    if (this.#isClosing) return;
    // One that can't open the text will not open it the next time either.
    if (!wasOpen) return onBroken(message);
    this.#worker = this.#start({ onReady: () => {}, onBroken: this.#options.onFailure });
  }
}
