/**
 * Runs kernels on the calling thread and on helper threads that share its memory. The caller takes
 * part in every job and blocks until it is done; kernels/index.ts says how tasks are shared out.
 */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { missing } from '../../at.ts';
import type { Arena } from './arena.ts';
import type { HelperStart } from './helper-thread.ts';
import { argumentsAt, jobAt, stopAt, threadScratchBytes, wordAt } from './kernels/op-codes.ts';

/**
 * Multiply-adds (or bytes touched) below which waking a helper costs more than it saves: ~10 us.
 */
const sharedWorkMin = 100_000;
/** Between wake-ups of helpers that may have gone to sleep just before they were told to stop. */
const stopRetryMs = 5;

export interface KernelExports {
  readonly runAlone: (op: number, tasks: number) => void;
  readonly runShared: (op: number, tasks: number) => number;
  readonly serve: (thread: number) => void;
}

export function kernelExports(instance: WebAssembly.Instance): KernelExports {
  // The committed binary exports exactly these; a test compiles it anew and compares.
  return instance.exports as unknown as KernelExports;
}

const float = new Float32Array(1);
const floatBits = new Uint32Array(float.buffer);

/** A float as the 4 bytes of an argument. */
export function f32(value: number): number {
  float[0] = value;
  return floatBits[0] ?? missing();
}

export type Arguments = readonly (number | readonly number[])[];

export interface Job {
  readonly op: number;
  readonly tasks: number;
  /** Estimate of the whole job, in multiply-adds or elements touched. */
  readonly work: number;
  /**
   * 4 bytes each, in the order of the kernel's arguments: addresses, counts, or `f32(x)`. Lists in
   * the list only group what belongs together.
   */
  readonly arguments: Arguments;
}

export class ThreadPool {
  readonly threads: number;
  readonly #arena: Arena;
  readonly #kernels: KernelExports;
  readonly #helpers: Worker[] = [];
  #onJob: () => void = () => {};
  #failure: string | null = null;
  #closing = false;

  private constructor(arena: Arena, kernels: KernelExports, threads: number) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.threads = threads;
    const bytes = threads * threadScratchBytes;
    arena.u32[jobAt / 4 + 2] = arena.allocate(bytes, 'activation', 'scratch of the threads');
    arena.u32[jobAt / 4 + 3] = threadScratchBytes;
  }

  static async open(arena: Arena, threads: number): Promise<ThreadPool> {
    const binary = await readFile(new URL('./kernels.wasm', import.meta.url));
    const module = await WebAssembly.compile(binary);
    const { memory } = arena;
    const instance = await WebAssembly.instantiate(module, { env: { memory } });
    const pool = new ThreadPool(arena, kernelExports(instance), threads);
    try {
      await pool.#startHelpers(module);
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  async #startHelpers(module: WebAssembly.Module): Promise<void> {
    const { memory } = this.#arena;
    const online: Promise<unknown>[] = [];
    for (let thread = 1; thread < this.threads; thread++) {
      const workerData: HelperStart = { module, memory, thread };
      const helper = new Worker(new URL('./helper-thread.ts', import.meta.url), {
        name: `sift-cpu-${thread}`,
        workerData,
        execArgv: [],
      });
      this.#helpers.push(helper);
      helper.on('error', (error) => this.#fail(error instanceof Error ? error.message : 'unknown'));
      helper.on('exit', () => this.#fail('a helper thread ended'));
      online.push(once(helper, 'online'));
    }
    await Promise.all(online);
    // A helper waits inside WebAssembly for good; it must not keep the process alive for that.
    for (const helper of this.#helpers) helper.unref();
  }

  /** The first failure is the cause; what follows from it is not told. */
  #fail(reason: string): void {
    if (!this.#closing) this.#failure ??= `the cpu backend failed: ${reason}`;
  }

  /** True once a thread has failed; no job runs any more. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /** Tells whoever watches the work of each job that begins. */
  watch(onJob: () => void): void {
    this.#onJob = onJob;
  }

  /** Runs every task of the job, on the caller alone if it is small. Throws if a thread failed. */
  run(job: Job): void {
    assert(!this.#closing, 'the cpu backend is closed');
    if (this.#failure !== null) throw new Error(this.#failure);
    if (job.tasks === 0) return;
    this.#onJob();
    this.#arena.u32.set(job.arguments.flat(), argumentsAt / 4);
    const alone = this.threads === 1 || job.tasks === 1 || job.work < sharedWorkMin;
    try {
      if (alone) this.#kernels.runAlone(job.op, job.tasks);
      else this.#expectDone(this.#kernels.runShared(job.op, job.tasks));
    } catch (error) {
      // Helpers may still be at work on what is left of the job: nothing can run after it.
      this.#fail(error instanceof Error ? error.message : 'unknown');
      throw error;
    }
  }

  /** Throws unless the outcome of a shared job is 0. */
  #expectDone(outcome: number): void {
    if (outcome === 0) return;
    throw new Error(outcome === 1 ? 'a helper thread died' : 'a helper thread makes no progress');
  }

  /** Tasks that share `rows` rows evenly, and the rows of each. */
  share(rows: number, rowWork: number): { rowsPerTask: number; tasks: number } {
    const rowsPerTask = Math.max(1, Math.ceil(sharedWorkMin / 4 / Math.max(1, rowWork)));
    return { rowsPerTask, tasks: Math.ceil(rows / rowsPerTask) };
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    Atomics.store(this.#arena.i32, stopAt / 4, 1);
    const running = this.#helpers.filter((helper) => helper.threadId !== -1);
    const ended = running.map((helper) => new Promise((resolve) => helper.once('exit', resolve)));
    for (const helper of running) helper.ref();
    const wake = () => Atomics.notify(this.#arena.i32, wordAt / 4);
    wake();
    const timer = setInterval(wake, stopRetryMs);
    await Promise.all(ended);
    clearInterval(timer);
  }
}
