/**
 * The one shared WebAssembly memory that weights, activations and caches lie in. It only grows, at
 * start; what is handed out is zero, aligned, and never taken back.
 */
import { strict as assert } from 'node:assert';
import { totalmem } from 'node:os';
import type { MemoryUse } from '../memory.ts';
import { heapAt } from './kernels/op-codes.ts';

const pageBytes = 65_536;
/** A 32-bit address reaches no further. */
const addressableBytes = 65_536 * pageBytes;
/** The most that one of `ranks` backends of this machine can hold. */
export function cpuBytesMax(ranks = 1): number {
  return Math.min(totalmem() / ranks, addressableBytes);
}

/**
 * A cache line: no two arrays share one, so threads that write next to each other do not collide.
 */
const alignment = 64;

export type Purpose = 'weight' | 'activation' | 'cache';

interface Views {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
}

export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly #limitBytes: number;
  #top = heapAt;
  readonly #used = { weight: 0, activation: 0, cache: 0 };
  #current: Views;

  constructor(memoryBytesMax: number | undefined) {
    const wanted =
      memoryBytesMax === undefined ? cpuBytesMax() : Math.min(memoryBytesMax, addressableBytes);
    const pages = Math.floor(wanted / pageBytes);
    assert(pages > 1, 'memoryBytesMax must be at least 128 KiB');
    this.#limitBytes = pages * pageBytes;
    this.memory = new WebAssembly.Memory({ initial: 1, maximum: pages, shared: true });
    this.#current = this.#views();
  }

  /** Whole-memory views, renewed when the memory grows: do not keep them across an `allocate`. */
  get u8(): Uint8Array {
    return this.#current.u8;
  }
  get u32(): Uint32Array {
    return this.#current.u32;
  }
  get i32(): Int32Array {
    return this.#current.i32;
  }
  get f32(): Float32Array {
    return this.#current.f32;
  }

  /** The address of `bytes` zero bytes. `what` names them in the error when they do not fit. */
  allocate(bytes: number, purpose: Purpose, what: string): number {
    const at = this.#top;
    // Kernels may read, not use, up to 32 bytes behind an array.
    const end = Math.ceil((at + bytes + 32) / alignment) * alignment;
    if (end > this.#limitBytes) {
      throw new Error(
        `the cpu backend's memory does not hold ${what}: it needs ${end} of ${this.#limitBytes} bytes`,
      );
    }
    const missing = Math.ceil((end - this.memory.buffer.byteLength) / pageBytes);
    if (missing > 0) {
      this.#grow(missing, what);
      this.#current = this.#views();
    }
    this.#top = end;
    this.#used[purpose] += end - at;
    return at;
  }

  #grow(pages: number, what: string): void {
    try {
      this.memory.grow(pages);
    } catch (cause) {
      const bytes = pages * pageBytes;
      throw new Error(`the system gave no ${bytes} bytes of memory for ${what}`, { cause });
    }
  }

  use(): MemoryUse {
    return {
      weightBytes: this.#used.weight,
      activationBytes: this.#used.activation,
      cacheBytes: this.#used.cache,
      limitBytes: this.#limitBytes,
      reservedBytes: 0,
    };
  }

  #views(): Views {
    const { buffer } = this.memory;
    return {
      u8: new Uint8Array(buffer),
      u32: new Uint32Array(buffer),
      i32: new Int32Array(buffer),
      f32: new Float32Array(buffer),
    };
  }
}

/**
 * A part of an arena that grows by leaving the old place behind; only at start or at a first use.
 */
export class Scratch {
  readonly #arena: Arena;
  readonly #what: string;
  #bytes = 0;
  #start = 0;

  constructor(arena: Arena, what: string) {
    this.#arena = arena;
    this.#what = what;
  }

  /** The address of at least `bytes` bytes. */
  at(bytes: number): number {
    if (bytes > this.#bytes) {
      this.#start = this.#arena.allocate(bytes, 'activation', this.#what);
      this.#bytes = bytes;
    }
    return this.#start;
  }
}
