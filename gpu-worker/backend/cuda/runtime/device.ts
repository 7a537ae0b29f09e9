/** One GPU: its context, stream and memory, and the ways in and out. */
import { strict as assert } from 'node:assert';
import koffi from 'koffi';
import type { HostMemory, MemoryUse } from '../../memory.ts';
import { DeviceMemory, slabBytesMin, usableBytes } from './device-memory.ts';
import type { Purpose } from './device-memory.ts';
import { Driver } from './driver.ts';
import type { Handle } from './driver.ts';
import { Kernels } from './kernels.ts';
import type { Kernel, ProgramName } from './kernels.ts';
import type { KernelArgs } from './kernel-args.ts';
import { LaunchQueue } from './launch-queue.ts';
import type { LaunchShape } from './launch-queue.ts';
import { CudaMissing } from './libraries.ts';

/** Bytes of a weight that are in flight at a time. */
const stagingBytes = 32 * 2 ** 20;
const attribute = { smCount: 16, major: 75, minor: 76 } as const;

export interface DeviceOptions {
  readonly memoryBytesMax?: number;
  /** True if steps are replayed as CUDA graphs; yes unless told otherwise. */
  readonly graphs?: boolean;
  /** True if kernels tell racecheck, at a cost, all that orders their accesses; no unless told. */
  readonly traced?: boolean;
}

export class Device {
  readonly driver: Driver;
  readonly name: string;
  readonly smCount: number;
  /** True if the GPU is a Hopper, with its tensor cores and its copy engine. */
  readonly isSm90: boolean;
  readonly stream: Handle;
  readonly queue: LaunchQueue;
  /** Pinned buffers, which `upload` copies from without staging. */
  readonly hostMemory: HostMemory = {
    allocate: (bytes) => this.#pin(bytes),
    free: (buffer) => this.#unpin(buffer.buffer),
  };
  readonly #kernels: Kernels;
  readonly #ordinal: number;
  readonly #memory: DeviceMemory;
  readonly #allocations = new Set<number>();
  readonly #staging: Uint8Array<ArrayBuffer>;
  /** The driver's name of each pinned buffer. */
  readonly #pinned = new Map<ArrayBufferLike, unknown>();
  #copies = 0;

  /** @throws CudaMissing without a driver or a GPU of compute capability 9.0. */
  constructor(options: DeviceOptions = {}) {
    const driver = new Driver();
    this.driver = driver;
    driver.call('Init', [0]);
    if (driver.make('DeviceGetCount', []) === 0) throw new CudaMissing('there is no NVIDIA GPU');
    this.#ordinal = Number(driver.make('DeviceGet', [0]));
    const attributeOf = (which: number) =>
      Number(driver.make('DeviceGetAttribute', [which, this.#ordinal]));
    const [major, minor] = [attributeOf(attribute.major), attributeOf(attribute.minor)];
    this.isSm90 = major === 9 && minor === 0;
    const name = new Uint8Array(128);
    driver.call('DeviceGetName', [name, name.length, this.#ordinal]);
    this.name = Buffer.from(name.subarray(0, name.indexOf(0))).toString('utf8');
    if (!this.isSm90) {
      throw new CudaMissing(`${this.name} has compute capability ${major}.${minor}; 9.0 is needed`);
    }
    this.smCount = attributeOf(attribute.smCount);
    driver.call('CtxSetCurrent', [driver.make('DevicePrimaryCtxRetain', [this.#ordinal])]);
    this.stream = driver.make('StreamCreate', [1]);
    this.#kernels = new Kernels(driver, 'sm_90a', options.traced === true ? ['-DkTraced=1'] : []);
    this.queue = new LaunchQueue(driver, this.#kernels, this.stream, options.graphs ?? true);
    const [free, total]: [[Handle], [Handle]] = [[0], [0]];
    driver.call('MemGetInfo_v2', [free, total]);
    const usable = usableBytes(Number(free[0]));
    if (usable < slabBytesMin) {
      const [left, all] = [free[0], total[0]].map(
        (bytes) => `${(Number(bytes) / 2 ** 30).toFixed(2)} GiB`,
      );
      throw new CudaMissing(`${this.name} has only ${left} of ${all} free: others hold the rest`);
    }
    this.#memory = new DeviceMemory({
      limitBytes: Math.min(options.memoryBytesMax ?? usable, usable),
      take: (bytes, what, takenBytes) => this.#take(bytes, what, takenBytes),
    });
    this.#staging = this.#pin(stagingBytes);
  }

  #pin(bytes: number): Uint8Array<ArrayBuffer> {
    const pointer: [unknown] = [null];
    this.driver.call('MemAllocHost_v2', [pointer, bytes], `for ${bytes} bytes of pinned memory`);
    const buffer = koffi.view(pointer[0], bytes);
    this.#pinned.set(buffer, pointer[0]);
    return new Uint8Array(buffer);
  }

  #unpin(buffer: ArrayBufferLike): void {
    const pointer = this.#pinned.get(buffer);
    assert(pointer !== undefined, 'a buffer to free was pinned here');
    this.#pinned.delete(buffer);
    this.driver.raw('MemFreeHost', [pointer]);
  }

  kernel(program: ProgramName, name: string, defines?: Readonly<Record<string, number>>): Kernel {
    return this.#kernels.get(program, name, defines);
  }

  launch(kernel: Kernel, shape: LaunchShape, args: KernelArgs): void {
    this.queue.push(kernel, shape, args);
  }

  /** Ends the allocations of the start: from here on nothing is allocated. */
  freezeMemory(): void {
    this.#memory.freeze();
  }

  /** The address of `bytes` bytes; `what` names them in the error when they do not fit. */
  allocate(bytes: number, purpose: Purpose, what: string): number {
    return this.#memory.allocate(bytes, purpose, what);
  }

  /** Memory of the driver's. */
  #take(bytes: number, what: string, takenBytes: number): number {
    const { limitBytes } = this.#memory;
    if (takenBytes + bytes > limitBytes) {
      throw new Error(
        `the GPU's memory does not hold ${what}: it needs ${bytes} bytes more than the ${takenBytes} of ${limitBytes} in use`,
      );
    }
    const at = Number(this.driver.make('MemAlloc_v2', [bytes], `for ${what}`));
    this.#allocations.add(at);
    return at;
  }

  /** Bytes of weights, activations and caches together. */
  get limitBytes(): number {
    return this.#memory.limitBytes;
  }

  memory(): MemoryUse {
    return this.#memory.use();
  }

  /**
   * Grows with whatever goes to the stream past the queue, and with every emptying of the queue.
   */
  get traffic(): number {
    return this.#copies + this.queue.flushes;
  }
  /**
   * Copies a weight, through staging memory if it is not in pinned memory; done when it returns.
   */
  upload(to: number, from: Uint8Array): void {
    this.queue.flush();
    this.#copies++;
    if (this.#pinned.has(from.buffer)) {
      const args = [to, from, from.length, this.stream];
      if (from.length > 0) this.driver.call('MemcpyHtoDAsync_v2', args, 'for an upload');
      this.synchronize();
      return;
    }
    for (let at = 0; at < from.length; at += stagingBytes) {
      const part = from.subarray(at, at + stagingBytes);
      this.#staging.set(part);
      const args = [to + at, this.#staging, part.length, this.stream];
      this.driver.call('MemcpyHtoDAsync_v2', args, 'for an upload');
      this.synchronize();
    }
  }

  /** A small copy in stream order, behind what has been flushed; `from` may change at once. */
  send(to: number, from: Int32Array | Float64Array | Uint8Array): void {
    if (from.byteLength === 0) return;
    this.#copies++;
    // The driver copies pageable memory aside before it returns.
    const args = [to, from, from.byteLength, this.stream];
    this.driver.call('MemcpyHtoDAsync_v2', args, "for a step's input");
  }

  /** Runs what is queued, waits, and copies `bytes` from the device. */
  download(from: number, bytes: number): Uint8Array<ArrayBuffer> {
    this.queue.flush();
    this.#copies++;
    const out = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at += stagingBytes) {
      const count = Math.min(stagingBytes, bytes - at);
      this.#stage(from + at, count, 0);
      this.synchronize();
      out.set(this.#staging.subarray(0, count), at);
    }
    return out;
  }

  /** `download` of a result and of a word beside it, which takes one waiting instead of two. */
  downloadWith(from: number, bytes: number, word: number): [Uint8Array<ArrayBuffer>, number] {
    if (bytes > stagingBytes - 4) {
      const result = this.download(from, bytes);
      return [result, wordOf(this.download(word, 4))];
    }
    this.queue.flush();
    this.#copies++;
    // Staging memory begins at a page and so does not mind where the word lies in it.
    const wordAt = Math.ceil(bytes / 4) * 4;
    this.#stage(from, bytes, 0);
    this.#stage(word, 4, wordAt);
    this.synchronize();
    const result = this.#staging.slice(0, bytes);
    return [result, wordOf(this.#staging.subarray(wordAt, wordAt + 4))];
  }

  #stage(from: number, bytes: number, at: number): void {
    const args = [this.#staging.subarray(at), from, bytes, this.stream];
    this.driver.call('MemcpyDtoHAsync_v2', args, 'for a result');
  }

  fill(at: number, bytes: number, value: number): void {
    this.queue.flush();
    this.#copies++;
    this.driver.call('MemsetD8Async', [at, value, bytes, this.stream]);
  }

  /** Runs what is queued and waits for it; a fault of any kernel before comes up here. */
  synchronize(): void {
    this.queue.flush();
    this.driver.call('StreamSynchronize', [this.stream], "for a step's kernels");
  }

  /** Milliseconds that the GPU spends on what `run` queues. */
  time(run: () => void): number {
    this.synchronize();
    const start = this.driver.make('EventCreate', [0]);
    const end = this.driver.make('EventCreate', [0]);
    this.driver.call('EventRecord', [start, this.stream]);
    run();
    this.queue.flush();
    this.driver.call('EventRecord', [end, this.stream]);
    this.driver.call('EventSynchronize', [end], 'for a measurement');
    const out: [number] = [0];
    this.driver.call('EventElapsedTime', [out, start, end]);
    for (const event of [start, end]) this.driver.call('EventDestroy_v2', [event]);
    return out[0];
  }

  /** Frees everything; errors of a device that has already failed are of no more use. */
  close(): void {
    const { driver } = this;
    driver.raw('StreamSynchronize', [this.stream]);
    this.queue.close();
    for (const at of this.#allocations) driver.raw('MemFree_v2', [at]);
    for (const buffer of this.#pinned.keys()) this.#unpin(buffer);
    driver.raw('StreamDestroy_v2', [this.stream]);
    driver.raw('DevicePrimaryCtxRelease_v2', [this.#ordinal]);
    this.#allocations.clear();
  }
}

/** Device memory that grows by leaving the old place behind; only at start or at a first use. */
export class Scratch {
  readonly #device: Pick<Device, 'allocate'>;
  readonly #what: string;
  #bytes = 0;
  #start = 0;

  constructor(device: Pick<Device, 'allocate'>, what: string) {
    this.#device = device;
    this.#what = what;
  }

  /** Bytes that lie at the last address given out. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The address of at least `bytes` bytes. */
  at(bytes: number): number {
    assert(Number.isInteger(bytes) && bytes >= 0, `${bytes} bytes of ${this.#what}`);
    if (bytes > this.#bytes) {
      this.#start = this.#device.allocate(bytes, 'activation', this.#what);
      this.#bytes = bytes;
    }
    return this.#start;
  }
}

function wordOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
