/**
 * Kernel launches of a step, held back until a result is read. Decode steps repeat: their launches
 * are the same to the last argument, since what changes lies in device memory. A list seen before is
 * captured once as a CUDA graph and from then on launched as one call.
 */
import koffi from 'koffi';
import type { Driver, Handle } from './driver.ts';
import type { Kernel, Kernels } from './kernels.ts';

/** Graphs that are kept; the oldest goes first. */
const graphsMax = 64;
/** Lists that are remembered as seen once. */
const seenMax = 256;
/** Launches below which a graph saves nothing. */
const graphLaunchesMin = 4;
const argumentsMax = 64;
const headWords = 8;
const word = 2 ** 32;

/**
 * Arguments in the order of the kernel's fields; inner arrays only group them. Words are taken as they
 * are: tensor maps.
 */
export type Slots = readonly (number | readonly number[] | Uint32Array)[];

/** Work that a library puts on the stream: run with the queue, or captured with it. */
export interface LibraryCall {
  readonly name: string;
  run(args: readonly number[]): void;
}

export interface LaunchShape {
  readonly grid: readonly [number, number, number];
  readonly threads: number;
  readonly sharedBytes?: number;
}

interface Graph {
  readonly words: Uint32Array;
  readonly exec: Handle;
}

export class LaunchQueue {
  /** Launches so far that ran inside a graph, and that ran alone. */
  readonly counts = { inGraphs: 0, alone: 0 };
  readonly #driver: Driver;
  readonly #kernels: Kernels;
  readonly #stream: Handle;
  readonly #useGraphs: boolean;
  /** SIFT_CUDA_SYNC=1 waits for every kernel, so that a fault names the one that met it. */
  readonly #oneByOne = process.env['SIFT_CUDA_SYNC'] === '1';
  readonly #byId: Kernel[] = [];
  readonly #calls: LibraryCall[] = [];
  readonly #graphs = new Map<number, Graph>();
  readonly #seen = new Set<number>();
  readonly #arguments = new Uint32Array(argumentsMax * 2);
  readonly #pointer: BigUint64Array;
  #words = new Uint32Array(1 << 16);
  #length = 0;
  #launches = 0;

  constructor(driver: Driver, kernels: Kernels, stream: Handle, useGraphs: boolean) {
    this.#driver = driver;
    this.#kernels = kernels;
    this.#stream = stream;
    this.#useGraphs = useGraphs && !this.#oneByOne;
    this.#pointer = BigUint64Array.of(koffi.address(this.#arguments));
  }

  get empty(): boolean {
    return this.#launches === 0;
  }

  /** `slots`: addresses and integers below 2^53, or a float's bits; 8 bytes each in the kernel. */
  push(kernel: Kernel, shape: LaunchShape, nested: Slots): void {
    const slots = nested.flatMap<number | Uint32Array>((slot) =>
      slot instanceof Uint32Array ? [slot] : slot,
    );
    const count = slots.reduce<number>(
      (sum, slot) => sum + (typeof slot === 'number' ? 1 : slot.length / 2),
      0,
    );
    const { grid, threads, sharedBytes = 0 } = shape;
    if (grid[0] === 0 || grid[1] === 0 || grid[2] === 0) return;
    this.#kernels.allowShared(kernel, sharedBytes);
    this.#byId[kernel.id] = kernel;
    this.#makeRoom(headWords + count * 2);
    const words = this.#words;
    let at = this.#length;
    words[at++] = kernel.id;
    words[at++] = grid[0];
    words[at++] = grid[1];
    words[at++] = grid[2];
    words[at++] = threads;
    words[at++] = sharedBytes;
    words[at++] = count;
    words[at++] = 0;
    for (const slot of slots) {
      if (typeof slot !== 'number') {
        words.set(slot, at);
        at += slot.length;
        continue;
      }
      words[at++] = slot % word;
      words[at++] = Math.floor(slot / word);
    }
    this.#length = at;
    this.#launches++;
  }

  /** Queues a library's call; `args` are addresses and integers below 2^53. */
  pushCall(call: LibraryCall, args: readonly number[]): void {
    const known = this.#calls.indexOf(call);
    const id = known < 0 ? this.#calls.push(call) - 1 : known;
    this.#makeRoom(headWords + args.length * 2);
    const words = this.#words;
    words.fill(0, this.#length, this.#length + headWords);
    words[this.#length] = id;
    words[this.#length + 6] = args.length;
    words[this.#length + 7] = 1;
    let at = this.#length + headWords;
    for (const arg of args) {
      words[at++] = arg % word;
      words[at++] = Math.floor(arg / word);
    }
    this.#length = at;
    this.#launches++;
  }

  #makeRoom(words: number): void {
    const needed = this.#length + words;
    if (needed <= this.#words.length) return;
    const larger = new Uint32Array(needed * 2);
    larger.set(this.#words.subarray(0, this.#length));
    this.#words = larger;
  }

  /** Hands everything queued to the stream; returns before it has run. */
  flush(): void {
    if (this.#launches === 0) return;
    const words = this.#words.subarray(0, this.#length);
    const launches = this.#launches;
    this.#length = 0;
    this.#launches = 0;
    if (!this.#useGraphs || launches < graphLaunchesMin) {
      this.counts.alone += launches;
      this.#launchAll(words);
      return;
    }
    const hash = hashOf(words);
    const graph = this.#graphs.get(hash);
    if (graph !== undefined && equal(graph.words, words)) {
      this.counts.inGraphs += launches;
      this.#driver.call('GraphLaunch', [graph.exec, this.#stream], 'for a step');
    } else if (this.#seen.has(hash)) {
      this.counts.inGraphs += launches;
      this.#capture(hash, words);
    } else {
      if (this.#seen.size >= seenMax) this.#seen.clear();
      this.#seen.add(hash);
      this.counts.alone += launches;
      this.#launchAll(words);
    }
  }

  close(): void {
    for (const { exec } of this.#graphs.values()) this.#driver.raw('GraphExecDestroy', [exec]);
    this.#graphs.clear();
  }

  #capture(hash: number, words: Uint32Array): void {
    const relaxed = 2;
    this.#driver.call('StreamBeginCapture_v2', [this.#stream, relaxed]);
    this.#launchAll(words);
    const out: [Handle] = [0];
    this.#driver.call('StreamEndCapture', [this.#stream, out]);
    const exec = this.#driver.make('GraphInstantiateWithFlags', [out[0], 0], 'for a step');
    this.#driver.call('GraphDestroy', [out[0]]);
    const [oldest] = this.#graphs;
    if (oldest !== undefined && this.#graphs.size >= graphsMax) {
      this.#driver.call('StreamSynchronize', [this.#stream]);
      this.#driver.call('GraphExecDestroy', [oldest[1].exec]);
      this.#graphs.delete(oldest[0]);
    }
    this.#graphs.set(hash, { words: words.slice(), exec });
    this.#driver.call('GraphLaunch', [exec, this.#stream], 'for a step');
  }

  /** Where the entry behind it begins. */
  #runCall(words: Uint32Array, at: number): number {
    const call = this.#calls[words[at] ?? 0];
    if (call === undefined) throw new Error('a queued call is unknown');
    const start = at + headWords;
    const end = start + (words[at + 6] ?? 0) * 2;
    call.run(numbersOf(words.subarray(start, end)));
    if (this.#oneByOne) {
      this.#driver.call('StreamSynchronize', [this.#stream], `for ${call.name}`);
    }
    return end;
  }

  #launchAll(words: Uint32Array): void {
    for (let at = 0; at < words.length;) {
      if (words[at + 7] === 1) {
        at = this.#runCall(words, at);
        continue;
      }
      const kernel = this.#byId[words[at] ?? 0];
      if (kernel === undefined) throw new Error('a queued kernel is unknown');
      const slots = words[at + 6] ?? 0;
      const start = at + headWords;
      this.#arguments.set(words.subarray(start, start + slots * 2));
      const [x, y, z] = [words[at + 1], words[at + 2], words[at + 3]];
      this.#driver.call(
        'LaunchKernel',
        [
          kernel.handle,
          x,
          y,
          z,
          words[at + 4],
          1,
          1,
          words[at + 5],
          this.#stream,
          this.#pointer,
          0,
        ],
        `for kernel ${kernel.name}`,
      );
      if (this.#oneByOne) {
        this.#driver.call('StreamSynchronize', [this.#stream], `for kernel ${kernel.name}`);
      }
      at = start + slots * 2;
    }
  }
}

/** The numbers that lie as pairs of words. */
function numbersOf(words: Uint32Array): number[] {
  return Array.from(
    { length: words.length / 2 },
    (_, i) => (words[2 * i] ?? 0) + (words[2 * i + 1] ?? 0) * word,
  );
}

const floats = new Float32Array(1);
const floatBits = new Uint32Array(floats.buffer);

/** A float as the slot of a `real`. */
export function real(value: number): number {
  floats[0] = value;
  return floatBits[0] ?? 0;
}

function hashOf(words: Uint32Array): number {
  let a = 0x811c9dc5;
  let b = 0x1b873593;
  for (let i = 0; i < words.length; i++) {
    const value = words[i] ?? 0;
    a = Math.imul(a ^ value, 0x01000193);
    b = Math.imul(b + value, 0x85ebca6b) ^ (b >>> 13);
  }
  return (a >>> 0) * 2 ** 21 + ((b >>> 0) % 2 ** 21);
}

function equal(a: Uint32Array, b: Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
