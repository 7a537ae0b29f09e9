/**
 * Kernel launches, held back until a result is read, and CUDA graphs made of them. A list of
 * launches that has been seen before runs as a graph; step-graphs.ts does so for whole steps.
 */
import { readCudaSettings } from '../cuda-settings.ts';
import { strict as assert } from 'node:assert';
import { at, missing } from '../../../at.ts';
import koffi from 'koffi';
import type { Driver, Handle } from './driver.ts';
import { packArgs } from './kernel-args.ts';
import type { KernelArgs } from './kernel-args.ts';
import type { Kernel, Kernels } from './kernels.ts';

/** Graphs of lists that are kept; the oldest goes first. */
const listGraphsMax = 16;
/** Lists that are remembered as seen once. */
const seenMax = 256;
/** Launches below which a graph saves nothing. */
const graphLaunchesMin = 8;
/** Words of a kernel's arguments. */
const argumentWordsMax = 128;
const headWords = 8;
const word = 2 ** 32;

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

/** Launches that were captured, to be launched again as one. */
export interface Graph {
  readonly exec: Handle;
  readonly launches: number;
}

interface ListGraph extends Graph {
  readonly words: Uint32Array;
}

export class LaunchQueue {
  /** Launches so far that ran inside a graph, and that ran alone. */
  readonly counts = { inGraphs: 0, alone: 0 };
  readonly #driver: Driver;
  readonly #kernels: Kernels;
  readonly #stream: Handle;
  readonly #useGraphs: boolean;
  /** SIFT_CUDA_SYNC=1 waits for every kernel, so that a fault names the one that met it. */
  readonly #oneByOne = readCudaSettings().waitsForKernels;
  readonly #byId: Kernel[] = [];
  readonly #calls: LibraryCall[] = [];
  readonly #graphs = new Map<number, ListGraph>();
  readonly #seen = new Set<number>();
  readonly #captured = new Set<Handle>();
  readonly #arguments = new Uint32Array(argumentWordsMax);
  readonly #pointer: BigUint64Array;
  #words = new Uint32Array(1 << 16);
  #length = 0;
  #launches = 0;
  #flushes = 0;

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

  /** Counts how often there was something to hand over. */
  get flushes(): number {
    return this.#flushes;
  }

  /** True if lists and steps that come again run as graphs. */
  get usesGraphs(): boolean {
    return this.#useGraphs;
  }

  push(kernel: Kernel, shape: LaunchShape, args: KernelArgs): void {
    const { grid, threads, sharedBytes = 0 } = shape;
    if (grid[0] === 0 || grid[1] === 0 || grid[2] === 0) return;
    if (sharedBytes > kernel.sharedBytes) this.#kernels.allowShared(kernel, sharedBytes);
    this.#byId[kernel.id] = kernel;
    const count = kernel.args.bytes / 4;
    assert(count <= argumentWordsMax, `${count} words of arguments of kernel ${kernel.name}`);
    this.#makeRoom(headWords + count);
    const words = this.#words;
    const head = this.#length;
    const start = head + headWords;
    words.fill(0, head, start + count);
    words[head] = kernel.id;
    words[head + 1] = grid[0];
    words[head + 2] = grid[1];
    words[head + 3] = grid[2];
    words[head + 4] = threads;
    words[head + 5] = sharedBytes;
    words[head + 6] = count;
    packArgs(kernel.name, kernel.args, args, { words, start });
    this.#length = start + count;
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
    words[this.#length + 6] = args.length * 2;
    words[this.#length + 7] = 1;
    let end = this.#length + headWords;
    for (const arg of args) end = putSlot(words, end, arg);
    this.#length = end;
    this.#launches++;
  }

  #makeRoom(words: number): void {
    if (this.#length + words <= this.#words.length) return;
    const larger = new Uint32Array((this.#length + words) * 2);
    larger.set(this.#words.subarray(0, this.#length));
    this.#words = larger;
  }

  /** Hands everything queued to the stream; returns before it has run. */
  flush(): void {
    if (this.#launches === 0) return;
    this.#flushes++;
    const { words, launches } = this.#take();
    if (!this.#useGraphs || launches < graphLaunchesMin) {
      this.counts.alone += launches;
      this.#launchAll(words);
      return;
    }
    const hash = hashOf(words);
    const graph = this.#graphs.get(hash);
    if (graph !== undefined && equal(graph.words, words)) {
      this.launch(graph);
    } else if (this.#seen.has(hash)) {
      const [oldest] = this.#graphs;
      if (oldest !== undefined && this.#graphs.size >= listGraphsMax) {
        this.destroy(oldest[1]);
        this.#graphs.delete(oldest[0]);
      }
      const made = { words: words.slice(), ...this.#capture(words, launches) };
      this.#graphs.set(hash, made);
      this.launch(made);
    } else {
      if (this.#seen.size >= seenMax) this.#seen.clear();
      this.#seen.add(hash);
      this.counts.alone += launches;
      this.#launchAll(words);
    }
  }

  /** Makes a graph of everything queued, which is then queued no longer; null if nothing is. */
  capture(): Graph | null {
    if (this.#launches === 0) return null;
    const { words, launches } = this.#take();
    return this.#capture(words, launches);
  }

  launch(graph: Graph): void {
    this.counts.inGraphs += graph.launches;
    this.#driver.call('GraphLaunch', [graph.exec, this.#stream], 'for a step');
  }

  destroy(graph: Graph): void {
    this.#driver.call('StreamSynchronize', [this.#stream], "for a step's kernels");
    this.#driver.call('GraphExecDestroy', [graph.exec]);
    this.#captured.delete(graph.exec);
  }

  /** Errors of a device that has already failed are of no more use. */
  close(): void {
    for (const exec of this.#captured) this.#driver.raw('GraphExecDestroy', [exec]);
    this.#captured.clear();
    this.#graphs.clear();
  }

  #take(): { words: Uint32Array; launches: number } {
    const taken = { words: this.#words.subarray(0, this.#length), launches: this.#launches };
    this.#length = 0;
    this.#launches = 0;
    return taken;
  }

  #capture(words: Uint32Array, launches: number): Graph {
    const relaxed = 2;
    this.#driver.call('StreamBeginCapture_v2', [this.#stream, relaxed]);
    this.#launchAll(words);
    const out: [Handle] = [0];
    this.#driver.call('StreamEndCapture', [this.#stream, out]);
    const exec = this.#driver.make('GraphInstantiateWithFlags', [out[0], 0], 'for a step');
    this.#driver.call('GraphDestroy', [out[0]]);
    this.#captured.add(exec);
    return { exec, launches };
  }

  /** Runs the call at `head`, and returns the place of the entry behind it. */
  #runCall(words: Uint32Array, head: number): number {
    const call = this.#calls[at(words, head)];
    if (call === undefined) throw new Error('a queued call is unknown');
    const start = head + headWords;
    const end = start + at(words, head + 6);
    call.run(numbersOf(words.subarray(start, end)));
    if (this.#oneByOne) {
      this.#driver.call('StreamSynchronize', [this.#stream], `for ${call.name}`);
    }
    return end;
  }

  #launchAll(words: Uint32Array): void {
    for (let head = 0; head < words.length;) {
      if (words[head + 7] === 1) {
        head = this.#runCall(words, head);
        continue;
      }
      const kernel = this.#byId[at(words, head)];
      if (kernel === undefined) throw new Error('a queued kernel is unknown');
      const count = at(words, head + 6);
      const start = head + headWords;
      this.#arguments.set(words.subarray(start, start + count));
      const [x, y, z] = [words[head + 1], words[head + 2], words[head + 3]];
      this.#driver.call(
        'LaunchKernel',
        [
          kernel.handle,
          x,
          y,
          z,
          words[head + 4],
          1,
          1,
          words[head + 5],
          this.#stream,
          this.#pointer,
          0,
        ],
        `for kernel ${kernel.name}`,
      );
      if (this.#oneByOne) {
        this.#driver.call('StreamSynchronize', [this.#stream], `for kernel ${kernel.name}`);
      }
      head = start + count;
    }
  }
}

/** The numbers that lie as pairs of words. */
function numbersOf(words: Uint32Array): number[] {
  return Array.from(
    { length: words.length / 2 },
    (_, i) => at(words, 2 * i) + at(words, 2 * i + 1) * word,
  );
}

function putSlot(words: Uint32Array, place: number, slot: number): number {
  const low = slot >>> 0;
  words[place] = low;
  words[place + 1] = (slot - low) / word;
  return place + 2;
}

function hashOf(words: Uint32Array): number {
  let a = 0x811c9dc5;
  let b = 0x1b873593;
  for (let i = 0; i < words.length; i++) {
    const value = words[i] ?? missing();
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
