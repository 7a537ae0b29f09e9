/**
 * The leader of a model's ranks: starts their threads, hands each its part of the weights, and has
 * them step together. A rank that fails, dies or hangs ends all of them, with one reason that names
 * it.
 */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { at } from '../at.ts';
import type { MemoryUse } from '../backend/memory.ts';
import type { Numerics } from '../backend/numerics.ts';
import type { HostTensor } from '../backend/weights.ts';
import type { ModelOptions } from '../model/family.ts';
import type { ModelConfig } from '../model/mla-moe/config.ts';
import type { Layout } from '../model/mla-moe/shard.ts';
import type {
  FromLoadingRank,
  RankAnswer,
  RankCommand,
  RankStart,
  ToLoadingRank,
} from './rank-messages.ts';
import { createSignals, LeaderSignals } from './rank-signals.ts';

/** Bytes on their way to one rank; a larger tensor goes alone. */
const givenBytesMax = 64 * 2 ** 20;
/** A rank that was told to close gets so long before its thread is ended. */
const closeMs = 5_000;

export interface RankThreadsOptions extends Layout {
  /** Entry module of a rank's thread, which calls `runRankThread`. */
  readonly entry: URL;
  readonly config: ModelConfig;
  readonly numerics: Numerics;
  readonly options: ModelOptions;
  /** Handed to the entry module for its backend; has to survive structured clone. */
  openingOf(rank: number): unknown;
  /** Makes ranks that wait for others give up. */
  abort(): void;
  /** A number of each rank that grows while it works, and whether it waits for others. */
  progress(): { readonly progress: number; readonly waits: boolean }[];
  /** The longest that no rank moves in a step; then one of those that do not wait hangs. */
  readonly stepMs: number;
}

interface RankThread {
  readonly rank: number;
  readonly thread: Worker;
  readonly port: MessagePort;
  /** Bytes that it was given and has not taken. */
  givenBytes: number;
  failure: string | null;
}

export class RankThreads {
  readonly #options: RankThreadsOptions;
  readonly #signals: LeaderSignals;
  readonly #ranks: readonly RankThread[];
  readonly #failed = Promise.withResolvers<never>();
  #failure: Error | null = null;
  #serves = false;
  #isClosing = false;

  private constructor(options: RankThreadsOptions) {
    this.#options = options;
    const count = options.tensorParallel * options.dataParallel;
    const signals = createSignals(count);
    this.#signals = new LeaderSignals(signals);
    this.#ranks = Array.from({ length: count }, (_, rank) => this.#start(rank, signals));
    // Somebody who steps is told there; nobody has to wait for it.
    this.#failed.promise.catch(() => {});
  }

  /** Resolves once every rank has its backend. */
  static async open(options: RankThreadsOptions): Promise<RankThreads> {
    const threads = new RankThreads(options);
    try {
      await threads.#all('opened');
      return threads;
    } catch (error) {
      await threads.close();
      throw error;
    }
  }

  #start(rank: number, signals: SharedArrayBuffer): RankThread {
    const { entry, openingOf, tensorParallel, dataParallel, config, numerics } = this.#options;
    const { port1: port, port2: commands } = new MessageChannel();
    const workerData: RankStart<unknown> = {
      rank,
      tensorParallel,
      dataParallel,
      config,
      numerics,
      options: this.#options.options,
      signals,
      commands,
      opening: openingOf(rank),
    };
    const thread = new Worker(entry, {
      name: `sift-rank-${rank}`,
      workerData,
      transferList: [commands],
    });
    const started: RankThread = { rank, thread, port, givenBytes: 0, failure: null };
    thread.on('message', (message: FromLoadingRank) => {
      if (message.kind === 'failed') this.#fail(rank, message.message);
      if (message.kind === 'taken') started.givenBytes -= message.bytes;
    });
    thread.on('error', (error) => this.#fail(rank, String(error)));
    thread.on('exit', () => this.#fail(rank, 'its thread ended'));
    port.unref();
    return started;
  }

  /** Rejects once a rank has failed. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  get count(): number {
    return this.#ranks.length;
  }

  /** Hands a rank its part of a tensor, which is its own then; resolves when more may follow. */
  async give(rank: number, tensor: HostTensor): Promise<void> {
    const to = at(this.#ranks, rank);
    const { length } = tensor.bytes;
    while (to.givenBytes > 0 && to.givenBytes + length > givenBytesMax) {
      await this.#orFailed(once(to.thread, 'message'));
    }
    to.givenBytes += length;
    const message: ToLoadingRank = { kind: 'tensor', tensor };
    const { buffer } = tensor.bytes;
    assert(buffer instanceof ArrayBuffer, 'a part has memory of its own');
    to.thread.postMessage(message, [buffer]);
  }

  /** The memory of each rank once all have their weights and activations. */
  async prepare(): Promise<{ memory: MemoryUse; blockBytes: number }[]> {
    this.#tellAll({ kind: 'prepare' });
    return this.#all('prepared');
  }

  /** Every rank allocates its caches, and takes commands from then on. */
  async serve(blocks: number): Promise<void> {
    this.#tellAll({ kind: 'serve', blocks });
    await this.#all('serving');
    this.#serves = true;
  }

  /** Runs a command on each of these ranks together; the answers of those that give one. */
  run(commands: ReadonlyMap<number, RankCommand>): Map<number, RankAnswer> {
    if (this.#failure !== null) throw this.#failure;
    for (const [rank, command] of commands) {
      at(this.#ranks, rank).port.postMessage(command, []);
      this.#signals.command(rank);
    }
    this.#waitFor([...commands.keys()]);
    const answers = new Map<number, RankAnswer>();
    for (const rank of commands.keys()) {
      const received = receiveMessageOnPort(at(this.#ranks, rank).port);
      // The rank sends nothing else there.
      if (received !== undefined) answers.set(rank, received.message as RankAnswer);
    }
    return answers;
  }

  #waitFor(ranks: readonly number[]): void {
    const { stepMs } = this.#options;
    let moved = { state: '', atMs: performance.now() };
    for (;;) {
      const answers = this.#signals.answers();
      const failed = this.#signals.failed();
      if (failed !== null) throw this.#end(failed, this.#reasonOf(failed));
      const waiting = ranks.filter((rank) => !this.#signals.isDone(rank));
      if (waiting.length === 0) return;
      const progress = this.#options.progress();
      const state = `${answers} ${progress.map((each) => each.progress).join()}`;
      if (state !== moved.state) moved = { state, atMs: performance.now() };
      else if (performance.now() - moved.atMs > stepMs) {
        const still = waiting.find((rank) => !at(progress, rank).waits) ?? at(waiting, 0);
        throw this.#end(still, `it made no progress for ${stepMs / 1000} s in a step`);
      }
      this.#signals.wait(answers);
    }
  }

  /** The reason that a rank left at its port when it failed. */
  #reasonOf(rank: number): string {
    const { port } = at(this.#ranks, rank);
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (received === undefined) return 'its thread ended';
      // The rank sends nothing else there.
      const answer = received.message as RankAnswer;
      if (answer.kind === 'failed') return answer.message;
    }
  }

  #fail(rank: number, reason: string): void {
    if (!this.#isClosing) this.#end(rank, reason);
  }

  /** Ends all ranks for the failure of one; the first failure is the cause. */
  #end(rank: number, reason: string): Error {
    this.#failure ??= new Error(`rank ${rank} of ${this.#ranks.length} failed: ${reason}`);
    this.#options.abort();
    this.#failed.reject(this.#failure);
    return this.#failure;
  }

  #tellAll(message: ToLoadingRank): void {
    for (const { thread } of this.#ranks) thread.postMessage(message, []);
  }

  /** Waits for a message of this kind from every rank. */
  async #all<Kind extends FromLoadingRank['kind']>(kind: Kind) {
    type Wanted = Extract<FromLoadingRank, { kind: Kind }>;
    const isWanted = (message: FromLoadingRank): message is Wanted => message.kind === kind;
    const told = this.#ranks.map(
      ({ thread }) =>
        new Promise<Wanted>((resolve) => {
          const listen = (message: FromLoadingRank): void => {
            if (!isWanted(message)) return;
            thread.off('message', listen);
            resolve(message);
          };
          thread.on('message', listen);
        }),
    );
    return this.#orFailed(Promise.all(told));
  }

  #orFailed<T>(waiting: Promise<T>): Promise<T> {
    return Promise.race([waiting, this.#failed.promise]);
  }

  /** Ends the threads: at once if one has failed, else after their last command. */
  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const exits = this.#ranks.map(async ({ rank, thread, port }) => {
      const exited = once(thread, 'exit');
      const command: RankCommand = { kind: 'close' };
      port.postMessage(command, []);
      this.#signals.command(rank);
      if (this.#failure !== null || !this.#serves) void thread.terminate();
      const stuck = setTimeout(() => void thread.terminate(), closeMs);
      if (thread.threadId !== -1) await exited;
      clearTimeout(stuck);
      port.close();
    });
    await Promise.all(exits);
  }
}
